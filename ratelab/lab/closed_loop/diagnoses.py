"""Diagnoses of a closed loop: faults that its figures show, each with its evidence."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.changes import find_capacity
from ratelab.lab.closed_loop.figures import LoopResult, choose_recovery_window, compute_herd_peak
from ratelab.lab.spill import Integers
from ratelab.quota import NS_PER_S

MIN_SERVED_RATIO = 0.9
"""The goodput ratio from which on a server is not overloaded: the share of goodput at which a service has recovered."""

MIN_SUCCESSES = 20
"""Successes before the faults from which on later ones are compared with them."""

STORM_FACTOR = 1.5
"""Tries for each first try in a storm: budgets allow 10 to 20 % of retries, so half as many again is far beyond."""

STORM_SUCCESSES = 0.5
"""Successes for each first try below which a storm does harm: the threshold of a metastable failure."""

MIN_STORM_WINDOWS = 3
"""Windows in a row that a storm lasts, as many as a recovery."""

MIN_HERD_PEAK, MIN_HERD_FACTOR = 3, 2
"""The herd peak from which on herds are reported, by itself and compared with that of the first tries."""

MIN_HERD_TRIES = 20
"""Tries in the fullest 100 ms: fewer are a coincidence of a few clients."""

MIN_WASTED, MIN_WASTED_RATIO = 20, 0.1
"""Tries that were served after their caller had left, and their share of the served ones: a tenth of the capacity."""

STARVED_RATIO = 0.5
"""The share of the common goodput ratio below which a client starves."""

MIN_CLIENT_REQUESTS = 10
"""Requests of a client from which on its goodput ratio is judged."""

MAX_DEVIATIONS = 5
"""Standard errors by which a starving client is behind: denials come in runs, and chance hits some of many clients."""

MIN_DENIED, MIN_DENIED_RATIO = 20, 0.05
"""Denied tries of clients that keep to the rate, and their share: clients repair a few by a retry."""


class Diagnosis(NamedTuple):
    """A fault, with the evidence from the run."""

    name: str
    evidence: dict[str, float]


def diagnose(result: LoopResult) -> tuple[Diagnosis, ...]:
    """Return the faults that the figures of a run show."""
    if not result.first_tries:
        return ()
    found = {
        "overload-without-shedding": _find_overload(result),
        "metastable-failure": _find_metastable_failure(result),
        "retry-storm": _find_storm(result),
        "dead-requests": _find_dead_requests(result),
        "herd": _find_herd(result),
        "starvation": _find_starvation(result),
        "tight-limit": _find_tight_limit(result),
    }
    return tuple(Diagnosis(name, evidence) for name, evidence in found.items() if evidence)


def _find_overload(result: LoopResult) -> dict[str, float]:
    """Return the load of a server that gets more first tries than it can serve, and sheds none."""
    server, capacity = result.population.server, find_capacity(result.population)
    if server is None or capacity is None or server.queue is not None or server.drop != "none":
        return {}
    admitted = result.first_tries * (1 - result.denied / max(1, result.attempts))
    demand = admitted * NS_PER_S / result.population.duration
    if demand <= capacity or result.goodput_ratio >= MIN_SERVED_RATIO:
        return {}
    return {
        "first_tries_per_s": round(demand, 4),
        "capacity_per_s": round(capacity, 4),
        "goodput_ratio": result.goodput_ratio,
    }


def _find_metastable_failure(result: LoopResult) -> dict[str, float]:
    """Return the goodput before the faults, and that in the last quarter of the time after them."""
    if not result.metastable:
        return {}
    faults, duration = result.population.faults, result.population.duration
    begin, end = min(fault.begin for fault in faults), max(fault.end for fault in faults)
    rest = (duration - end) // 4
    before = int(np.searchsorted(result.succeeded, begin))
    late, begun, tries = (
        len(times) - int(np.searchsorted(times, duration - rest))
        for times in (result.succeeded, result.started, result.arrived)
    )
    if before < MIN_SUCCESSES or 2 * max(begun, tries) * begin < before * rest:  # clients may have no more requests
        return {}
    return {
        "goodput_before": round(before * NS_PER_S / max(1, begin), 4),
        "goodput_late": round(late * NS_PER_S / max(1, rest), 4),
        "seconds_after": (duration - end) / NS_PER_S,
    }


def _find_storm(result: LoopResult) -> dict[str, float]:
    """Return the longest span in which retries multiply the tries and few requests succeed."""
    duration = result.population.duration
    window = choose_recovery_window(duration)
    if result.policy is not None:
        window = max(window, result.policy.quota.window)  # within it, a limit may admit everything at once
    edges = np.arange(0, duration + 1, window)
    first, tries, served = (
        np.diff(np.searchsorted(times, edges)) for times in (result.started, result.arrived, result.succeeded)
    )
    if len(first) < MIN_STORM_WINDOWS:
        return {}
    usual = np.maximum(first, first.mean())  # serial clients begin fewer requests in a storm
    stormy = (tries >= STORM_FACTOR * usual) & (served < STORM_SUCCESSES * usual)
    begin, end = _find_longest(stormy)
    if end - begin < MIN_STORM_WINDOWS:
        return {}
    seconds = (end - begin) * window / NS_PER_S
    return {
        "begin": begin * window / NS_PER_S,
        "seconds": seconds,
        "first_tries_per_s": round(float(usual[begin:end].sum()) / seconds, 4),
        "tries_per_s": round(int(tries[begin:end].sum()) / seconds, 4),
        "goodput": round(int(served[begin:end].sum()) / seconds, 4),
    }


def _find_longest(flags: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> tuple[int, int]:
    """Return the begin and the end of the longest span of true flags."""
    changes = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    spans = changes.reshape(-1, 2)
    if not len(spans):
        return 0, 0
    begin, end = spans[int(np.argmax(spans[:, 1] - spans[:, 0]))].tolist()
    return begin, end


def _find_dead_requests(result: LoopResult) -> dict[str, float]:
    """Return the tries that a server worked for after their callers had left."""
    ratio = result.wasted / max(1, result.wasted + result.successes)
    if find_capacity(result.population) is None or result.wasted < MIN_WASTED or ratio < MIN_WASTED_RATIO:
        return {}
    return {"wasted": result.wasted, "wasted_ratio": round(ratio, 6)}


def _find_herd(result: LoopResult) -> dict[str, float]:
    if not has_herd(result) or result.herd_peak is None or result.attempts == result.first_tries:
        return {}
    first = compute_herd_peak(result.started, result.population.duration) or 0
    return {"herd_peak": result.herd_peak, "herd_peak_of_first_tries": first, "amplification": result.amplification}


def has_herd(result: LoopResult) -> bool:
    """Return whether tries come in herds that the first tries do not form."""
    duration, peak = result.population.duration, result.herd_peak
    first = compute_herd_peak(result.started, duration)
    if peak is None or first is None or peak < max(MIN_HERD_PEAK, MIN_HERD_FACTOR * first):
        return False
    return peak * result.attempts * NS_PER_S / 10 >= MIN_HERD_TRIES * duration


def _find_starvation(result: LoopResult) -> dict[str, float]:
    """Return the clients that get far less than those with which they share a key or a server, and ask for no more.

    Clients of one kind are judged together first, then each client alone.
    """
    for members in _list_sharers(result):
        _, kinds = np.unique(result.population.behavior_of[members], return_inverse=True)
        for groups in (kinds, np.arange(len(members))):
            evidence = _find_starving(result, members, groups)
            if evidence:
                return evidence
    return {}


def _find_starving(result: LoopResult, members: Integers, groups: Integers) -> dict[str, float]:
    """Return how the starving groups of clients compare with the others."""
    counts = (result.client_counts[name][members] for name in ("first_tries", "successes", "attempts"))
    sizes = np.bincount(groups)
    begun, served, tries = (np.bincount(groups, column).astype(np.int64) for column in counts)
    all_begun, all_served = int(begun.sum()), int(served.sum())
    share = (all_served - served) / np.maximum(1, all_begun - begun)  # the goodput ratio of the others
    starving = (
        (begun >= MIN_CLIENT_REQUESTS)
        & (begun * len(members) <= all_begun * sizes)
        & (served < STARVED_RATIO * share * begun)
        & (share * begun - served > MAX_DEVIATIONS * np.sqrt(np.clip(share * (1 - share), 0, None) * begun))
    )
    if not starving.any() or starving.all():
        return {}
    return {
        "clients": int(sizes[starving].sum()),
        "goodput_ratio": _divide(served[starving], begun[starving]),
        "others": int(sizes[~starving].sum()),
        "goodput_ratio_of_others": _divide(served[~starving], begun[~starving]),
        "tries_of_others": _divide(tries[~starving], tries),
    }


def _list_sharers(result: LoopResult) -> Iterator[Integers]:
    """Yield groups of clients that share a key, or all if they share a server."""
    keys = result.population.first_tries.keys
    if find_capacity(result.population) is not None:
        yield np.arange(len(keys))
    elif result.policy is not None:
        counts = np.bincount(keys)
        order = np.argsort(keys, kind="stable")
        ends = np.cumsum(counts)
        yield from (order[end - count : end] for count, end in zip(counts, ends, strict=True) if count > 1)


def _divide(parts: Integers, wholes: Integers) -> float:
    return round(int(parts.sum()) / max(1, int(wholes.sum())), 6)


def _find_tight_limit(result: LoopResult) -> dict[str, float]:
    """Return the denials of keys whose first tries keep to the rate on average."""
    if result.policy is None:
        return {}
    quota, population = result.policy.quota, result.population
    keys, counts = population.first_tries.keys, result.client_counts
    demand = np.bincount(keys, counts["first_tries"] * _compute_mean_costs(population))
    is_honest = (demand > 0) & (demand * quota.period <= quota.limit * population.duration)
    honest = is_honest[keys]
    denied, tries = int(counts["denied"][honest].sum()), int(counts["attempts"][honest].sum())
    if denied < MIN_DENIED or denied < MIN_DENIED_RATIO * tries:
        return {}
    seconds = population.duration / NS_PER_S
    return {
        "keys": int(np.count_nonzero(is_honest)),
        "denied": denied,
        "denied_ratio": round(denied / tries, 6),
        "demand_per_s": round(float(demand[is_honest].max()) / seconds, 4),
        "granted_per_s": round(quota.limit * NS_PER_S / quota.period, 4),
    }


def _compute_mean_costs(population: Population) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the mean cost of the requests of each client."""
    first, size = population.first_tries, len(population.behavior_of)
    means = [
        sum(cost * weight for cost, weight in behavior.costs) / sum(weight for _, weight in behavior.costs)
        for behavior in population.behaviors
    ]
    drawn = np.bincount(first.clients, minlength=size)
    total = np.bincount(first.clients, first.costs, minlength=size)
    return np.where(drawn > 0, total / np.maximum(drawn, 1), np.array(means)[population.behavior_of])
