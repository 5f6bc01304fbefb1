"""Stores that fail when a test says so, and requests in flight that a test moves by hand, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import suppress
from typing import Any, NamedTuple, Self

from ratelab import Decision, ManualClock, MemoryLimiter, Policy, create
from ratelab.errors import StoreError
from ratelab.limiter import AsyncLimiter
from ratelab.stores.resilient import ResilientLimiter

MS, SECOND = 10**6, 10**9


class Flaky:
    """A store that answers at once: what it decides, or why it does not."""

    def __init__(self, policy: Policy | None = None) -> None:
        self.memory = MemoryLimiter(policy or create("token-bucket", "2/s", 5), ManualClock())
        self.asked: list[tuple[str, int]] = []
        self.error: Exception | None = None

    @property
    def policy(self) -> Policy:
        return self.memory.policy

    async def hit(self, key: str, cost: int = 1) -> Decision:
        self.asked.append((key, cost))
        if self.error is not None:
            raise self.error
        return self.memory.hit(key, cost)

    def fail(self, kind: str = "timeout", message: str = "no answer in 100 ms") -> None:
        self.error = StoreError(kind, message)

    def heal(self) -> None:
        self.error = None


class Reply:
    """What a request in flight waits for."""

    def __await__(self) -> Generator[Self, Decision, Decision]:
        return (yield self)


class Held(Flaky):
    """A store that answers when the test says so."""

    async def hit(self, key: str, cost: int = 1) -> Decision:
        self.asked.append((key, cost))
        return await Reply()


class Call:
    """One request: `asks` while it waits for the store, then with an `outcome`; neither if it was cancelled."""

    def __init__(self, limiter: AsyncLimiter, key: str = "alice", cost: int = 1) -> None:
        self._running: Any = limiter.hit(key, cost)
        self.asks = True
        self.outcome: Decision | StoreError | None = None
        self._go(self._running.send, None)

    def succeed(self) -> None:
        """Have the store allow it."""
        self._go(self._running.send, Decision(True, 4, 0, 10**9, 0))

    def fail(self, kind: str = "timeout") -> None:
        self._go(self._running.throw, StoreError(kind, "no answer in 100 ms"))

    def cancel(self) -> None:
        self._running.close()
        self.asks = False

    def _go(self, move: Callable[[Any], object], value: object) -> None:
        """Move on, if it is not over."""
        if not self.asks:
            return
        try:
            move(value)
        except StopIteration as done:
            self.asks, self.outcome = False, done.value
        except StoreError as error:
            self.asks, self.outcome = False, error


def decided(limiter: AsyncLimiter, key: str = "alice", cost: int = 1) -> Decision:
    """Return the decision of a request that does not wait."""
    running: Any = limiter.hit(key, cost)
    try:
        running.send(None)
    except StopIteration as done:
        return Decision(*done.value)
    raise AssertionError("it waits")


def looked(limiter: ResilientLimiter) -> None:
    """Have a limiter look after its store, which does not let it wait."""
    running: Any = limiter.probe()
    with suppress(StopIteration):
        running.send(None)
        raise AssertionError("it waits")


def broken(store: Flaky, on_store_error: str = "local", clock: ManualClock | None = None) -> ResilientLimiter:
    """Return a limiter that has just found out that `store` is down, by requests that cost nothing."""
    limiter = ResilientLimiter(store, on_store_error, clock or ManualClock())
    store.fail()
    for _ in range(3):
        with suppress(StoreError):
            decided(limiter, "somebody", 0)
    assert not limiter.health.up
    store.asked.clear()
    return limiter


class Shared(NamedTuple):
    """A limiter and the store it asks."""

    limiter: ResilientLimiter
    clock: ManualClock

    def call(self) -> Call:
        return Call(self.limiter)

    def asking(self, count: int) -> list[Call]:
        """Return those of `count` new requests that ask the store."""
        return [call for call in (self.call() for _ in range(count)) if call.asks]


def shared(on_store_error: str = "open") -> Shared:
    clock = ManualClock()
    return Shared(ResilientLimiter(Held(), on_store_error, clock), clock)


def outage(on_store_error: str = "open", in_flight: int = 1) -> Shared:
    """Have a store fail three times in a row, each time under so many requests in flight."""
    at = shared(on_store_error)
    for _ in range(3):
        for call in at.asking(in_flight):
            call.fail()
    assert not at.limiter.health.up
    return at
