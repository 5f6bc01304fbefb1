"""Candidates: quotas, and the clients and requests that each denies by replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ratelab.algorithms import Policy, build_policy, traits_of
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import InputError
from ratelab.lab.decisions import ADMISSION_FIELDS
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Booleans, Traffic, select_keys
from ratelab.lab.tune.frontier import Frontier
from ratelab.lab.tune.population import ClientNeeds, add_headroom
from ratelab.limiter import Algorithm
from ratelab.quota import LARGEST, Quota

USUAL_REPLAYS = 7
"""About how many replays of the same traffic a tuning makes; it decides whether to compile them."""


@dataclass(frozen=True)
class Candidate:
    """A quota, and whom it denies."""

    policy: Policy
    clients_denied: int
    clients_denied_ratio: float
    requests_denied: int
    requests_denied_ratio: float
    margin_below: float | None
    """The burst divided by the largest need that it covers; None if it covers none, and for algorithms of windows."""
    margin_above: float | None
    """The smallest need that it does not cover, divided by the burst; None if it covers all, and for these."""


def count_denials(policy: Policy, traffic: Traffic, frontier: Frontier) -> Candidate:
    """Count whom a policy denies."""
    burst, admits_need = policy.quota.burst, traits_of(policy.algorithm).admits_need
    needs = frontier.find_needs(policy.quota)
    was_denied, denied = find_denied(policy, select_keys(traffic, find_deniable(policy, frontier)))
    clients, denied_keys = int(np.count_nonzero(traffic.key_requests)), int(np.count_nonzero(was_denied))
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
    allowed = replay(policy, traffic, ADMISSION_FIELDS, replays=USUAL_REPLAYS).decisions["allowed"]
    denied = 0
    for part, batch in traffic.batches():
        was_denied[batch.request_keys[~allowed[part]]] = True
        denied += int(np.count_nonzero(~allowed[part]))
    return was_denied, denied


def find_denied_keys(policy: Policy, traffic: Traffic, frontier: Frontier) -> Booleans:
    """Return which keys a policy denies something."""
    deniable = find_deniable(policy, frontier)
    if traits_of(policy.algorithm).admits_need:
        return deniable
    return find_denied(policy, select_keys(traffic, deniable))[0]


def find_tightest(
    kind: type[Algorithm], rate: Quota, traffic: Traffic, frontier: Frontier, tolerate: Fraction, good: Booleans
) -> Candidate | None:
    """Return the quota with the smallest burst that denies at most the share `tolerate` of the clients.

    An algorithm of windows is tried by bisection. Return None if the algorithm grants no such quota.
    """
    needs = frontier.find_needs(rate)
    population = ClientNeeds.sort(needs, traffic.key_requests)
    tolerated = population.tolerated_burst(tolerate) or int(population.needs[-1])
    burst = max(tolerated, int(needs.max(initial=0, where=good)))

    def is_tolerated(burst: int) -> bool:
        was_denied = find_denied_keys(build_policy(kind, Quota.of(rate, burst)), traffic, frontier)
        return int(np.count_nonzero(was_denied)) <= tolerate * len(population) and not bool(was_denied[good].any())

    try:
        found = burst if traits_of(kind).admits_need else _bisect(is_tolerated, burst, _most(burst, traffic))
        return None if found is None else count_denials(build_policy(kind, Quota.of(rate, found)), traffic, frontier)
    except InputError:
        return None


def fit_policy(kind: type[Algorithm], quota: Quota, covered: int, traffic: Traffic, frontier: Frontier) -> Policy:
    """Return the policy of an algorithm that denies nothing to the clients with needs up to `covered`.

    `quota` has the burst for a token bucket. An algorithm of windows gets the smallest burst that bisection finds, with
    the same headroom if it denies them nothing either. Raises `InputError` if no burst is large enough.
    """
    if traits_of(kind).admits_need:
        return build_policy(kind, quota)
    asked = select_keys(traffic, frontier.find_needs(quota) <= covered)

    def is_enough(burst: int) -> bool:
        policy = build_policy(kind, Quota.of(quota, burst))
        return not find_denied(policy, select_keys(asked, find_deniable(policy, frontier)))[1]

    most = _most(quota.burst, traffic)
    found = _bisect(is_enough, quota.burst, most)
    if found is None:
        raise InputError(f"{kind.name} denies too many clients with every burst up to {most:,}: leave it out")
    roomy = add_headroom(found)
    return build_policy(kind, Quota.of(quota, roomy if is_enough(roomy) else found))


def _most(burst: int, traffic: Traffic) -> int:
    """Return a burst that is large enough for every algorithm that admits anything."""
    return 2 * max(burst, int(traffic.requested_cost.max()))


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
