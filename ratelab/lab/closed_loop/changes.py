"""Changes to clients, the server or the limiter that may repair the faults of a closed loop."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ratelab.algorithms import Policy, build_policy, find
from ratelab.errors import InputError
from ratelab.lab.closed_loop.behavior import MS, Behavior, Budget, Population, Retry, Server
from ratelab.quota import NS_PER_S, Quota, about

JITTERED = ("full-jitter", "decorrelated-jitter")
"""Policies whose waits are spread as widely as those of full jitter."""

BUDGET = Budget(Fraction(1, 10))
"""A tenth of the requests, as the SRE book of Google recommends ("Handling Overload")."""

LONG_WAIT_FACTOR = 10
"""Timeouts that the longer of two bases lasts: retries then span the time in which a queue of dead requests drains."""

UTILIZATION = Fraction(9, 10)
"""The share of a server's capacity that a limit in front of it admits: at more, queues become long."""

LARGER_BURSTS, HIGHER_RATE = (2, 5), Fraction(5, 4)
"""Factors of larger bursts and of a higher rate."""

OTHER_ALGORITHMS = ("token-bucket", "leaky-bucket", "sliding-log")
"""Algorithms that are tried instead of another: those whose decisions are not bound to windows of the clock."""


class Change(NamedTuple):
    """A population and a policy with one change."""

    name: str
    """In words, as after `with`."""
    policy: Policy | None
    population: Population


Loop = tuple[Population, Policy | None]
Changes = Iterator[Change]


def list_changes(population: Population, policy: Policy | None, diagnoses: Sequence[str]) -> list[Change]:
    """Return the changes that may repair the diagnosed faults, those for the first fault first."""
    makers = dict.fromkeys(maker for name in diagnoses for maker in REMEDIES[name])
    return [change for maker in makers for change in maker(population, policy)]


def find_capacity(population: Population) -> float | None:
    """Return the requests a second that the server can serve; None if nothing limits it."""
    server = population.server
    if server is None or server.workers is None:
        return None
    service = server.service.mean + server.slowdown * server.workers
    return server.workers * NS_PER_S / service if service else None


# --- clients


def _change_retries(
    name: str, loop: Loop, change: Callable[[Behavior], Retry], applies: Callable[[Retry], bool]
) -> Changes:
    """Yield a change of the retries of all clients that retry, and to which it applies."""
    population, policy = loop
    behaviors = tuple(
        replace(each, retry=change(each)) if each.retry.policy != "none" and applies(each.retry) else each
        for each in population.behaviors
    )
    if behaviors != population.behaviors:
        yield Change(name, policy, replace(population, behaviors=behaviors))


def _spread_retries(population: Population, policy: Policy | None) -> Changes:
    def spread(behavior: Behavior) -> Retry:
        base = max(behavior.retry.base, 100 * MS)
        return replace(behavior.retry, policy="full-jitter", base=base, cap=max(base, behavior.retry.cap))

    yield from _change_retries("full jitter", (population, policy), spread, lambda retry: retry.policy not in JITTERED)


def _spread_widely(population: Population, policy: Policy | None) -> Changes:
    timeouts = [behavior.timeout for behavior in population.behaviors if behavior.timeout is not None]
    base = LONG_WAIT_FACTOR * max(timeouts, default=NS_PER_S)

    def spread(behavior: Behavior) -> Retry:
        return replace(behavior.retry, policy="full-jitter", base=base, cap=max(base, behavior.retry.cap))

    name = f"full jitter from a base of {about(base)}"
    yield from _change_retries(name, (population, policy), spread, lambda retry: retry.base < base)


def _add_budget(population: Population, policy: Policy | None) -> Changes:
    yield from _change_retries(
        "a retry budget of 10 %",
        (population, policy),
        lambda behavior: replace(behavior.retry, budget=BUDGET),
        lambda retry: retry.budget is None,
    )


def _try_less(population: Population, policy: Policy | None) -> Changes:
    yield from _change_retries(
        "at most 2 tries",
        (population, policy),
        lambda behavior: replace(behavior.retry, attempts=2),
        lambda retry: retry.attempts is None or retry.attempts > 2,
    )
    yield from _change_retries("no retries", (population, policy), lambda _: Retry(), lambda _: True)


def _honor_denials(population: Population, policy: Policy | None) -> Changes:
    if policy is not None:
        yield from _change_retries(
            "Retry-After and full jitter",
            (population, policy),
            lambda behavior: replace(
                behavior.retry,
                honors="ratelimit" if behavior.retry.honors == "ratelimit" else "retry-after",
                jitter="full",
            ),
            lambda retry: retry.honors == "none" or retry.jitter != "full",
        )


# --- server


def _change_server(name: str, loop: Loop, server: Server) -> Changes:
    population, policy = loop
    if server != population.server:
        yield Change(name, policy, replace(population, server=server))


