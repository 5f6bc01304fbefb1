"""Stores that fail on demand, and calls that a test completes by hand, without an event loop."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from inspect import iscoroutine, iscoroutinefunction
from typing import Any, NamedTuple, Self

from ratelab import Clock, Decision, ManualClock, MemoryLimiter, Policy, create
from ratelab.errors import StoreError
from ratelab.limiter import AsyncLimiter, Costs, Keys
from ratelab.stores.blocking_resilient import BlockingResilientLimiter, run_now
from ratelab.stores.resilient import ResilientLimiter

MS, SECOND = 10**6, 10**9


class FlakyStore:
    """A store that decides at once, in memory, or raises the error that a test sets."""

    def __init__(self, policy: Policy | None = None, clock: Clock | None = None) -> None:
        self.memory = MemoryLimiter(policy or create("token-bucket", "2/s", 5), clock or ManualClock())
        self.calls: list[tuple[Keys, Costs]] = []
        self.error: Exception | None = None

    @property
    def policy(self) -> Policy:
        return self.memory.policy

    @property
    def policies(self) -> tuple[Policy, ...]:
        return self.memory.policies

    async def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
        self.calls.append((key, cost))
        if self.error is not None:
            raise self.error
        return self.memory.hit_each(key, cost)

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        self.calls.append((key, cost))
        if self.error is not None:
            raise self.error
        return self.memory.hit(key, cost)

    async def reset(self, key: str) -> None:
        if self.error is not None:
            raise self.error
        self.memory.reset(key)

    def fail(self, kind: str = "timeout", message: str = "no answer in 100 ms") -> None:
        self.error = StoreError(kind, message)

    def recover(self) -> None:
        self.error = None


class Reply:
    """An awaitable that is resolved by the test."""

    def __await__(self) -> Generator[Self, Decision, Decision]:
        return (yield self)


class PendingStore(FlakyStore):
    """A store that decides when the test completes a `Call`."""

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        self.calls.append((key, cost))
        return await Reply()


class Call:
    """A request of a limiter with a `PendingStore`: `pending`, then with an `outcome`, unless it is cancelled."""

    def __init__(self, limiter: AsyncLimiter, key: str = "alice", cost: int = 1) -> None:
        self._coroutine: Any = limiter.hit(key, cost)
        self.pending = True
        self.outcome: Decision | StoreError | None = None
        self._resume(self._coroutine.send, None)

    def succeed(self) -> None:
        """Have the store admit the request."""
        self._resume(self._coroutine.send, Decision(True, 4, 0, 10**9, 0))

    def fail(self, kind: str = "timeout") -> None:
        self._resume(self._coroutine.throw, StoreError(kind, "no answer in 100 ms"))

    def cancel(self) -> None:
        self._coroutine.close()
        self.pending = False

    def _resume(self, resume: Callable[[Any], object], value: object) -> None:
        """Resume the coroutine, unless it has ended."""
        if not self.pending:
            return
        try:
            resume(value)
        except StopIteration as done:
            self.pending, self.outcome = False, done.value
        except StoreError as error:
            self.pending, self.outcome = False, error


# --- limiters with such a store, in both forms


class BlockingStore:
    """A store that blocks where another one, which does not make a caller wait, is awaited."""

    def __init__(self, store: AsyncLimiter) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._store, name)
        if not iscoroutinefunction(value):
            return value
        return lambda *arguments, **options: run_now(value(*arguments, **options))


_blocking = [False]


@contextmanager
def limiters_that_block(blocking: bool) -> Iterator[None]:
    """Have `create_limiter` create limiters that block, or not, during the block."""
    before, _blocking[0] = _blocking[0], blocking
    try:
        yield
    finally:
        _blocking[0] = before


def create_limiter(
    store: AsyncLimiter, on_store_error: str = "local", clock: Clock | None = None, **options: Any
) -> Any:
    """Return the resilient limiter of a store, in the form of which tests make use."""
    if _blocking[0]:
        return BlockingResilientLimiter(BlockingStore(store), on_store_error, clock, **options)
    return ResilientLimiter(store, on_store_error, clock, **options)


def finish(result: Any) -> Any:
    """Return the result of a method of a limiter, which does not wait."""
    if not iscoroutine(result):
        return result
    try:
        result.send(None)
    except StopIteration as done:
        return done.value
    raise AssertionError("the limiter waits")


def decide(limiter: Any, key: str = "alice", cost: int = 1) -> Decision:
    """Return the decision of a limiter that does not wait."""
    return Decision(*finish(limiter.hit(key, cost)))


def probe(limiter: Any) -> None:
    """Have a limiter probe a store that does not make it wait."""
    finish(limiter.probe())


def limiter_with_store_down(store: FlakyStore, on_store_error: str = "local", clock: ManualClock | None = None) -> Any:
    """Return a limiter whose store has just gone down, after three requests of cost 0."""
    limiter = create_limiter(store, on_store_error, clock or ManualClock())
    store.fail()
    for _ in range(3):
        with suppress(StoreError):
            decide(limiter, "other", 0)
    assert not limiter.health.up
    store.calls.clear()
    return limiter


# --- calls in flight


class Service(NamedTuple):
    """A limiter with a `PendingStore`, and its clock."""

    limiter: ResilientLimiter
    clock: ManualClock

    def call(self) -> Call:
        return Call(self.limiter)

    def pending_calls(self, count: int) -> list[Call]:
        """Make `count` requests, and return those that call the store."""
        return [call for call in (self.call() for _ in range(count)) if call.pending]


def start_service(on_store_error: str = "open") -> Service:
    clock = ManualClock()
    return Service(ResilientLimiter(PendingStore(), on_store_error, clock), clock)


def start_outage(on_store_error: str = "open", in_flight: int = 1) -> Service:
    """Start a service whose store fails three times in a row, each time with `in_flight` requests."""
    service = start_service(on_store_error)
    for _ in range(3):
        for call in service.pending_calls(in_flight):
            call.fail()
    assert not service.limiter.health.up
    return service
