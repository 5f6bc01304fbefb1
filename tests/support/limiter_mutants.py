"""Named bugs in the memory limiter, each of which a test must catch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar
from unittest.mock import patch

from mutate import rewritten

from ratelab import Clock, Decision, MemoryLimiter, Policy
from ratelab.clock import monotonic
from ratelab.limiter import Costs, Keys
from ratelab.stores import memory
from ratelab.stores.key_table import KeyTable, ReentrantLock


class CommitsBlindly(MemoryLimiter):
    """Overwrites the state that another hit has committed meanwhile."""

    hit = rewritten(MemoryLimiter.hit, "if state[size] is new", "if True")


class ChangesStatesInPlace(MemoryLimiter):
    """Decides on the state itself, so that an interrupt may leave half of a change."""

    hit = rewritten(
        MemoryLimiter.hit, "decide(new, clock(), cost)", "decide(state, clock(), cost); new[:] = state[:size]"
    )


class MutatedTable(MemoryLimiter):
    """A limiter whose table of keys has some methods replaced."""

    methods: ClassVar[dict[str, Callable[..., Any]]]

    def __init__(self, *options: Any) -> None:
        with patch.object(memory, "KeyTable", type("Mutant", (KeyTable,), self.methods)):
            super().__init__(*options)


class OverwritesNewKeys(MutatedTable):
    """Replaces the state that a nested hit has kept for a new key."""

    methods: ClassVar = {
        "_insert": rewritten(KeyTable._insert, "setdefault(key, entry) is entry", "update({key: entry}) is None")
    }


class QueuesLate(MutatedTable):
    """Keeps a key before it is in the queue, so that an interrupt leaks it."""

    methods: ClassVar = {
        "_insert": rewritten(
            KeyTable._insert, "self.queue.append(entry)", "self._shard(key)[key] = entry; self.queue.append(entry)"
        )
    }


class ChargesTwoStates(MutatedTable):
    """Decides a nested hit by the overflow bucket although the key is about to be kept."""

    methods: ClassVar = {"_complete_insertion": lambda *_: False}


class ReservesNoRoom(MutatedTable):
    """Checks for room once, although a nested hit may take it."""

    methods: ClassVar = {"_insert": rewritten(KeyTable._insert, "> self.max_keys", "> 10**9")}


class ReleasesOnSuccess(MemoryLimiter):
    """Leaves its lock held after an exception."""

    def __init__(self, *options: Any) -> None:
        call = rewritten(ReentrantLock.call, "finally:", "except ZeroDivisionError:")
        super().__init__(*options)
        self._table.lock = type("Mutant", (ReentrantLock,), {"call": call})()


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


def evict_the_oldest(table: KeyTable, _: bool) -> None:
    if len(table.queue) >= table.max_keys:
        key = table.queue.popleft().key
        del table.shards[hash(key) % len(table.shards)][key]


class EvictsTheOldest(MutatedTable):
    """Makes room by evicting the oldest key, even if it is in use."""

    methods: ClassVar = {"_evict_idle": evict_the_oldest}


class EvictsTheLeastRecentlyUsed(EvictsTheOldest):
    """Makes room by evicting the least recently used key, even if it is in use."""

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        assert isinstance(key, str)
        entry = self._table.get(key)
        if entry is not None:
            self._table.queue.remove(entry)
            self._table.queue.append(entry)
        return super().hit(key, cost, plan)


class IgnoresMaxKeys(MemoryLimiter):
    def __init__(self, policy: Policy, clock: Clock, max_keys: int = 1) -> None:
        super().__init__(policy, clock, max_keys=10**9)


class NeverEvicts(MutatedTable):
    methods: ClassVar = {"_evict_idle": lambda *_: None}


class DeniesWhenFull(MutatedTable):
    """Denies new keys while the limiter is full."""

    methods: ClassVar = {"_share": rewritten(KeyTable._share, "self.kernel.start(self._clock())", "[0, self._clock()]")}


class ForgetsOverflow(MutatedTable):
    """Gives a key that gets a separate state a fresh quota, whatever it used of a shared one."""

    methods: ClassVar = {"_start_new": rewritten(KeyTable._start_new, "if state is None", "if True")}


class KeepsUnusedKeys(MemoryLimiter):
    """Keeps a state even for a key that has used nothing."""

    _hit_table = rewritten(MemoryLimiter._hit_table, "if kernel.is_new(state, now):", "if False:")
