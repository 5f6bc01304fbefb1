"""The service behind the limiter: `GET /ping`, and `GET /healthz` for whoever watches it."""

from __future__ import annotations

import asyncio
from asyncio import CancelledError
from collections.abc import Awaitable, Callable, Coroutine
from typing import Protocol

from ratelab.http.access_log import logged
from ratelab.http.asgi import PROBLEM_HEADERS, App, Message, Receive, Scope, Send, answer, problem, site
from ratelab.http.counters import CounterValues
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.prometheus import metrics_app
from ratelab.limiter import Limiter
from ratelab.stores.memory import Stats
from ratelab.stores.resilient import ResilientLimiter

ping_app = site(
    {
        "/ping": lambda: (b"application/json", b'{"message": "pong"}\n'),
        "/healthz": lambda: (b"application/json", b'{"status": "ok"}\n'),
    }
)
"""What `ratelab serve` serves."""


def is_health_check(scope: Scope) -> bool:
    """Say whether a request asks for the service's health, which is never limited."""
    path: str = scope["path"]
    return path == "/healthz"


def answering_when_stopped(app: App) -> App:
    """Answer 503 to a request whose task is cancelled before its answer has begun, as a server does when it stops."""

    async def stoppable(scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def send_and_note(message: Message) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await app(scope, receive, send_and_note)
        except CancelledError:
            if begun:
                raise
            fields = (*PROBLEM_HEADERS, (b"retry-after", b"1"), (b"connection", b"close"))
            await answer(scope, send, 503, fields, problem(503, "The service is stopping."))

    return stoppable


LOOK = 0.25
"""Seconds from one look at a store that is down to the next; its limiter says which of them asks."""


class CountingLimiter(Limiter, Protocol):
    """A limiter that counts its keys."""

    @property
    def stats(self) -> Stats:
        """Return the counters as they stand."""
        ...


class Service:
    """`/ping` behind `limiter`; `/healthz` beside it, which is never limited.

    A server that runs the app's lifespan has a `ResilientLimiter` look after its store even if nobody comes, and
    `close` called at the end.
    """

    def __init__(
        self,
        limiter: CountingLimiter | ResilientLimiter,
        identity: Identity,
        legacy: str = "off",
        close: Callable[[], object] | None = None,
    ) -> None:
        self.limiter = limiter
        middleware = RateLimitMiddleware(ping_app, limiter, identity, exempt=is_health_check, legacy=legacy)
        self.counts = middleware.counts
        app = answering_when_stopped(middleware)
        self.app: App = app if close is None else _living(app, self._look_after_store, close)

    def figures(self) -> CounterValues:
        """Return what has been counted so far."""
        health = self.limiter.health if isinstance(self.limiter, ResilientLimiter) else None
        return CounterValues(self.counts, self.limiter.stats, health)

    async def _look_after_store(self) -> None:
        while isinstance(self.limiter, ResilientLimiter):
            await asyncio.sleep(LOOK)
            await self.limiter.probe()

    def log_to(self, write: Callable[[str], object]) -> None:
        """Have a line written for each request."""
        self.app = logged(self.app, write)

    def show_metrics_on(self, address: tuple[str, int], figures: Callable[[], CounterValues] | None = None) -> None:
        """Answer what comes in on the host and port of `address` with `/metrics` alone, which is not limited.

        `figures` returns what is told there, by default this service's own.
        """
        public, gathered = self.app, figures or self.figures

        async def metrics(scope: Scope, receive: Receive, send: Send) -> None:
            counts, stats, health = gathered()
            told = metrics_app(
                self.limiter.algorithm.name, counts, lambda: stats, None if health is None else lambda: health
            )
            await told(scope, receive, send)

        def by_address(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            chosen = metrics if scope.get("server") == address else public
            return chosen(scope, receive, send)

        self.app = by_address


def _living(app: App, meanwhile: Callable[[], Coroutine[None, None, None]], close: Callable[[], object]) -> App:
    """Have `meanwhile` run while a server does that runs the app's lifespan, and then `close`."""

    async def living(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        task = asyncio.ensure_future(meanwhile())
        await send({"type": "lifespan.startup.complete"})
        await receive()
        task.cancel()
        close()
        await send({"type": "lifespan.shutdown.complete"})

    return living
