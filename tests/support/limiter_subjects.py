"""Limiters under test, each with the clock that it reads, and the decisions that its algorithm makes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass

from ratelab import NEVER, Decision, Limiter, ManualClock, Policy
from ratelab.errors import StoreError
from ratelab.limiter import AsyncLimiter

CALLERS = 64


@dataclass
class Subject:
    """A limiter under test, the clock that it reads, and functions that call it."""

    policy: Policy
    clock: ManualClock
    hit: Callable[[str, int], Decision]
    hit_concurrently: Callable[[str, int], Sequence[Decision]]
    """Hit a key a number of times, at the same time."""
    tick: int = 1
    """The limiter's resolution of time, in nanoseconds."""
    reset: Callable[[str], object] | None = None
    """Reset a key, if the limiter can."""

    def reference(self) -> Reference:
        """Return the reference for a new key."""
        return Reference(self.policy, self.clock, self.tick)


Factory = Callable[[Policy, int], AbstractContextManager[Subject]]
"""Makes a limiter for a policy, and a clock that starts at a time."""


@contextmanager
def call_in_threads(limiter: Limiter, clock: ManualClock, tick: int = 1) -> Iterator[Subject]:
    """Yield the subject for a limiter that blocks."""

    def hit_concurrently(key: str, count: int) -> list[Decision]:
        with ThreadPoolExecutor(CALLERS) as pool:
            return list(pool.map(lambda _: limiter.hit(key), range(count)))

    def reset(key: str) -> None:
        with suppress(StoreError):  # a fallback resets the key all the same
            limiter.reset(key)  # type: ignore[attr-defined]

    can_reset = hasattr(limiter, "reset")
    yield Subject(limiter.policy, clock, limiter.hit, hit_concurrently, tick, reset if can_reset else None)


@contextmanager
def call_in_tasks(
    limiter: AsyncLimiter, clock: ManualClock, tick: int = 1, close: Callable[[], object] = lambda: None
) -> Iterator[Subject]:
    """Yield the subject for a limiter that is awaited; `close` it in its event loop."""

    async def hit_all(key: str, count: int) -> list[Decision]:
        return await asyncio.gather(*(limiter.hit(key) for _ in range(count)))

    async def reset(key: str) -> None:
        with suppress(StoreError):  # a fallback resets the key all the same
            await limiter.reset(key)  # type: ignore[attr-defined]

    async def close_in_loop() -> None:
        close()

    with asyncio.Runner() as runner:
        run = runner.get_loop().run_until_complete  # sets no signal handler for each call
        yield Subject(
            limiter.policy,
            clock,
            lambda key, cost: run(limiter.hit(key, cost)),
            lambda key, count: run(hit_all(key, count)),
            tick,
            lambda key: run(reset(key)),
        )
        run(close_in_loop())


class Reference:
    """The decisions of a policy's algorithm for one key, with durations rounded up to a limiter's resolution."""

    def __init__(self, policy: Policy, clock: ManualClock, tick: int) -> None:
        self._policy, self._clock, self._tick = policy, clock, tick
        self._state = policy.start(clock())

    def hit(self, cost: int) -> Decision:
        allowed, remaining, *durations = self._policy.step(self._state, self._clock(), cost)
        retry, reset, delay = map(self._round_up, durations)
        return Decision(allowed, remaining, retry, reset, delay, None if allowed else self._policy.name)

    def _round_up(self, duration: int) -> int:
        return duration if duration == NEVER else -(-duration // self._tick) * self._tick
