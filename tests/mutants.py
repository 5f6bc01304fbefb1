"""Named mistakes, one each, that the promises must catch: one line of a kernel, or one method of the limiter."""

from __future__ import annotations

import sys
from collections.abc import Callable
from inspect import getsource
from math import ceil
from textwrap import dedent
from typing import Any, NamedTuple, cast
from unittest.mock import patch

from contracts import (
    a_denied_hit_changes_nothing,
    a_look_changes_nothing_and_is_allowed,
    a_time_that_falls_mints_nothing,
    a_wait_is_enough_and_no_shorter_one_is,
    decides_as_its_model,
    is_as_good_as_new_after_reset,
    lets_out_no_more_than_its_bound,
    no_wait_helps_exactly_when_cost_exceeds_burst,
    remaining_is_what_is_still_admitted,
    says_it_in_whole_numbers,
)

from ratelab import NEVER, Algorithm, Clock, Decision, MemoryLimiter, State, clock
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.stores import memory

Promise = Callable[[Algorithm, Any], None]


def rewritten(function: Callable[..., Any], right: str, wrong: str) -> Any:
    """Make `function` again with `wrong` written where it says `right`."""
    source = dedent(getsource(function))
    assert right in source, f"{function.__qualname__} no longer says {right!r}: bring this mutant up to date"
    names = dict(vars(sys.modules[function.__module__]))
    exec(source.replace(right, wrong), names)  # noqa: S102  (our own source, one thing changed)
    return names[function.__name__]


class FloatSeconds(TokenBucket):
    """Counts time in seconds and tokens in fractions, as floats."""

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        burst, per_second = self.capacity / self.period, 1e9 * self.limit / self.period
        tokens = min(burst, state[0] / self.period + (now - state[1]) / 1e9 * per_second)
        allowed = cost <= tokens
        wait = 0 if allowed else ceil((cost - tokens) / per_second * 1e9) if cost <= burst else NEVER
        tokens -= cost if allowed else 0
        state[:] = [cast("int", tokens * self.period), now]
        return allowed, int(tokens), wait, ceil((burst - tokens) / per_second * 1e9), 0


class Mutant(NamedTuple):
    """A mistake in a kernel, and the promise it breaks."""

    breaks: Promise
    original: type[Algorithm]
    made: type[Algorithm]


def _mutant(breaks: Promise, kind: type[Algorithm], right: str, wrong: str) -> Mutant:
    step = rewritten(kind.step, right, wrong)
    return Mutant(breaks, kind, cast("type[Algorithm]", type(kind.__name__, (kind,), {"step": step})))


