"""The service that `ratelab serve` runs: `/ping` behind a limiter, and the limiter's figures on a port of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ratelab.http.accesslog import logged
from ratelab.http.app import answering_when_stopped, is_health_check, ping_app
from ratelab.http.asgi import App, Receive, Scope, Send
from ratelab.http.figures import Figures
from ratelab.http.identity import Identity
from ratelab.http.metrics import metrics_app
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.limiter import Limiter
from ratelab.stores.memory import Stats
from ratelab.stores.resilient import ResilientLimiter


class CountingLimiter(Limiter, Protocol):
    """A limiter that counts its keys."""

    @property
    def stats(self) -> Stats:
        """Return the counters as they stand."""
        ...


class Service:
    """`/ping` behind `limiter`; `/healthz` beside it, which is never limited.

    `close` is called at the end, by a server that runs the app's lifespan.
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
        self.app: App = app if close is None else _closing(app, close)

    def figures(self) -> Figures:
        """Return what has been counted so far."""
        health = self.limiter.health if isinstance(self.limiter, ResilientLimiter) else None
        return Figures(self.counts, self.limiter.stats, health)

    def log_to(self, write: Callable[[str], object]) -> None:
        """Have a line written for each request."""
        self.app = logged(self.app, write)

    def show_metrics_on(self, address: tuple[str, int], figures: Callable[[], Figures] | None = None) -> None:
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


def _closing(app: App, close: Callable[[], object]) -> App:
    """Have `close` called when a server that runs the app's lifespan has stopped."""

    async def closing(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await app(scope, receive, send)
            return
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await receive()
        close()
        await send({"type": "lifespan.shutdown.complete"})

    return closing
