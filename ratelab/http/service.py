"""The service that `ratelab serve` runs: `/ping` behind a limiter, and the limiter's figures on a port of their own."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol

from ratelab.http.accesslog import logged
from ratelab.http.app import answering_when_stopped, is_health_check, ping_app
from ratelab.http.asgi import App, Receive, Scope, Send
from ratelab.http.identity import Identity
from ratelab.http.metrics import metrics_app
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.limiter import Limiter
from ratelab.stores.memory import Stats


class CountingLimiter(Limiter, Protocol):
    """A limiter that counts its keys."""

    @property
    def stats(self) -> Stats:
        """Return the counters as they stand."""
        ...


class Service:
    """`/ping` behind `limiter`; `/healthz` beside it, which is never limited."""

    def __init__(self, limiter: CountingLimiter, identity: Identity, legacy: str = "off") -> None:
        self.limiter = limiter
        middleware = RateLimitMiddleware(ping_app, limiter, identity, exempt=is_health_check, legacy=legacy)
        self.counts = middleware.counts
        self.app: App = answering_when_stopped(middleware)

    def log_to(self, write: Callable[[str], object]) -> None:
        """Have a line written for each request."""
        self.app = logged(self.app, write)

    def show_metrics_on(self, address: tuple[str, int]) -> None:
        """Answer what comes in on the host and port of `address` with `/metrics` alone, which is not limited."""
        public = self.app
        metrics = metrics_app(self.limiter.algorithm.name, self.counts, lambda: self.limiter.stats)

        def by_address(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            chosen = metrics if scope["server"] == address else public
            return chosen(scope, receive, send)

        self.app = by_address