KERNELS = {
    "token bucket: < for <=": _mutant(
        remaining_is_what_is_still_admitted, TokenBucket, "price <= tokens", "price < tokens"
    ),
    "token bucket: refilled without cap": _mutant(
        lets_out_no_more_than_its_bound, TokenBucket, "refilled if refilled < capacity else capacity", "refilled"
    ),
    "token bucket: a wait rounded down": _mutant(
        a_wait_is_enough_and_no_shorter_one_is, TokenBucket, "-((tokens - price) // limit)", "(price - tokens) // limit"
    ),
    "token bucket: float seconds": Mutant(a_wait_is_enough_and_no_shorter_one_is, TokenBucket, FloatSeconds),
    "token bucket: a refill in whole tokens loses the rest": _mutant(
        decides_as_its_model, TokenBucket, "(now - last) * limit", "(now - last) * limit // period * period"
    ),
    "token bucket: a denied hit charges": _mutant(
        a_denied_hit_changes_nothing, TokenBucket, "tokens - price if allowed else tokens", "max(0, tokens - price)"
    ),
    "token bucket: a look charges": _mutant(
        a_look_changes_nothing_and_is_allowed, TokenBucket, "price = cost *", "price = max(1, cost) *"
    ),
    "token bucket: a finite wait for more than burst": _mutant(
        no_wait_helps_exactly_when_cost_exceeds_burst, TokenBucket, "if price <= capacity else NEVER", ""
    ),
    "token bucket: remaining rounded up": _mutant(
        remaining_is_what_is_still_admitted, TokenBucket, "tokens // period", "-(-tokens // period)"
    ),
    "token bucket: reset rounded down": _mutant(
        is_as_good_as_new_after_reset, TokenBucket, "-((tokens - capacity) // limit)", "(capacity - tokens) // limit"
    ),
    "token bucket: the time falls with the clock": _mutant(
        a_time_that_falls_mints_nothing, TokenBucket, "now if now > last else last", "now; last = min(last, now)"
    ),
    "token bucket: true division": _mutant(
        says_it_in_whole_numbers, TokenBucket, "tokens // period", "tokens / period"
    ),
    "leaky bucket: a queue that serves at once": _mutant(
        decides_as_its_model, LeakyBucket, "delay = -(-level // limit) if allowed else 0", "delay = 0"
    ),
    "leaky bucket: waits for its own work too": _mutant(
        decides_as_its_model, LeakyBucket, "delay = -(-level //", "delay = -(-(level + work) //"
    ),
    "leaky bucket: drains below empty": _mutant(
        is_as_good_as_new_after_reset, LeakyBucket, "drained if drained > 0 else 0", "drained"
    ),
    "fixed window: > for >= at the boundary": _mutant(
        a_wait_is_enough_and_no_shorter_one_is, FixedWindow, "now // window", "(now - 1) // window"
    ),
    "fixed window: one too many": _mutant(
        lets_out_no_more_than_its_bound, FixedWindow, "used + cost <= burst", "used + cost <= burst + 1"
    ),
    "fixed window: reopens when the clock steps back": _mutant(
        a_time_that_falls_mints_nothing, FixedWindow, "latest > index", "latest != index"
    ),
    "fixed window: a denied hit counts": _mutant(
        a_denied_hit_changes_nothing, FixedWindow, "used + cost if allowed else used", "min(burst, used + cost)"
    ),
    "sliding log: < for <= when an admission expires": _mutant(
        a_wait_is_enough_and_no_shorter_one_is, SlidingLog, "+ window <= now", "+ window < now"
    ),
    "sliding log: forgets a nanosecond early": _mutant(
        lets_out_no_more_than_its_bound, SlidingLog, "+ window <= now", "+ window <= now + 1"
    ),
    "sliding log: waits for the oldest only": _mutant(
        a_wait_is_enough_and_no_shorter_one_is, SlidingLog, "head + count + cost - burst - 1", "head"
    ),
    "sliding log: new again when the oldest has gone": _mutant(
        is_as_good_as_new_after_reset, SlidingLog, "head + count - 1", "head"
    ),
    "sliding counter: forgets the previous window": _mutant(
        lets_out_no_more_than_its_bound, SlidingCounter, " - previous * (window - elapsed)", ""
    ),
    "sliding counter: a wait rounded down": _mutant(
        a_wait_is_enough_and_no_shorter_one_is,
        SlidingCounter,
        "-((free - cost * window) // previous)",
        "(cost * window - free) // previous",
    ),
    "sliding counter: a count outlives two windows": _mutant(
        is_as_good_as_new_after_reset, SlidingCounter, "current if latest == index + 1 else 0", "current"
    ),
    "sliding counter: reopens when the clock steps back": _mutant(
        a_time_that_falls_mints_nothing, SlidingCounter, "latest > index", "latest != index"
    ),
    "gcra: < for <=": _mutant(remaining_is_what_is_still_admitted, Gcra, "early <= 0", "early < 0"),
    "gcra: saves up without end": _mutant(
        lets_out_no_more_than_its_bound, Gcra, "state[0] if state[0] > clock else clock", "state[0]"
    ),
    "gcra: a wait rounded down": _mutant(
        a_wait_is_enough_and_no_shorter_one_is, Gcra, "-(-early // limit)", "early // limit"
    ),
    "gcra: a denied hit moves the time on": _mutant(
        a_denied_hit_changes_nothing, Gcra, "moved if allowed else due", "moved"
    ),
}
"""The kernels' mutants by name."""


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
        with patch.object(memory, "Lock", OpenDoor):
            super().__init__(*options)


class RawClock(MemoryLimiter):
    """Believes the clock, even when it steps back."""

    steady: Callable[[Clock], Clock] = staticmethod(lambda clock: clock)

    def __init__(self, *options: Any) -> None:
        with patch.object(memory, "steady", self.steady):
            super().__init__(*options)


class EveryStepForGood(RawClock):
    """Takes a small step back for good, too, so that time goes on each time the clock swings."""

    steady = staticmethod(rewritten(clock.steady, "latest - now > PATIENCE", "True"))


class NoStepForGood(RawClock):
    """Stands still until the clock has caught up, however long that takes."""

    steady = staticmethod(rewritten(clock.steady, "latest - now > PATIENCE", "False"))


class DropsTheOldest(MemoryLimiter):
    """Makes room by dropping the oldest key, whatever it has used."""

    def _drop_idle(self, now: int) -> None:
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

    def __init__(self, algorithm: Algorithm, clock: Clock, max_keys: int = 1) -> None:
        super().__init__(algorithm, clock, max_keys=10**9)


class NeverDropsIdleKeys(MemoryLimiter):
    """Keeps whom it met first."""

    def _drop_idle(self, now: int) -> None:
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
        self._drop_idle(now)
        if len(self._queue) < self.max_keys:
            self._overflow.clear()
        return super()._hit_new(shard, key, now, cost)


class LookingMakesKeys(MemoryLimiter):
    """Keeps a state even for a key that has used nothing."""

    def hit(self, key: str, cost: int = 1) -> Decision:
        shard = self._shards[hash(key) % len(self._shards)]
        if key not in shard:
            shard[key] = self.algorithm.start(self._clock())
            self._queue.append(key)
        return super().hit(key, cost)
