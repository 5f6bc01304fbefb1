"""The /ping service of `ratelab serve`: rate limit, health check, metrics and shutdown.

A response of status 503 has one of two sources: the middleware, if the limiter raises `StoreError` because the store
made no decision (see `ratelab.stores.resilient`); or `answer_503_on_shutdown` below.
"""

from __future__ import annotations

import asyncio
import json
import time
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from ratelab.http.admin import Admin, route_by_socket
from ratelab.http.asgi import App, Message, Receive, Scope, Send
from ratelab.http.counters import CounterValues
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.offenders import Ranking
from ratelab.http.prometheus import Page, metrics_page
from ratelab.http.responses import send_problem
from ratelab.http.scope_functions import decision_of, format_path
from ratelab.limiter import Limiter
from ratelab.stores.key_table import Stats
from ratelab.stores.resilient import ResilientLimiter

if TYPE_CHECKING:
    from ratelab.http.file_policies import FilePolicies

PROBE_INTERVAL_S = 0.25
"""Seconds between two calls of `ResilientLimiter.probe`, which decides whether the store is due for a probe."""


def serve_pages(pages: Mapping[str, Page]) -> App:
    """Create the application that answers GET and HEAD for `pages` by path, 405 to other methods and 404 elsewhere."""
    known = ", ".join(pages)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:  # noqa: ARG001  (ASGI's signature)
        if scope["type"] != "http":
            return
        page = pages.get(scope["path"])
        if page is None:
            await send_problem(scope, send, 404, f"Ask for {known}.")
        elif scope["method"] not in ("GET", "HEAD"):
            await send_problem(scope, send, 405, "Use GET or HEAD.", (b"allow", b"GET, HEAD"))
        else:
            content_type, body = page()
            headers = [(b"content-type", content_type), (b"content-length", b"%d" % len(body))]
            await send({"type": "http.response.start", "status": 200, "headers": headers})
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    return app


ping_app = serve_pages(
    {
        "/ping": lambda: (b"application/json", b'{"message": "pong"}\n'),
        "/healthz": lambda: (b"application/json", b'{"status": "ok"}\n'),
    }
)
"""The application behind the limiter."""


class CountingLimiter(Limiter, Protocol):
    """A limiter that counts its keys."""

    @property
    def stats(self) -> Stats:
        """Return the current counters."""
        ...


