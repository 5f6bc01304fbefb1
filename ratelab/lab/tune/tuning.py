"""Tuning: quotas that some traffic supports, each counted by replay, and one of them recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from math import isqrt

import numpy as np

from ratelab.algorithms import build_policy, traits_of
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.errors import InputError
from ratelab.lab.decisions import ADMISSION_FIELDS, Progress
from ratelab.lab.replay import replay
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.lab.tune.population import Gap, Population
from ratelab.limiter import Algorithm, Policy
from ratelab.quota import LARGEST, UNITS, Quota

DEFAULT_TOLERANCE = Fraction(1, 1000)
DEFAULT_HOLDOUT = Fraction(1, 3)

PERCENTILES = {"p50": Fraction(1, 2), "p90": Fraction(9, 10), "p99": Fraction(99, 100), "p999": Fraction(999, 1000)}

MIN_CLEAR_GAP = 2
"""A gap of at least this ratio separates outliers from ordinary clients."""

HEADROOM = Fraction(3, 2)
"""What a burst in a gap has over the largest need below it, if the gap is wide enough."""

MAX_REFILL_NS = UNITS["h"]
"""Rates by default refill the burst that they need within this time, if any rate does."""

MAX_DEFAULT_RATES = 7

_STEPS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000)
_SERIES = tuple(
    f"{step}/{unit}"
    for unit, first, last in (("day", 1, 20), ("h", 1, 20), ("min", 1, 500), ("s", 10, 10_000))
    for step in _STEPS
    if first <= step <= last
)
"""Rates to choose among by default, slowest first."""


@dataclass(frozen=True)
class RateNeeds:
    """The needs of all clients at one rate."""

    rate: Quota
    """The rate; its burst has no meaning here."""
    needs: dict[str, int]
    """Needs by percentile: `p50`, `p90`, `p99`, `p999` and `max`."""
    gap: Gap | None
    burst: int
    """The burst that this rate would have: in the gap, if it is clear, otherwise the one within the tolerance."""
    ordinary: int
    """The largest need that the burst is meant to cover."""


@dataclass(frozen=True)
class Candidate:
    """A quota, and whom it denies."""

    policy: Policy
    clients_denied: int
    clients_denied_ratio: float
    requests_denied: int
    requests_denied_ratio: float
    margin_below: float | None
    """The burst divided by the largest need that it covers; None if it covers none."""
    margin_above: float | None
    """The smallest need that it does not cover, divided by the burst; None if it covers all."""


@dataclass(frozen=True)
class Holdout:
    """A check of the recommendation on requests that were not used for it."""

    policy: Policy
    """The quota that the first part of the traffic recommends at the same rate."""
    clients: int
    """Clients that sent requests in the last part."""
    clients_denied: int
    """Those that this quota denies there."""
    clients_denied_ratio: float


@dataclass(frozen=True, eq=False)
class Tuning:
    """What some traffic says about its limits."""

    traffic: Traffic
    frontier: Frontier
    offered: int
    clients: int
    tolerate: Fraction
    """The share of clients that may be denied: the one asked for, or the smallest that so few clients support."""
    is_supported: bool
    """Whether there are enough clients for the tolerance that was asked for."""
    rates: tuple[RateNeeds, ...]
    recommended: Candidate
    tightest: tuple[Candidate, ...]
    """For each rate and algorithm, the smallest burst within the tolerance."""
    holdout: Holdout | None


def tune(
    traffic: Traffic,
    rates: Sequence[Quota] = (),
    tolerate: Fraction = DEFAULT_TOLERANCE,
    kinds: Sequence[type[Algorithm]] = (TokenBucket,),
    holdout: Fraction = DEFAULT_HOLDOUT,
    progress: Progress = lambda _: None,
) -> Tuning:
    """Find the quotas with which at most the share `tolerate` of the clients of `traffic` is ever denied.

    Without `rates`, they are chosen so that a burst refills within an hour. The first of the algorithms `kinds` is
    recommended. With `holdout`, the burst that the earlier part of the time recommends is checked on that last share
    of it. `progress` is called with the number of further requests handled.

    Raises `InputError` without requests, for a tolerance that is not between 0 and 1, and for a holdout that is not at
    least 0 and below 1.
    """
    if not len(traffic):
        raise InputError("there are no requests to choose a limit from: name a trace that has some")
    if not 0 < tolerate < 1:
        raise InputError(f"the tolerance must be between 0 and 100 %, got {float(tolerate):.4%}: try 0.1%")
    if not 0 <= holdout < 1:
        raise InputError(f"the holdout must be at least 0 and below 1, got {holdout}: try 1/3, or 0 for none")
    frontier = measure_frontier(traffic, progress)
    requests = np.bincount(traffic.request_keys, minlength=traffic.key_count)
    clients = int(np.count_nonzero(requests))
    supported = max(tolerate, Fraction(1, clients + 1))
    needs = measure_rates(frontier, requests, supported, rates)
    best = min(needs, key=lambda row: (_most_in_a_minute(row), row.rate.limit * UNITS["day"] // row.rate.period))
    recommended = _count(build_policy(kinds[0], Quota.of(best.rate, best.burst)), traffic, frontier, requests)
    tightest = tuple(
        _find_tightest(kind, row.rate, traffic, frontier, requests, supported) for row in needs for kind in kinds
    )
    return Tuning(
        traffic=traffic,
        frontier=frontier,
        offered=len(traffic),
        clients=clients,
        tolerate=supported,
        is_supported=supported == tolerate,
        rates=needs,
        recommended=recommended,
        tightest=tightest,
        holdout=_check_holdout(traffic, best.rate, tolerate, kinds[0], holdout) if holdout else None,
    )


def measure_rates(
    frontier: Frontier, requests: Integers, tolerate: Fraction, rates: Sequence[Quota] = ()
) -> tuple[RateNeeds, ...]:
    """Measure the needs of the clients that sent `requests` at each rate, by default at those worth a choice."""
    if rates:
        return tuple(_measure_rate(frontier, requests, tolerate, rate) for rate in rates)
    rows = [_measure_rate(frontier, requests, tolerate, Quota.parse(rate)) for rate in _SERIES]
    rows = [row for row in rows if _refill_time(row) <= MAX_REFILL_NS] or rows[-1:]
    least = rows[-1].burst
    rows = rows[: 1 + next(place for place, row in enumerate(rows) if row.burst <= least)]  # faster ones need no less
    best = min(range(len(rows)), key=lambda place: _most_in_a_minute(rows[place]))
    first = max(0, min(best - MAX_DEFAULT_RATES // 2, len(rows) - MAX_DEFAULT_RATES))
    return tuple(rows[first : first + MAX_DEFAULT_RATES])


def _measure_rate(frontier: Frontier, requests: Integers, tolerate: Fraction, rate: Quota) -> RateNeeds:
    population = Population.sort(frontier.find_needs(rate), requests)
    needs = {name: population.percentile(share) for name, share in PERCENTILES.items()}
    needs["max"] = int(population.needs[-1])
    gap = population.find_gap()
    ordinary = population.tolerated_burst(tolerate) or needs["max"]
    burst = _round_up(ordinary)
    if gap is not None and gap.ratio >= MIN_CLEAR_GAP:
        ordinary = gap.below
        middle = isqrt(gap.below * gap.above)
        burst = max(ordinary, min(_round_up(-(-ordinary * HEADROOM.numerator // HEADROOM.denominator)), middle))
    return RateNeeds(rate, needs, gap, min(burst, LARGEST), ordinary)


def _round_up(number: int) -> int:
    """Round up to two significant digits."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return -(-number // unit) * unit


