"""Tuning: quotas that some traffic supports, each counted by replay, and one of them recommended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ratelab.algorithms import Policy
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.errors import InputError
from ratelab.lab.decisions import Progress
from ratelab.lab.replay import suggest_compiler
from ratelab.lab.spill import Integers
from ratelab.lab.traces.requests import create_matcher
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.tune.candidates import Candidate, count_denials, find_tightest, fit_policy
from ratelab.lab.tune.demand import Demand, LocalDemand, Steps, run_steps
from ratelab.lab.tune.frontier import Frontier
from ratelab.lab.tune.population import ClientNeeds, Gap, limit_tolerance
from ratelab.lab.tune.queries import USUAL_REPLAYS, CountDenied, CountNeeds, Span
from ratelab.limiter import Algorithm
from ratelab.quota import LARGEST, UNITS, Quota

DEFAULT_TOLERANCE = Fraction(1, 1000)
DEFAULT_HOLDOUT = Fraction(1, 3)

PERCENTILES = {"p50": Fraction(1, 2), "p90": Fraction(9, 10), "p99": Fraction(99, 100), "p999": Fraction(999, 1000)}

MAX_REFILL_NS = UNITS["h"]
"""Rates by default refill the burst that they need within this time, if any rate does."""

NEARLY_LEAST = Fraction(11, 10)
"""Quotas that admit up to this many times the least in any minute are as good; the fastest has the smallest burst."""

MAX_TOLERATED_RATIO = 2
"""A quota within the tolerance is preferred if it admits at most this many times the least in any minute."""

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
    lower_gap: Gap | None
    """The largest ratio between neighbouring needs of the upper half of the clients."""
    ordinary: int
    """The largest need that the burst is meant to cover."""
    burst: int
    """The burst that this rate would have: in the gap, if it is clear, otherwise the one within the tolerance."""
    is_tolerated: bool
    """Whether no more clients than are tolerated need more than this burst."""


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

    demand: Demand
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
    """For each rate and algorithm, the smallest burst within the tolerance, unless the algorithm has none."""
    holdout: Holdout | None
    kinds: tuple[type[Algorithm], ...]
    """The algorithms of the tightest quotas; the first is the recommended one."""

    @property
    def traffic(self) -> Traffic:
        """The clients and their counts."""
        return self.demand.traffic


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
    of it. `progress` is called with the number of further requests handled, of `count_work` in all. No quota denies a
    key for which `good` is true.

    Raises `InputError` without requests, and unless the tolerance and the holdout are at least 0 and below 1.
    """
    return tune_demand(LocalDemand(traffic, good), rates, tolerate, kinds, holdout, progress)


def tune_demand(
    demand: Demand,
    rates: Sequence[Quota] = (),
    tolerate: Fraction = DEFAULT_TOLERANCE,
    kinds: Sequence[type[Algorithm]] = (TokenBucket,),
    holdout: Fraction = DEFAULT_HOLDOUT,
    progress: Progress = lambda _: None,
) -> Tuning:
    """Find quotas as `tune` does, for requests that may be on workers."""
    traffic = demand.traffic
    if not len(traffic):
        raise InputError("there are no requests to choose a limit from: name a trace that has some")
    if not 0 <= tolerate < 1:
        raise InputError(f"the tolerance must be at least 0 and below 1, got {tolerate}: try 1/1000")
    if not 0 <= holdout < 1:
        raise InputError(f"the holdout must be at least 0 and below 1, got {holdout}: try 1/3, or 0 for none")
    suggest_compiler(traffic, USUAL_REPLAYS)
    frontier = demand.measure_frontier(progress)
    requests = traffic.key_requests
    clients = int(np.count_nonzero(requests))
    supported = limit_tolerance(tolerate, clients)
    needs = measure_rates(frontier, requests, supported, rates, demand.good)
    best = _choose_rate(needs)
    recommended, checked, *found = run_steps(
        demand,
        [
            _recommend(kinds[0], best, frontier),
            _check_holdout(demand, best.rate, tolerate, kinds[0], holdout, frontier, progress),
            *(find_tightest(kind, row.rate, demand, frontier, supported) for row in needs for kind in kinds),
        ],
        progress,
    )
    return Tuning(
        demand=demand,
        frontier=frontier,
        offered=len(traffic),
        clients=clients,
        tolerate=supported,
        asked=tolerate,
        rates=needs,
        recommended=recommended,
        tightest=tuple(candidate for candidate in found if candidate is not None),
        holdout=checked,
        kinds=tuple(kinds),
    )


def _recommend(kind: type[Algorithm], best: RateNeeds, frontier: Frontier) -> Steps[Candidate]:
    """Fit the policy of an algorithm to the needs at the best rate, and count whom it denies."""
    policy = yield from fit_policy(kind, Quota.of(best.rate, best.burst), best.ordinary, frontier)
    return (yield from count_denials(policy, frontier))