class Service:
    """`/ping` behind a limiter, and `/healthz`, which is never limited.

    If `close` is given and the server runs the app's lifespan, the service probes a failing store even when no request
    arrives, and calls `close` at shutdown. `file` has the policies of the limiter, with plans and overrides.
    """

    def __init__(
        self,
        limiter: CountingLimiter | ResilientLimiter,
        identity: Identity,
        legacy: str = "off",
        close: Callable[[], object] | None = None,
        file: FilePolicies | None = None,
    ) -> None:
        self.limiter, self.identity = limiter, identity
        middleware = RateLimitMiddleware(ping_app, limiter, identity, exempt=is_health_check, legacy=legacy, file=file)
        self._guard = middleware.policy_guard
        self._reload_forced = False
        self.counts, self.offenders = middleware.counts, middleware.offenders
        app = answer_503_on_shutdown(middleware)
        self.app: App = app if close is None else _with_lifespan(app, self._probe_store, close)

    def read_counters(self) -> CounterValues:
        """Return the current counters."""
        health = self.limiter.health if isinstance(self.limiter, ResilientLimiter) else None
        return CounterValues(self.counts, self.limiter.stats, health)

    def force_reload(self) -> None:
        """Have the next `reload` read the policy file in any case; a signal handler may call this."""
        self._reload_forced = True

    def reload(self) -> str | None:
        """Read the policy file again if it has changed; return a message if its policies are in force now."""
        forced, self._reload_forced = self._reload_forced, False
        if self._guard is None or not self._guard.reload(forced):
            return None
        names = ", ".join(policy.name for policy in self.limiter.policies)
        return f"the policy file was read again; its policies are {names}"

    def read_ranking(self) -> Ranking:
        """Return the current top offenders."""
        return Ranking.of(self.offenders)

    def serve_admin(self, path: str, read_ranking: Callable[[], Ranking] | None = None) -> None:
        """Serve the pages of `Admin` to connections on the Unix socket at `path`.

        `read_ranking` may return the ranking over several processes; by default, it is the service's own method.
        """
        admin = Admin(self.limiter, self.identity, read_ranking or self.read_ranking)
        self.app = route_by_socket(path, admin, self.app)

    def enable_access_log(self, write: Callable[[str], object]) -> None:
        """Call `write`, which must not block, with a line for each request."""
        self.app = log_requests(self.app, write)

    def serve_metrics(
        self,
        address: tuple[Any, ...],
        read_counters: Callable[[], CounterValues] | None = None,
        read_ranking: Callable[[], Ranking] | None = None,
    ) -> None:
        """Serve `/metrics` and `/offenders`, and nothing else, at the host and port of a socket's `address`.

        They have no limit. `read_counters` and `read_ranking` may return the sum over several processes; by default,
        they are the service's own methods.
        """
        public = self.app
        page = metrics_page(
            "+".join(policy.algorithm.name for policy in self.limiter.policies), read_counters or self.read_counters
        )
        read = read_ranking or self.read_ranking
        offenders = lambda: (b"application/json", json.dumps(read().serialize()).encode() + b"\n")  # noqa: E731
        metrics = serve_pages({"/metrics": page, "/offenders": offenders})
        host, port, *_ = address
        hosts = None if host in ("0.0.0.0", "::") else {host}  # noqa: S104  (compared)

        def route_by_address(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            server = scope.get("server") or ("", 0)
            app = metrics if server[1] == port and (hosts is None or server[0] in hosts) else public
            return app(scope, receive, send)

        self.app = route_by_address

    async def _probe_store(self) -> None:
        while isinstance(self.limiter, ResilientLimiter):
            await asyncio.sleep(PROBE_INTERVAL_S)
            await self.limiter.probe()


def is_health_check(scope: Scope) -> bool:
    """Return whether a request is for `/healthz`."""
    path: str = scope["path"]
    return path == "/healthz"


def answer_503_on_shutdown(app: App) -> App:
    """Wrap `app` to answer 503 to requests that the server cancels at shutdown before their response starts."""

    async def app_with_503(scope: Scope, receive: Receive, send: Send) -> None:
        started = False

        async def send_and_note(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await app(scope, receive, send_and_note)
        except CancelledError:
            if started:
                raise
            fields = (b"retry-after", b"1"), (b"connection", b"close")
            await send_problem(scope, send, 503, "The service is stopping.", *fields)

    return app_with_503


def _with_lifespan(app: App, background: Callable[[], Coroutine[None, None, None]], close: Callable[[], object]) -> App:
    """Wrap `app` to run `background` while the server runs, and to call `close` at shutdown."""

    async def app_with_lifespan(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        task = asyncio.ensure_future(background())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task.cancel()
        close()
        await send({"type": "lifespan.shutdown.complete"})

    return app_with_lifespan


# --- the access log


def log_requests(app: App, write: Callable[[str], object]) -> App:
    """Wrap `app` to write `12:00:01 GET /ping 429 0.3 ms "token-bucket";r=0;t=1` when a response starts.

    `write` must not block.
    """

    async def app_with_log(scope: Scope, receive: Receive, send: Send) -> None:
        start = time.monotonic()

        def send_and_log(message: Message) -> Awaitable[None]:
            if message["type"] == "http.response.start":
                write(_format_line(scope, message, time.monotonic() - start))
            return send(message)

        await app(scope, receive, send_and_log)

    return app_with_log


def _format_line(scope: Scope, message: Message, seconds: float) -> str:
    limits = [value.decode() for name, value in message.get("headers", ()) if name == b"ratelimit"]
    decision = decision_of(scope)
    if decision is not None and decision.shadow:
        limits.append(f"shadow denial by {', '.join(decision.shadow)}")
    time_of_day, milliseconds = time.strftime("%H:%M:%S"), f"{seconds * 1000:.1f} ms"
    return " ".join([time_of_day, scope["method"], format_path(scope), str(message["status"]), milliseconds, *limits])
