"""Mutants of the kernels by name: each has one mistake and the contract that must catch it."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Any, NamedTuple, cast

from contracts import decides_as_its_model, refunds_a_charge
from mutate import rewritten

from ratelab import NEVER, Algorithm, State, traits_of
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.gcra import Gcra
from ratelab.algorithms.leaky_bucket import LeakyBucket
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.conformance import (
    backward_steps_grant_nothing,
    denied_hits_change_nothing,
    looks_change_nothing,
    never_means_a_cost_above_burst,
    remaining_is_exact,
    reset_after_is_exact,
    retry_after_is_exact,
    returns_valid_fields,
    stays_within_its_bound,
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


class MissingRefund(TokenBucket):
    """Refunds nothing although its traits declare it."""

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        super().charge(state, now, max(0, cost), at)


class Mutant(NamedTuple):
    """A kernel with a mistake, and the contract that it breaks."""

    breaks: Promise
    original: type[Algorithm]
    made: type[Algorithm]


def _mutant(breaks: Promise, kind: type[Algorithm], right: str, wrong: str) -> Mutant:
    methods = {"step": rewritten(kind.step, right, wrong), "traits": traits_of(kind)}
    return Mutant(breaks, kind, cast("type[Algorithm]", type(kind.__name__, (kind,), methods)))


KERNELS = {
    "token bucket: < for <=": _mutant(remaining_is_exact, TokenBucket, "price <= tokens", "price < tokens"),
    "token bucket: refilled without cap": _mutant(
        stays_within_its_bound, TokenBucket, "refilled if refilled < capacity else capacity", "refilled"
    ),
    "token bucket: a wait rounded down": _mutant(
        retry_after_is_exact, TokenBucket, "-((tokens - price) // limit)", "(price - tokens) // limit"
    ),
    "token bucket: float seconds": Mutant(retry_after_is_exact, TokenBucket, FloatSeconds),
    "token bucket: a refill in whole tokens loses the rest": _mutant(
        decides_as_its_model, TokenBucket, "(now - last) * limit", "(now - last) * limit // period * period"
    ),
    "token bucket: a denied hit charges": _mutant(
        denied_hits_change_nothing, TokenBucket, "tokens - price if allowed else tokens", "max(0, tokens - price)"
    ),
    "token bucket: a look charges": _mutant(
        looks_change_nothing, TokenBucket, "price = cost *", "price = max(1, cost) *"
    ),
    "token bucket: a finite wait for more than burst": _mutant(
        never_means_a_cost_above_burst, TokenBucket, "if price <= capacity else NEVER", ""
    ),
    "token bucket: remaining rounded up": _mutant(
        remaining_is_exact, TokenBucket, "tokens // period", "-(-tokens // period)"
    ),
    "token bucket: reset rounded down": _mutant(
        reset_after_is_exact, TokenBucket, "-((tokens - capacity) // limit)", "(capacity - tokens) // limit"
    ),
    "token bucket: the time falls with the clock": _mutant(
        backward_steps_grant_nothing, TokenBucket, "now if now > last else last", "now; last = min(last, now)"
    ),
    "token bucket: true division": _mutant(returns_valid_fields, TokenBucket, "tokens // period", "tokens / period"),
    "token bucket: no refund": Mutant(refunds_a_charge, TokenBucket, MissingRefund),
    "leaky bucket: a queue that serves at once": _mutant(
        decides_as_its_model, LeakyBucket, "wait if allowed else 0", "0"
    ),
    "leaky bucket: a queue that is not declared": Mutant(returns_valid_fields, LeakyBucket, UndeclaredQueue),
    "leaky bucket: waits for its own work too": _mutant(
        decides_as_its_model, LeakyBucket, "wait = -(-level //", "wait = -(-(level + work) //"
    ),
    "leaky bucket: drains below empty": _mutant(
        reset_after_is_exact, LeakyBucket, "drained if drained > 0 else 0", "drained"
    ),
    "fixed window: > for >= at the boundary": _mutant(
        retry_after_is_exact, FixedWindow, "now // window", "(now - 1) // window"
    ),
    "fixed window: one too many": _mutant(
        stays_within_its_bound, FixedWindow, "used + cost <= burst", "used + cost <= burst + 1"
    ),
    "fixed window: reopens when the clock steps back": _mutant(
        backward_steps_grant_nothing, FixedWindow, "latest > index", "latest != index"
    ),
    "fixed window: a denied hit counts": _mutant(
        denied_hits_change_nothing, FixedWindow, "used + cost if allowed else used", "min(burst, used + cost)"
    ),
    "sliding log: < for <= when an admission expires": _mutant(
        retry_after_is_exact, SlidingLog, "free <= now", "free < now"
    ),
    "sliding log: forgets a nanosecond early": _mutant(
        stays_within_its_bound, SlidingLog, "free <= now", "free <= now + 1"
    ),
    "sliding log: waits for the oldest only": _mutant(
        stays_within_its_bound, SlidingLog, "head + cost if fits", "head + min(cost, 1) if fits"
    ),
    "sliding log: a denied hit is logged": _mutant(
        denied_hits_change_nothing, SlidingLog, "last if allowed else head", "last"
    ),
    "sliding log: a look needs room": _mutant(looks_change_nothing, SlidingLog, "cost == 0 or free", "free"),
    "sliding log: logs one for each request": _mutant(
        stays_within_its_bound, SlidingLog, "range(1, cost if allowed else 0)", "range(0)"
    ),
    "sliding log: does not count an entry that expires now": _mutant(
        remaining_is_exact, SlidingLog, "+ window > now:", "+ window >= now:"
    ),
    "sliding log: new again when the oldest has gone": _mutant(
        reset_after_is_exact, SlidingLog, "(head - 1) % size", "(head + 1) % size"
    ),
    "sliding log: reopens when the clock steps back": _mutant(
        backward_steps_grant_nothing, SlidingLog, "now if now > state[1] else state[1]", "now"
    ),
    "sliding counter: forgets the previous window": _mutant(
        stays_within_its_bound, SlidingCounter, " - previous * (window - elapsed)", ""
    ),
    "sliding counter: a wait rounded down": _mutant(
        retry_after_is_exact,
        SlidingCounter,
        "-((free - charge) // previous)",
        "(charge - free) // previous",
    ),
    "sliding counter: a count outlives two windows": _mutant(
        reset_after_is_exact, SlidingCounter, "current if latest == index + 1 else 0", "current"
    ),
    "sliding counter: reopens when the clock steps back": _mutant(
        backward_steps_grant_nothing, SlidingCounter, "latest > index", "latest != index"
    ),
    "gcra: < for <=": _mutant(remaining_is_exact, Gcra, "early <= 0", "early < 0"),
    "gcra: saves up without end": _mutant(
        stays_within_its_bound, Gcra, "state[0] if state[0] > clock else clock", "state[0]"
    ),
    "gcra: a wait rounded down": _mutant(retry_after_is_exact, Gcra, "-(-early // limit)", "early // limit"),
    "gcra: a denied hit moves the time on": _mutant(
        denied_hits_change_nothing, Gcra, "moved if allowed else due", "moved"
    ),
}
"""The mutants by name."""
