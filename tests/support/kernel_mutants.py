"""Kernel mutants by name: each has one mistake and the promise that must catch it."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple, cast

from contracts import decides_as_its_model
from mutate import rewritten

from ratelab import NEVER, Algorithm, State, traits_of
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.conformance import (
    a_denied_hit_changes_nothing,
    a_look_changes_nothing_and_is_allowed,
    a_time_that_falls_mints_nothing,
    a_wait_is_enough_and_no_shorter_one_is,
    is_as_good_as_new_after_reset,
    lets_out_no_more_than_its_bound,
    no_wait_helps_exactly_when_cost_exceeds_burst,
    remaining_is_what_is_still_admitted,
    says_it_in_whole_numbers,
)

Promise = Callable[[Algorithm, Any], None]


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


class UndeclaredQueue(LeakyBucket):
    """Returns delays although its traits deny them."""

    traits = LeakyBucket.traits._replace(queues=False)


class Mutant(NamedTuple):
    """A kernel with a mistake, and the promise that it breaks."""

    breaks: Promise
    original: type[Algorithm]
    made: type[Algorithm]


def _mutant(breaks: Promise, kind: type[Algorithm], right: str, wrong: str) -> Mutant:
    methods = {"step": rewritten(kind.step, right, wrong), "traits": traits_of(kind)}
    return Mutant(breaks, kind, cast("type[Algorithm]", type(kind.__name__, (kind,), methods)))


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
        decides_as_its_model, LeakyBucket, "wait if allowed else 0", "0"
    ),
    "leaky bucket: a queue that is not declared": Mutant(says_it_in_whole_numbers, LeakyBucket, UndeclaredQueue),
    "leaky bucket: waits for its own work too": _mutant(
        decides_as_its_model, LeakyBucket, "wait = -(-level //", "wait = -(-(level + work) //"
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
        a_wait_is_enough_and_no_shorter_one_is, SlidingLog, "free <= now", "free < now"
    ),
    "sliding log: forgets a nanosecond early": _mutant(
        lets_out_no_more_than_its_bound, SlidingLog, "free <= now", "free <= now + 1"
    ),
    "sliding log: waits for the oldest only": _mutant(
        lets_out_no_more_than_its_bound, SlidingLog, "head + cost if fits", "head + min(cost, 1) if fits"
    ),
    "sliding log: a denied hit is logged": _mutant(
        a_denied_hit_changes_nothing, SlidingLog, "last if allowed else head", "last"
    ),
    "sliding log: a look needs room": _mutant(
        a_look_changes_nothing_and_is_allowed, SlidingLog, "cost == 0 or free", "free"
    ),
    "sliding log: logs one for each request": _mutant(
        lets_out_no_more_than_its_bound, SlidingLog, "range(1, cost if allowed else 0)", "range(0)"
    ),
    "sliding log: does not count an entry that expires now": _mutant(
        remaining_is_what_is_still_admitted, SlidingLog, "+ window > now:", "+ window >= now:"
    ),
    "sliding log: new again when the oldest has gone": _mutant(
        is_as_good_as_new_after_reset, SlidingLog, "(head - 1) % size", "(head + 1) % size"
    ),
    "sliding log: reopens when the clock steps back": _mutant(
        a_time_that_falls_mints_nothing, SlidingLog, "now if now > state[1] else state[1]", "now"
    ),
    "sliding counter: forgets the previous window": _mutant(
        lets_out_no_more_than_its_bound, SlidingCounter, " - previous * (window - elapsed)", ""
    ),
    "sliding counter: a wait rounded down": _mutant(
        a_wait_is_enough_and_no_shorter_one_is,
        SlidingCounter,
        "-((free - charge) // previous)",
        "(charge - free) // previous",
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
