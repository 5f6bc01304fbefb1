"""Candidates: quotas, and the clients and requests that each denies by replay."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

from ratelab.algorithms import Policy, build_policy, traits_of
from ratelab.errors import InputError
from ratelab.lab.tune.demand import Demand, Steps
from ratelab.lab.tune.frontier import Frontier
from ratelab.lab.tune.population import ClientNeeds, add_headroom
from ratelab.lab.tune.queries import WHOLE_TIME, CountDenied, Span
from ratelab.limiter import Algorithm
from ratelab.quota import Quota


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


def count_denials(policy: Policy, frontier: Frontier) -> Steps[Candidate]:
    """Count whom a policy denies."""
    burst, admits_need = policy.quota.burst, traits_of(policy.algorithm).admits_need
    needs = frontier.find_needs(policy.quota)
    found = yield CountDenied(policy)
    covered, uncovered = needs[(needs <= burst) & (needs > 0)], needs[needs > burst]
    return Candidate(
        policy=policy,
        clients_denied=found.clients_denied,
        clients_denied_ratio=round(found.clients_denied / found.clients, 6),
        requests_denied=found.requests_denied,
        requests_denied_ratio=round(found.requests_denied / found.offered, 6),
        margin_below=round(burst / int(covered.max()), 4) if admits_need and len(covered) else None,
        margin_above=round(int(uncovered.min()) / burst, 4) if admits_need and len(uncovered) else None,
    )


def find_tightest(
    kind: type[Algorithm], rate: Quota, demand: Demand, frontier: Frontier, tolerate: Fraction
) -> Steps[Candidate | None]:
    """Return the quota with the smallest burst that denies at most the share `tolerate` of the clients.

    An algorithm of windows is tried by bisection. Return None if the algorithm grants no such quota.
    """
    needs = frontier.find_needs(rate)
    population = ClientNeeds.sort(needs, demand.traffic.key_requests)
    tolerated = population.tolerated_burst(tolerate) or int(population.needs[-1])
    burst = max(tolerated, int(needs.max(initial=0, where=demand.good)))

    def is_tolerated(burst: int) -> Steps[bool]:
        found = yield CountDenied(build_policy(kind, Quota.of(rate, burst)))
        return bool(found.clients_denied <= tolerate * len(population) and not found.good_denied)

    try:
        admits_need = traits_of(kind).admits_need
        least = burst if admits_need else (yield from _bisect(is_tolerated, burst, _most(burst, frontier)))
        if least is None:
            return None
        return (yield from count_denials(build_policy(kind, Quota.of(rate, least)), frontier))
    except InputError:
        return None


def fit_policy(
    kind: type[Algorithm], quota: Quota, covered: int, frontier: Frontier, span: Span = WHOLE_TIME
) -> Steps[Policy]:
    """Return the policy of an algorithm that denies nothing to the clients with needs up to `covered` in a span.

    `quota` has the burst for a token bucket. An algorithm of windows gets the smallest burst that bisection finds, with
    the same headroom if it denies them nothing either. Raises `InputError` if no burst is large enough.
    """
    if traits_of(kind).admits_need:
        return build_policy(kind, quota)

    def is_enough(burst: int) -> Steps[bool]:
        found = yield CountDenied(build_policy(kind, Quota.of(quota, burst)), span, (quota, covered))
        return not found.requests_denied

    most = _most(quota.burst, frontier)
    found = yield from _bisect(is_enough, quota.burst, most)
    if found is None:
        raise InputError(f"{kind.name} denies too many clients with every burst up to {most:,}: leave it out")
    roomy = add_headroom(found)
    is_roomy_enough = yield from is_enough(roomy)
    return build_policy(kind, Quota.of(quota, roomy if is_roomy_enough else found))


def _most(burst: int, frontier: Frontier) -> int:
    """Return a burst that is large enough for every algorithm that admits anything."""
    return 2 * max(burst, int(frontier.amounts.max()))


def _bisect(is_enough: Callable[[int], Steps[bool]], guess: int, most: int) -> Steps[int | None]:
    """Return the smallest burst that is enough, if a larger one always is; None if none up to `most` is.

    `guess` is where to begin.
    """
    low, high = 0, guess
    while not (yield from is_enough(high)):
        if high >= most:
            return None
        low, high = high, min(2 * high, most)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if (yield from is_enough(middle)) else (middle, high)
    return high
