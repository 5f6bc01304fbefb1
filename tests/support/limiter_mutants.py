"""Named bugs in the memory limiter, each of which a test must catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from mutate import rewritten

from ratelab import Clock, Decision, MemoryLimiter, Policy, State
from ratelab.limiter import Row
from ratelab.stores import memory


class NullLock:
    """A lock that every thread can acquire at the same time."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class WithoutLock(MemoryLimiter):
    def __init__(self, *options: Any) -> None:
        with patch.object(memory, "RLock", NullLock):
            super().__init__(*options)


class TrustsTheClock(MemoryLimiter):
    """Uses the clock's time even when it steps back."""

    monotonic: Callable[[Clock], Clock] = staticmethod(lambda clock: clock)

    def __init__(self, *options: Any) -> None:
        with patch.object(memory, "monotonic", self.monotonic):
            super().__init__(*options)


class AcceptsSmallSteps(TrustsTheClock):
    """Treats a small lag as a step back, so that time advances whenever the clock jitters."""

    monotonic = staticmethod(rewritten(memory.monotonic, "latest - now > MAX_CLOCK_LAG_NS", "True"))


class IgnoresLargeSteps(TrustsTheClock):
    """Stands still until the clock has caught up, however long that takes."""

    monotonic = staticmethod(rewritten(memory.monotonic, "latest - now > MAX_CLOCK_LAG_NS", "False"))


class EvictsTheOldest(MemoryLimiter):
    """Makes room by evicting the oldest key, even if it is in use."""

    def _evict_idle(self, now: int) -> None:
        if len(self._queue) >= self.max_keys:
            key = self._queue.popleft()
            del self._shards[hash(key) % len(self._shards)][key]


class EvictsTheLeastRecentlyUsed(EvictsTheOldest):
    """Makes room by evicting the least recently used key, even if it is in use."""

    def hit(self, key: str, cost: int = 1) -> Decision:
        if key in self._queue:
            self._queue.remove(key)
            self._queue.append(key)
        return super().hit(key, cost)


class IgnoresMaxKeys(MemoryLimiter):
    def __init__(self, policy: Policy, clock: Clock, max_keys: int = 1) -> None:
        super().__init__(policy, clock, max_keys=10**9)


class NeverEvicts(MemoryLimiter):
    def _evict_idle(self, now: int) -> None:
        pass


class DeniesWhenFull(MemoryLimiter):
    """Denies new keys while the limiter is full."""

    def _hit_new(self, shard: dict[str, State], key: str, now: int, cost: int) -> Row:
        if len(self._queue) >= self.max_keys:
            return False, 0, 1, 1, 0
        return super()._hit_new(shard, key, now, cost)


class ForgetsOverflow(MemoryLimiter):
    """Gives a key that gets a separate state a fresh quota, whatever it used of a shared one."""

    def _hit_new(self, shard: dict[str, State], key: str, now: int, cost: int) -> Row:
        self._evict_idle(now)
        if len(self._queue) < self.max_keys:
            self._overflow.clear()
        return super()._hit_new(shard, key, now, cost)


class KeepsUnusedKeys(MemoryLimiter):
    """Keeps a state even for a key that has used nothing."""

    def hit(self, key: str, cost: int = 1) -> Decision:
        shard = self._shards[hash(key) % len(self._shards)]
        if key not in shard:
            shard[key] = self.policy.start(self._clock())
            self._queue.append(key)
        return super().hit(key, cost)