def count_work(traffic: Traffic, holdout: Fraction) -> int:
    """Return how many requests `tune` handles, once for the recommendation and once for its check."""
    return len(traffic) * (2 if holdout else 1)


def measure_rates(
    frontier: Frontier, requests: Integers, tolerate: Fraction, rates: Sequence[Quota], good: Booleans
) -> tuple[RateNeeds, ...]:
    """Measure the needs of the clients that sent `requests` at each rate, by default at those worth a choice."""
    if rates:
        distinct = {rate.rate: rate for rate in rates}.values()
        return tuple(_measure_rate(frontier, requests, tolerate, rate, good) for rate in distinct)
    rows, at_once = [], frontier.find_largest_at_once()
    for rate in _SERIES:
        rows.append(_measure_rate(frontier, requests, tolerate, Quota.parse(rate), good))
        if rows[-1].needs["max"] <= at_once and _refill_time(rows[-1]) <= MAX_REFILL_NS:
            break  # faster rates need no less
    rows = [row for row in rows if _refill_time(row) <= MAX_REFILL_NS] or rows[-1:]
    least = rows[-1].burst
    rows = rows[: 1 + next(place for place, row in enumerate(rows) if row.burst <= least)]
    best = min(range(len(rows)), key=lambda place: _most_in_a_minute(rows[place]))
    first = max(0, min(best - MAX_DEFAULT_RATES // 2, len(rows) - MAX_DEFAULT_RATES))
    return tuple(rows[first : first + MAX_DEFAULT_RATES])


def _measure_rate(frontier: Frontier, requests: Integers, tolerate: Fraction, rate: Quota, good: Booleans) -> RateNeeds:
    """Summarize the needs of all keys at a rate."""
    needs = frontier.find_needs(rate)
    population = ClientNeeds.sort(needs, requests)
    percentiles = {name: population.percentile(share) for name, share in PERCENTILES.items()}
    percentiles["max"] = int(population.needs[-1])
    required = int(needs.max(initial=0, where=good))
    gaps = population.find_gap(), population.find_gap(PERCENTILES["p50"])
    ordinary, burst = population.recommend_burst(tolerate, required)
    is_tolerated = population.count_above(burst) <= tolerate * len(population)
    return RateNeeds(rate, percentiles, *gaps, ordinary, burst, is_tolerated)


def _choose_rate(rows: Sequence[RateNeeds]) -> RateNeeds:
    """Return the fastest of the rates whose quotas admit about as little in any minute as the best of them does.

    If that denies more clients than are tolerated, prefer rates that do not, unless they admit much more.
    """
    rows = [row for row in rows if _refill_time(row) <= LARGEST] or rows
    least = min(map(_most_in_a_minute, rows))
    rows = [row for row in rows if row.is_tolerated and _most_in_a_minute(row) <= least * MAX_TOLERATED_RATIO] or rows
    least = min(map(_most_in_a_minute, rows))
    near = [row for row in rows if _most_in_a_minute(row) <= least * NEARLY_LEAST]
    return max(near, key=lambda row: Fraction(row.rate.limit, row.rate.period))


def _refill_time(row: RateNeeds) -> int:
    """Return the nanoseconds in which the rate refills its burst."""
    return -(-row.burst * row.rate.period // row.rate.limit)


def _most_in_a_minute(row: RateNeeds) -> Fraction:
    """Return the most that a quota for the ordinary clients would admit in any minute: its protection."""
    return row.ordinary + Fraction(row.rate.limit * UNITS["min"], row.rate.period)


def match_keys(traffic: Traffic, texts: Sequence[str]) -> Booleans:
    """Return the keys of the clients whose name is one of the texts, matches a pattern of them, or is in a CIDR."""
    matches = create_matcher(tuple(texts))
    is_named = np.fromiter(map(matches, traffic.names), np.bool_, len(traffic.names))
    selected = np.zeros(traffic.key_count, np.bool_)
    selected[traffic.keys[is_named]] = True
    return selected


def _check_holdout(
    demand: Demand,
    rate: Quota,
    tolerate: Fraction,
    kind: type[Algorithm],
    holdout: Fraction,
    frontier: Frontier,
    progress: Progress,
) -> Steps[Holdout | None]:
    """Tune the burst on the first part of the time, and count denials in the last; None if a part has no requests."""
    duration = demand.traffic.duration
    cut = duration - int(duration * holdout)
    begin, end = demand.ends
    if not holdout or not begin < cut <= end:
        return None
    first, last = Span(end=cut), Span(begin=cut)
    needs = yield CountNeeds(rate, first)
    ordinary, burst = needs.recommend_burst(limit_tolerance(tolerate, int(needs.clients.sum())))
    quota = Quota.of(rate, burst)
    policy = yield from fit_policy(kind, quota, ordinary, frontier, first)
    found = yield CountDenied(policy, last)
    progress(found.offered)
    return Holdout(policy, found.clients, found.clients_denied, round(found.clients_denied / found.clients, 6))
