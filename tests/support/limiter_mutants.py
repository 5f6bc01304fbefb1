"""Named mistakes in the limiter, one each, that its promises must catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from mutate import rewritten

from ratelab import Clock, Decision, MemoryLimiter, State
from ratelab.limiter import Policy
from ratelab.stores import memory


class OpenDoor:
    """A lock that is always free."""

    def acquire(self) -> bool:
        return True

    def release(self) -> None: ...

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


class NoLock(MemoryLimiter):
    """Lets every thread in."""

    def __init__(self, *options: Any) -> None:
        with patch.object(memory, "RLock", OpenDoor):
            super().__init__(*options)


class RawClock(MemoryLimiter):
    """Believes the clock, even when it steps back."""

    monotonic: Callable[[Clock], Clock] = staticmethod(lambda clock: clock)

    def __init__(self, *options: Any) -> None:
        with patch.object(memory, "monotonic", self.monotonic):
            super().__init__(*options)


class EveryStepForGood(RawClock):
    """Takes a small step back for good, too, so that time goes on each time the clock swings."""

    monotonic = staticmethod(rewritten(memory.monotonic, "latest - now > MAX_CLOCK_LAG_NS", "True"))


class NoStepForGood(RawClock):
    """Stands still until the clock has caught up, however long that takes."""

    monotonic = staticmethod(rewritten(memory.monotonic, "latest - now > MAX_CLOCK_LAG_NS", "False"))


class DropsTheOldest(MemoryLimiter):
    """Makes room by dropping the oldest key, whatever it has used."""

    def _evict_idle(self, now: int) -> None:
        if len(self._queue) >= self.max_keys:
            key = self._queue.popleft()
            del self._shards[hash(key) % len(self._shards)][key]


class DropsTheLeastRecentlyUsed(DropsTheOldest):
    """Makes room by dropping the key not asked for the longest."""

    def hit(self, key: str, cost: int = 1) -> Decision:
        if key in self._queue:
            self._queue.remove(key)
            self._queue.append(key)
        return super().hit(key, cost)


class KeepsAllKeys(MemoryLimiter):
    """Never runs out of room until the machine does."""

    def __init__(self, policy: Policy, clock: Clock, max_keys: int = 1) -> None:
        super().__init__(policy, clock, max_keys=10**9)


class NeverDropsIdleKeys(MemoryLimiter):
    """Keeps whom it met first."""

    def _evict_idle(self, now: int) -> None:
        pass


class DeniesWhenFull(MemoryLimiter):
    """Locks newcomers out of a full house."""

    def _hit_new(self, shard: dict[str, State], key: str, now: int, cost: int) -> Decision:
        if len(self._queue) >= self.max_keys:
            return Decision(False, 0, 1, 1, 0)
        return super()._hit_new(shard, key, now, cost)


class FreshAfterSharing(MemoryLimiter):
    """Gives a key that gets room a fresh quota, whatever it used of a shared bucket."""

    def _hit_new(self, shard: dict[str, State], key: str, now: int, cost: int) -> Decision:
        self._evict_idle(now)
        if len(self._queue) < self.max_keys:
            self._overflow.clear()
        return super()._hit_new(shard, key, now, cost)


class LookingMakesKeys(MemoryLimiter):
    """Keeps a state even for a key that has used nothing."""

    def hit(self, key: str, cost: int = 1) -> Decision:
        shard = self._shards[hash(key) % len(self._shards)]
        if key not in shard:
            shard[key] = self.policy.start(self._clock())
            self._queue.append(key)
        return super().hit(key, cost)