def _refill_time(row: RateNeeds) -> int:
    """Return the nanoseconds in which the rate refills its burst."""
    return -(-row.burst * row.rate.period // row.rate.limit)


def _most_in_a_minute(row: RateNeeds) -> Fraction:
    """Return the most that a quota for the ordinary clients would admit in any minute: what it protects against."""
    return row.ordinary + Fraction(row.rate.limit * UNITS["min"], row.rate.period)


def _count(policy: Policy, traffic: Traffic, frontier: Frontier, requests: Integers) -> Candidate:
    """Count whom a policy denies."""
    clients = int(np.count_nonzero(requests))
    burst, admits_need = policy.quota.burst, traits_of(policy.algorithm).admits_need
    needs = frontier.find_needs(policy.quota)
    asked = select_keys(traffic, needs > burst) if admits_need else traffic
    denied_keys, denied = count_denied(policy, asked)
    covered, uncovered = needs[(needs <= burst) & (needs > 0)], needs[needs > burst]
    return Candidate(
        policy=policy,
        clients_denied=denied_keys,
        clients_denied_ratio=round(denied_keys / clients, 6),
        requests_denied=denied,
        requests_denied_ratio=round(denied / len(traffic), 6),
        margin_below=round(burst / int(covered.max()), 4) if admits_need and len(covered) else None,
        margin_above=round(int(uncovered.min()) / burst, 4) if admits_need and len(uncovered) else None,
    )


def count_denied(policy: Policy, traffic: Traffic) -> tuple[int, int]:
    """Replay `traffic`; return how many keys are denied at least once, and how many requests."""
    allowed = replay(policy, traffic, ADMISSION_FIELDS).decisions["allowed"]
    was_denied = np.zeros(traffic.key_count, np.bool_)
    for part, batch in traffic.batches():
        was_denied[batch.request_keys[~allowed[part]]] = True
    return int(np.count_nonzero(was_denied)), len(traffic) - int(np.count_nonzero(allowed))


def select_keys(traffic: Traffic, selected: Booleans) -> Traffic:
    """Return the requests of the selected keys, in memory."""
    is_selected = selected[traffic.keys]
    parts = [(batch, is_selected[batch.clients]) for _, batch in traffic.batches()]
    columns = {
        name: np.concatenate([np.empty(0, dtype), *(getattr(batch, name)[mask] for batch, mask in parts)])
        for name, dtype in (("times", np.int64), ("clients", np.int64), ("costs", np.int64))
    }
    return replace(traffic, **columns, on_disk=False)


def _find_tightest(
    kind: type[Algorithm], rate: Quota, traffic: Traffic, frontier: Frontier, requests: Integers, tolerate: Fraction
) -> Candidate:
    """Return the quota with the smallest burst that denies at most the share `tolerate` of the clients.

    An algorithm that does not admit every need is tried by bisection.
    """
    population = Population.sort(frontier.find_needs(rate), requests)
    burst = population.tolerated_burst(tolerate) or int(population.needs[-1])
    if not traits_of(kind).admits_need:
        low, high = 0, burst
        while not _is_tolerated(kind, Quota.of(rate, high), traffic, tolerate, len(population)):
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            if _is_tolerated(kind, Quota.of(rate, middle), traffic, tolerate, len(population)):
                high = middle
            else:
                low = middle
        burst = high
    return _count(build_policy(kind, Quota.of(rate, burst)), traffic, frontier, requests)


def _is_tolerated(kind: type[Algorithm], quota: Quota, traffic: Traffic, tolerate: Fraction, clients: int) -> bool:
    denied, _ = count_denied(build_policy(kind, quota), traffic)
    return denied <= tolerate * clients


def _check_holdout(
    traffic: Traffic, rate: Quota, tolerate: Fraction, kind: type[Algorithm], holdout: Fraction
) -> Holdout | None:
    """Tune the burst on the first part of the time, and count denials in the last; None if a part has no requests."""
    cut = int(np.searchsorted(traffic.times, traffic.duration - int(traffic.duration * holdout)))
    first, last = traffic[:cut], traffic[cut:]
    if not (len(first) and len(last)):
        return None
    tuning = tune(first, [rate], tolerate, (kind,), Fraction(0))
    policy = tuning.recommended.policy
    denied, _ = count_denied(policy, last)
    clients = int(np.count_nonzero(np.bincount(last.request_keys)))
    return Holdout(policy, clients, denied, round(denied / clients, 6))