def _drop_stale(population: Population, policy: Policy | None) -> Changes:
    server = population.server
    if server is not None and server.workers is not None and server.queue != 0 and _has_timeout(population):
        stale = replace(server, drop="stale", drop_limit=0)
        yield from _change_server("stale requests dropped", (population, policy), stale)


def _serve_newest(population: Population, policy: Policy | None) -> Changes:
    server = population.server
    if server is not None and server.workers is not None and server.queue != 0:
        yield from _change_server("the newest request first", (population, policy), replace(server, order="lifo"))


def _bound_queue(population: Population, policy: Policy | None) -> Changes:
    """Bound the wait in the queue to half of the shortest timeout."""
    server, capacity = population.server, find_capacity(population)
    if server is None or server.workers is None or capacity is None or server.drop == "count":
        return
    timeouts = [behavior.timeout for behavior in population.behaviors if behavior.timeout is not None]
    wait = min(timeouts, default=10 * NS_PER_S) // 2
    places = max(1, int(capacity * wait / NS_PER_S))
    if server.queue is None or places < server.queue:
        name = f"a queue of at most {places:,}"
        yield from _change_server(name, (population, policy), replace(server, queue=places))


def _has_timeout(population: Population) -> bool:
    return any(behavior.timeout is not None for behavior in population.behaviors)


# --- limiter


def _change_policy(name: str, algorithm: str, quota: Quota, population: Population) -> Changes:
    """Yield another policy, if the algorithm can grant the quota."""
    try:
        yield Change(name, build_policy(find(algorithm, from_file=False), quota), population)
    except InputError:
        return


def _add_limiter(population: Population, policy: Policy | None) -> Changes:
    capacity = find_capacity(population)
    if policy is not None or capacity is None:
        return
    seconds = 1 if capacity >= 100 else 10
    limit = max(1, int(UTILIZATION * Fraction(capacity) * seconds))
    quota = Quota(limit, seconds * NS_PER_S, max(1, limit // (10 * seconds)))
    name = f"a token bucket of {quota.rate}, burst {quota.burst:,}, for all clients"
    yield from _change_policy(name, "token-bucket", quota, _with_keys(population, shared=True))


def _change_algorithm(population: Population, policy: Policy | None) -> Changes:
    for name in OTHER_ALGORITHMS if policy is not None else ():
        if policy is not None and policy.name != name:
            yield from _change_policy(name, name, policy.quota, population)


def _raise_limit(population: Population, policy: Policy | None) -> Changes:
    if policy is None or policy.quota.calendar is not None:
        return
    quota = policy.quota
    for factor in LARGER_BURSTS:
        larger = Quota(quota.limit, quota.period, factor * quota.burst)
        yield from _change_policy(f"a burst of {larger.burst:,}", policy.name, larger, population)
    rate = HIGHER_RATE * Fraction(quota.limit, quota.period)
    higher = Quota(rate.numerator, rate.denominator, int(HIGHER_RATE * quota.burst))
    yield from _change_policy(f"a rate of {higher.rate}, burst {higher.burst:,}", policy.name, higher, population)


def _separate_keys(population: Population, policy: Policy | None) -> Changes:
    """Give each client an equal part of the quota that it shares."""
    keys = population.first_tries.keys
    sharers = int(np.bincount(keys).max()) if len(keys) else 0
    if policy is None or sharers < 2 or policy.quota.calendar is not None:
        return
    quota = policy.quota
    part = Quota(quota.limit, quota.period * sharers, max(1, quota.burst // sharers))
    name = f"a quota of {part.rate}, burst {part.burst:,}, for each client"
    yield from _change_policy(name, policy.name, part, _with_keys(population, shared=False))


def _with_keys(population: Population, shared: bool) -> Population:
    """Return clients that all share a key, or that have one each."""
    size = len(population.first_tries.names)
    keys = np.zeros(size, np.int64) if shared else np.arange(size)
    return replace(population, first_tries=replace(population.first_tries, keys=keys))


REMEDIES: dict[str, tuple[Callable[[Population, Policy | None], Changes], ...]] = {
    "overload-without-shedding": (_bound_queue, _drop_stale, _serve_newest, _add_limiter, _add_budget),
    "metastable-failure": (
        *(_add_budget, _drop_stale, _serve_newest, _bound_queue),
        *(_try_less, _spread_widely, _add_limiter),
    ),
    "retry-storm": (
        *(_add_budget, _spread_retries, _spread_widely, _try_less),
        *(_honor_denials, _drop_stale, _bound_queue),
    ),
    "dead-requests": (_drop_stale, _serve_newest, _bound_queue, _add_budget, _add_limiter),
    "herd": (_honor_denials, _spread_retries, _change_algorithm, _add_budget),
    "starvation": (_separate_keys, _add_budget, _spread_retries, _bound_queue, _change_algorithm),
    "tight-limit": (_raise_limit, _honor_denials, _change_algorithm, _spread_retries),
}
"""Changes that may repair each fault, in the order in which they are tried."""
