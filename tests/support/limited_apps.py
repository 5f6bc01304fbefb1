"""Both sides of the middleware: a limiter that remembers its hits, and an application that remembers its calls."""

from __future__ import annotations

from dataclasses import replace

from ratelab import ManualClock, MemoryLimiter, Policy, create
from ratelab.http.asgi import Message, Receive, Scope, Send
from ratelab.limiter import Costs, Keys, Row


class Watched(MemoryLimiter):
    """A limiter of 2/s and burst 5, on a clock that stands still, that remembers its hits."""

    def __init__(self, algorithm: str = "token-bucket", rate: str = "2/s", burst: int = 5) -> None:
        super().__init__(create(algorithm, rate, burst), ManualClock())
        self.asked: list[tuple[Keys, Costs]] = []

    def hit_row(self, key: Keys, cost: Costs = 1) -> Row:
        self.asked.append((key, cost))
        return super().hit_row(key, cost)


class Handler:
    """An application that answers `hello`, always with the same messages, and remembers its calls."""

    def __init__(self) -> None:
        self.calls: list[tuple[Scope, Receive, Send]] = []
        self.start: Message = {"type": "http.response.start", "status": 200, "headers": [(b"server", b"mine")]}
        self.body: Message = {"type": "http.response.body", "body": b"hello"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.calls.append((scope, receive, send))
        if scope["type"] == "http":
            await send(self.start)
            await send(self.body)


def named(name: str) -> Policy:
    """Return the policy of a token bucket of 2/s and burst 5 with another name."""
    return replace(create("token-bucket", "2/s", burst=5), name=name)
