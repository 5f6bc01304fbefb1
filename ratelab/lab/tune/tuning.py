"""Tuning: quotas that some traffic supports, each counted by replay, and one of them recommended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ratelab.algorithms import Policy, build_policy, traits_of
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.errors import InputError
from ratelab.lab.decisions import ADMISSION_FIELDS, Progress
from ratelab.lab.replay import replay, suggest_compiler
from ratelab.lab.spill import Integers
from ratelab.lab.traces.requests import create_matcher
from ratelab.lab.traffic import Booleans, Traffic, select_keys
from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.lab.tune.population import Gap, Population
from ratelab.limiter import Algorithm
from ratelab.quota import LARGEST, UNITS, Quota

DEFAULT_TOLERANCE = Fraction(1, 1000)
DEFAULT_HOLDOUT = Fraction(1, 3)

PERCENTILES = {"p50": Fraction(1, 2), "p90": Fraction(9, 10), "p99": Fraction(99, 100), "p999": Fraction(999, 1000)}

MAX_REFILL_NS = UNITS["h"]
"""Rates by default refill the burst that they need within this time, if any rate does."""

NEARLY_LEAST = Fraction(11, 10)
"""Quotas that admit up to this many times the least in any minute are as good; the fastest has the smallest burst."""

MAX_DEFAULT_RATES = 7

_FACTORS = tuple(digit * 10**power for power in range(13) for digit in (1, 2, 5))
_SERIES = tuple(
    f"{step}/{unit}"
    for unit, first, last in (("day", 1, 20), ("h", 1, 20), ("min", 1, 500), ("s", 10, _FACTORS[-1]))
    for step in _FACTORS
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
    ordinary: int
    """The largest need that the burst is meant to cover."""
    burst: int
    """The burst that this rate would have: in the gap, if it is clear, otherwise the one within the tolerance."""


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
    asked: Fraction
    """The tolerance that was asked for."""
    rates: tuple[RateNeeds, ...]
    recommended: Candidate
    tightest: tuple[Candidate, ...]
    """For each rate and algorithm, the smallest burst within the tolerance."""
    holdout: Holdout | None
    good: Booleans
    """The keys that no quota may deny."""


def tune(
    traffic: Traffic,
    rates: Sequence[Quota] = (),
    tolerate: Fraction = DEFAULT_TOLERANCE,
    kinds: Sequence[type[Algorithm]] = (TokenBucket,),
    holdout: Fraction = DEFAULT_HOLDOUT,
    progress: Progress = lambda _: None,
    good: Booleans | None = None,
) -> Tuning:
    """Find the quotas with which at most the share `tolerate` of the clients of `traffic` is ever denied.

    Without `rates`, they are chosen so that a burst refills within an hour. The first of the algorithms `kinds` is
    recommended. With `holdout`, the burst that the earlier part of the time recommends is checked on that last share
    of it. `progress` is called with the number of further requests handled. No quota denies a key for which `good` is
    true.

    Raises `InputError` without requests, for a tolerance that is not between 0 and 1, and for a holdout that is not at
    least 0 and below 1.
    """
    if not len(traffic):
        raise InputError("there are no requests to choose a limit from: name a trace that has some")
    if not 0 < tolerate < 1:
        raise InputError(f"the tolerance must be between 0 and 100 %, got {float(tolerate):.4%}: try 0.1%")
    if not 0 <= holdout < 1:
        raise InputError(f"the holdout must be at least 0 and below 1, got {holdout}: try 1/3, or 0 for none")
    suggest_compiler(traffic, MAX_DEFAULT_RATES)
    frontier = measure_frontier(traffic, progress)
    requests = traffic.key_requests
    clients = int(np.count_nonzero(requests))
    supported = max(tolerate, Fraction(1, clients + 1))
    good = np.zeros(traffic.key_count, np.bool_) if good is None else good
    needs = measure_rates(frontier, requests, supported, rates, good)
    best = _choose_rate(needs)
    recommended = count_denials(build_policy(kinds[0], Quota.of(best.rate, best.burst)), traffic, frontier, requests)
    tightest = tuple(
        _find_tightest(kind, row.rate, traffic, frontier, requests, supported, good) for row in needs for kind in kinds
    )
    return Tuning(
        traffic=traffic,
        frontier=frontier,
        offered=len(traffic),
        clients=clients,
        tolerate=supported,
        asked=tolerate,
        rates=needs,
        recommended=recommended,
        tightest=tightest,
        holdout=_check_holdout(traffic, best.rate, tolerate, kinds[0], holdout, good) if holdout else None,
        good=good,
    )


def measure_rates(
    frontier: Frontier, requests: Integers, tolerate: Fraction, rates: Sequence[Quota], good: Booleans
) -> tuple[RateNeeds, ...]:
    """Measure the needs of the clients that sent `requests` at each rate, by default at those worth a choice."""
    if rates:
        return tuple(_measure_rate(frontier, requests, tolerate, rate, good) for rate in rates)
    rows, at_once = [], frontier.find_largest_at_once()
    for rate in _SERIES:
        rows.append(_measure_rate(frontier, requests, tolerate, Quota.parse(rate), good))
        if rows[-1].needs["max"] <= at_once:
            break  # faster rates need no less
    rows = [row for row in rows if _refill_time(row) <= MAX_REFILL_NS] or rows[-1:]
    least = rows[-1].burst
    rows = rows[: 1 + next(place for place, row in enumerate(rows) if row.burst <= least)]
    best = min(range(len(rows)), key=lambda place: _most_in_a_minute(rows[place]))
    first = max(0, min(best - MAX_DEFAULT_RATES // 2, len(rows) - MAX_DEFAULT_RATES))
    return tuple(rows[first : first + MAX_DEFAULT_RATES])


def _measure_rate(frontier: Frontier, requests: Integers, tolerate: Fraction, rate: Quota, good: Booleans) -> RateNeeds:
    all_needs = frontier.find_needs(rate)
    population = Population.sort(all_needs, requests)
    needs = {name: population.percentile(share) for name, share in PERCENTILES.items()}
    needs["max"] = int(population.needs[-1])
    required = int(all_needs.max(initial=0, where=good))
    return RateNeeds(rate, needs, population.find_gap(), *population.recommend_burst(tolerate, required))


def find_burst(traffic: Traffic, rate: Quota, tolerate: Fraction, good: Booleans) -> int:
    """Return the burst that `tune` recommends for a rate."""
    requests = traffic.key_requests
    return _measure_rate(measure_frontier(traffic), requests, tolerate, rate, good).burst


def _choose_rate(rows: Sequence[RateNeeds]) -> RateNeeds:
    """Return the fastest of the rates whose quotas admit about as little in any minute as the best of them does."""
    least = min(map(_most_in_a_minute, rows))
    near = [row for row in rows if _most_in_a_minute(row) <= least * NEARLY_LEAST]
    return max(near, key=lambda row: Fraction(row.rate.limit, row.rate.period))


def _refill_time(row: RateNeeds) -> int:
    """Return the nanoseconds in which the rate refills its burst."""
    return -(-row.burst * row.rate.period // row.rate.limit)


def _most_in_a_minute(row: RateNeeds) -> Fraction:
    """Return the most that a quota for the ordinary clients would admit in any minute: its protection."""
    return row.ordinary + Fraction(row.rate.limit * UNITS["min"], row.rate.period)


def count_denials(policy: Policy, traffic: Traffic, frontier: Frontier, requests: Integers) -> Candidate:
    """Count whom a policy denies."""
    burst, admits_need = policy.quota.burst, traits_of(policy.algorithm).admits_need
    needs = frontier.find_needs(policy.quota)
    was_denied, denied = find_denied(policy, select_keys(traffic, find_deniable(policy, frontier)))
    clients, denied_keys = int(np.count_nonzero(requests)), int(np.count_nonzero(was_denied))
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


def check_policy(tuning: Tuning, policy: Policy) -> Candidate:
    """Count whom a given policy denies."""
    traffic = tuning.traffic
    requests = traffic.key_requests
    return count_denials(policy, traffic, tuning.frontier, requests)


def find_deniable(policy: Policy, frontier: Frontier) -> Booleans:
    """Return the keys that a policy may deny something; all others are denied nothing.

    Algorithms of windows deny nothing to a key that requests at most the burst in any two windows. That is at most its
    need at a quarter of the rate, and the half of a burst that this rate grants in two windows.
    """
    quota, kind = policy.quota, type(policy.algorithm)
    if traits_of(kind).admits_need:
        return frontier.find_needs(quota) > quota.burst
    if (
        kind not in (FixedWindow, SlidingLog, SlidingCounter)
        or quota.limit > quota.period
        or 4 * quota.period > LARGEST
    ):
        return np.ones(len(frontier), np.bool_)
    return 2 * frontier.find_needs(Quota(quota.limit, 4 * quota.period)) + 2 > quota.burst


def find_denied(policy: Policy, traffic: Traffic) -> tuple[Booleans, int]:
    """Replay `traffic`; return which keys are denied at least once, and how many requests are."""
    was_denied = np.zeros(traffic.key_count, np.bool_)
    if not len(traffic):
        return was_denied, 0
    allowed = replay(policy, traffic, ADMISSION_FIELDS, replays=MAX_DEFAULT_RATES).decisions["allowed"]
    denied = 0
    for part, batch in traffic.batches():
        was_denied[batch.request_keys[~allowed[part]]] = True
        denied += int(np.count_nonzero(~allowed[part]))
    return was_denied, denied


def match_keys(traffic: Traffic, texts: Sequence[str]) -> Booleans:
    """Return the keys of the clients whose name is one of the texts, matches a pattern of them, or is in a CIDR."""
    matches = create_matcher(tuple(texts))
    is_named = np.fromiter(map(matches, traffic.names), np.bool_, len(traffic.names))
    selected = np.zeros(traffic.key_count, np.bool_)
    selected[traffic.keys[is_named]] = True
    return selected


def _find_tightest(
    kind: type[Algorithm], rate: Quota, traffic: Traffic, frontier: Frontier, requests: Integers, tolerate: Fraction,
    good: Booleans,
) -> Candidate:  # fmt: skip
    """Return the quota with the smallest burst that denies at most the share `tolerate` of the clients.

    An algorithm that does not admit every need is tried by bisection.
    """
    needs = frontier.find_needs(rate)
    population = Population.sort(needs, requests)
    tolerated = population.tolerated_burst(tolerate) or int(population.needs[-1])
    burst = max(tolerated, int(needs.max(initial=0, where=good)))
    if not traits_of(kind).admits_need:

        def is_tolerated(burst: int) -> bool:
            policy = build_policy(kind, Quota.of(rate, burst))
            was_denied, _ = find_denied(policy, select_keys(traffic, find_deniable(policy, frontier)))
            tolerated = int(np.count_nonzero(was_denied)) <= tolerate * len(population)
            return tolerated and not bool(was_denied[good].any())

        most = 2 * max(burst, int(traffic.requested_cost.max()))
        found = _bisect(is_tolerated, burst, most)
        if found is None:
            raise InputError(f"{kind.name} denies too many clients with every burst up to {most:,}: leave it out")
        burst = found
    return count_denials(build_policy(kind, Quota.of(rate, burst)), traffic, frontier, requests)


def _bisect(is_enough: Callable[[int], bool], guess: int, most: int) -> int | None:
    """Return the smallest burst that is enough, if a larger one always is; None if none up to `most` is.

    `guess` is where to begin.
    """
    low, high = 0, guess
    while not is_enough(high):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


def _check_holdout(
    traffic: Traffic, rate: Quota, tolerate: Fraction, kind: type[Algorithm], holdout: Fraction, good: Booleans
) -> Holdout | None:
    """Tune the burst on the first part of the time, and count denials in the last; None if a part has no requests."""
    cut = int(np.searchsorted(traffic.times, traffic.duration - int(traffic.duration * holdout)))
    first, last = traffic[:cut], traffic[cut:]
    if not (len(first) and len(last)):
        return None
    tuning = tune(first, [rate], tolerate, (kind,), Fraction(0), good=good)
    policy = tuning.recommended.policy
    was_denied, _ = find_denied(policy, last)
    clients, denied = int(np.count_nonzero(last.key_requests)), int(np.count_nonzero(was_denied))
    return Holdout(policy, clients, denied, round(denied / clients, 6))
