"""Named bugs in the memory limiter, each of which a test must catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from mutate import rewritten

from ratelab import Clock, Decision, MemoryLimiter, Policy
from ratelab.clock import monotonic
from ratelab.limiter import Costs, Keys
from ratelab.stores import memory


class CommitsBlindly(MemoryLimiter):
    """Overwrites the state that another hit has committed meanwhile."""

    hit = rewritten(MemoryLimiter.hit, "if state[size] is new", "if True")


class ChangesStatesInPlace(MemoryLimiter):
    """Decides on the state itself, so that an interrupt may leave half of a change."""

    hit = rewritten(MemoryLimiter.hit, "step(new, clock(), cost)", "step(state, clock(), cost); new[:] = state[:size]")


class OverwritesNewKeys(MemoryLimiter):
    """Replaces the state that a nested hit has kept for a new key."""

    _insert = rewritten(MemoryLimiter._insert, "setdefault(key, entry) is entry", "update({key: entry}) is None")


class QueuesLate(MemoryLimiter):
    """Keeps a key before it is in the queue, so that an interrupt leaks it."""

    _insert = rewritten(
        MemoryLimiter._insert, "self._queue.append(entry)", "self._shard(key)[key] = entry; self._queue.append(entry)"
    )


class ChargesTwoStates(MemoryLimiter):
    """Decides a nested hit by the overflow bucket although the key is about to be kept."""

    def _complete_insertion(self, key: str) -> bool:
        return False


class ReservesNoRoom(MemoryLimiter):
    """Checks for room once, although a nested hit may take it."""

    _insert = rewritten(MemoryLimiter._insert, "> self.max_keys", "> 10**9")


class ReleasesOnSuccess(MemoryLimiter):
    """Leaves its lock held after an exception."""

    _exclusively = rewritten(MemoryLimiter._exclusively, "finally:", "except ZeroDivisionError:")


class TrustsTheClock(MemoryLimiter):
    """Uses the clock's time even when it steps back."""

    monotonic: Callable[[Clock], Clock] = staticmethod(lambda clock: clock)

    def __init__(self, *options: Any) -> None:
        with patch.object(memory, "monotonic", self.monotonic):
            super().__init__(*options)


class AcceptsSmallSteps(TrustsTheClock):
    """Treats a small lag as a step back, so that time advances whenever the clock jitters."""

    monotonic = staticmethod(rewritten(monotonic, "latest - now > MAX_CLOCK_LAG_NS", "True"))


class IgnoresLargeSteps(TrustsTheClock):
    """Stands still until the clock has caught up, however long that takes."""

    monotonic = staticmethod(rewritten(monotonic, "latest - now > MAX_CLOCK_LAG_NS", "False"))


class EvictsTheOldest(MemoryLimiter):
    """Makes room by evicting the oldest key, even if it is in use."""

    def _evict_idle(self) -> None:
        if len(self._queue) >= self.max_keys:
            key = self._queue.popleft().key
            del self._shards[hash(key) % len(self._shards)][key]


class EvictsTheLeastRecentlyUsed(EvictsTheOldest):
    """Makes room by evicting the least recently used key, even if it is in use."""

    def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        assert isinstance(key, str)
        entry = self._shard(key).get(key)
        if entry is not None:
            self._queue.remove(entry)
            self._queue.append(entry)
        return super().hit(key, cost)


class IgnoresMaxKeys(MemoryLimiter):
    def __init__(self, policy: Policy, clock: Clock, max_keys: int = 1) -> None:
        super().__init__(policy, clock, max_keys=10**9)


class NeverEvicts(MemoryLimiter):
    def _evict_idle(self) -> None:
        pass


class DeniesWhenFull(MemoryLimiter):
    """Denies new keys while the limiter is full."""

    def hit_shared(self, *_: Any) -> Any:
        return False, 0, 1, 1, 0


class ForgetsOverflow(MemoryLimiter):
    """Gives a key that gets a separate state a fresh quota, whatever it used of a shared one."""

    _start_new = rewritten(MemoryLimiter._start_new, "if state is None", "if True")


class KeepsUnusedKeys(MemoryLimiter):
    """Keeps a state even for a key that has used nothing."""

    _hit_new = rewritten(MemoryLimiter._hit_new, "self._kernel.is_new(state, now) or ", "")
