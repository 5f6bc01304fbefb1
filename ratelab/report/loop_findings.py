"""Closed loops in words: clients, server, faults and findings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.figures import LoopCase, LoopComparison, LoopResult, compute_herd_peak
from ratelab.quota import about
from ratelab.report.loops import name_rows
from ratelab.report.numbers import (
    format_factor,
    format_part,
    format_per_second,
    format_percent,
    format_quota,
    format_seconds,
    join_names,
    pluralize,
)
from ratelab.report.summary import describe_peaks, describe_traffic

MIN_HERD_PEAK, MIN_HERD_FACTOR = 3, 2
"""The herd peak from which on herds are reported, by itself and compared with that of the first tries."""

FAULT_NOUNS = {"outage": "outage", "slow": "slow phase", "spike": "spike", "limiter-restart": "restart of the limiter"}


# --- descriptions


def describe_case(case: LoopCase, clients: Sequence[str] = (), with_clients: bool = True) -> list[str]:
    """Describe the first tries, the quota, the server, the faults and the clients of a case, a line for each.

    By default, `clients` are described by their reactions to answers.
    """
    from ratelab.lab.scenarios.descriptions import describe_backend  # slow, and only closed loops need it

    traffic = case.population.first_tries
    lines = [_describe_first_tries(case.population)]
    if case.policies:
        quota = case.policies[0].quota
        owner = "key" if len(np.unique(traffic.keys)) < len(traffic.names) else "client"
        lines.append(f"quota for each {owner}: {format_quota(quota)} (window {about(quota.window)})")
    else:
        lines.append("no limiter")
    clients = (clients or _describe_behaviors(case.population)) if with_clients else ()
    return [*lines, *describe_backend(case.population), *clients]


def _describe_first_tries(population: Population) -> str:
    """Describe the requests of open clients, or of serial ones only the clients."""
    line = describe_traffic(population.first_tries)
    is_serial = np.array([behavior.loop == "serial" for behavior in population.behaviors], np.bool_)
    return line.partition(" from ")[2] if is_serial[population.behavior_of].all() else line


def _describe_behaviors(population: Population) -> list[str]:
    """Describe how clients react to answers, on a line for each kind of client."""
    from ratelab.lab.scenarios.descriptions import describe_behavior  # slow, and only closed loops need it

    kinds, firsts, counts = np.unique(population.behavior_of, return_index=True, return_counts=True)
    names, lines = population.first_tries.names, []
    for kind, first, count in zip(kinds.tolist(), firsts.tolist(), counts.tolist(), strict=True):
        others = f" and {pluralize(count - 1, 'other')}, each" if count > 1 else ""
        owner = f"{names[first]}{others}" if len(kinds) > 1 or count == 1 else "each client"
        lines.append(f"{owner}: {describe_behavior(population.behaviors[kind])}")
    return lines


def describe_cases(comparison: LoopComparison, described: Sequence[Sequence[str]]) -> list[str]:
    """Return the lines that describe every case, then after the name of each variant those of its own.

    Of a line that begins alike in all cases, only the rest is repeated.
    """
    if len({len(lines) for lines in described}) > 1:
        return [f"{case.variant}: {line}" for case, lines in _pair(comparison, described) for line in lines]
    common: list[str] = []
    rests: list[list[str]] = [[] for _ in described]
    for lines in zip(*described, strict=True):
        clauses = [line.split("; ") for line in lines]
        same = next(
            (n for n, parts in enumerate(zip(*clauses, strict=False)) if len({*parts}) > 1), min(map(len, clauses))
        )
        common += ["; ".join(clauses[0][:same])] if same else []
        for rest, parts in zip(rests, clauses, strict=True):
            rest += ["; ".join(parts[same:])] if parts[same:] else []
    return [*common, *(f"{case.variant}: {line}" for case, rest in _pair(comparison, rests) for line in rest)]


def _pair(comparison: LoopComparison, described: Sequence[Sequence[str]]) -> list[tuple[LoopCase, Sequence[str]]]:
    return list(zip(comparison.cases, described, strict=True))


def describe_loop_assumption(comparison: LoopComparison) -> list[str]:
    """Describe why the traffic differs between the runs."""
    if len(comparison.results) < 2:
        return []
    return [f"each {name_rows(comparison)} meets traffic of its own, since clients react to its answers"]


# --- findings


def summarize_loops(comparison: LoopComparison) -> list[str]:
    """Return the findings: recovery, requests served, tries, times to success, wasted work, herds and the quota."""
    if not any(result.first_tries for result in comparison.results):
        return ["No client began a request, so there is nothing to compare."]
    return [
        *describe_recovery(comparison),
        describe_served(comparison),
        *describe_tries(comparison),
        *describe_times(comparison),
        *_describe_wasted(comparison),
        *_describe_herds(comparison),
        *_describe_quota(comparison),
    ]


def describe_recovery(comparison: LoopComparison) -> list[str]:
    """Describe when goodput was back after the faults; nothing without faults, or without goodput before them."""
    faults, results = comparison.cases[0].population.faults, comparison.results
    if not faults or any(case.population.faults != faults for case in comparison.cases):
        return []
    begin = min(fault.begin for fault in faults)
    if not all(len(result.succeeded) and result.succeeded[0] < begin for result in results):
        return []
    nouns = dict.fromkeys(FAULT_NOUNS[fault.kind] for fault in faults)
    noun, verb = join_names([*nouns]), "was" if len(faults) == 1 else "were"
    noun = f"{noun}s" if len(faults) > 1 and len(nouns) == 1 else noun
    failed = [result.label for result in results if result.metastable]
    stayed = f"stayed under half of that before although the {noun} {verb} over: a metastable failure."
    if len(results) == 1 and failed:
        return [f"Goodput {stayed}"]
    ordered = sorted(results, key=lambda result: (result.recovery_time is None, result.recovery_time or 0))
    back = _list_runs(ordered, [_format_recovery(result) for result in ordered])
    metastable = [f"Goodput {_get_preposition(results)} {join_names(failed)} {stayed}"] if failed else []
    return [f"After the {noun}, goodput was back at 90 % of that before {back}.", *metastable]


def _format_recovery(result: LoopResult) -> str:
    if result.recovery_time is None:
        return "not by the end"
    return f"after {format_seconds(result.recovery_time)}" if result.recovery_time else "at once"


def describe_served(comparison: LoopComparison) -> str:
    """Describe how many requests were served; the algorithm that served most first."""
    ordered = sorted(comparison.results, key=lambda result: -result.successes)
    first = ordered[0]
    if len(ordered) == 1:
        part = format_part(first.successes, first.first_tries, "request")
        verb = "was" if part.startswith("the only") else "were"
        return f"{part[:1].upper()}{part[1:]} {verb} served, {format_per_second(first.goodput)} on average."
    same = comparison.has_same_requests
    offered = first.first_tries
    served = [f"{result.successes:,} ({format_percent(result.successes / max(1, offered))})" for result in ordered]
    rates = [format_per_second(result.goodput) for result in ordered]
    (most, names), *others = _group(ordered, served if same else rates)
    if not others:
        part = format_part(first.successes, offered, "request") if same else most
        return f"Every {name_rows(comparison)} served {part}."
    fewest, last = others[-1]
    superlative = ("the fewest, " if same else "the least, ") if len(others) > 1 else ""
    whole = f"Of {pluralize(offered, 'request')}, " if same else ""
    return f"{whole}{names} served {most}, {last} {superlative}{fewest}."


def describe_tries(comparison: LoopComparison) -> list[str]:
    """Describe the tries of a request and the requests that clients gave up; nothing if no client tried again."""
    results = comparison.results
    if all(result.attempts <= result.first_tries and not result.gave_up for result in results):
        return []
    ordered = sorted(results, key=lambda result: result.amplification)
    took = _list_runs(ordered, [_format_tries(result.amplification) for result in ordered])
    ordered = sorted(results, key=lambda result: result.gave_up / max(1, result.first_tries))
    if not ordered[-1].gave_up:
        return [f"On average, a request took {took}; clients gave up no request."]
    shares = [format_percent(result.gave_up / result.first_tries) if result.gave_up else "none" for result in ordered]
    gave_up = _list_runs(ordered, shares, " of the requests")
    return [f"On average, a request took {took}; clients gave up {gave_up}."]


def _format_tries(number: float) -> str:
    text = format_factor(number)
    return f"{text} {'try' if text == '1' else 'tries'}"


def describe_times(comparison: LoopComparison) -> list[str]:
    """Describe how long the slowest successes took; nothing if all of them came at once."""
    results = [result for result in comparison.results if result.time_to_success_p99 is not None]
    if not any(result.time_to_success_p99 for result in results):
        return []
    ordered = sorted(results, key=lambda result: result.time_to_success_p99 or 0)
    texts = [
        f"within {format_seconds(time)}" if (time := result.time_to_success_p99) else "at once" for result in ordered
    ]
    return [f"99 % of the successes came {_list_runs(ordered, texts)}."]


def _describe_wasted(comparison: LoopComparison) -> list[str]:
    wasteful = [result for result in comparison.results if result.wasted]
    if not wasteful:
        return []
    ordered = sorted(wasteful, key=lambda result: result.wasted / result.attempts)
    groups = _group(ordered, [format_percent(result.wasted / result.attempts) for result in ordered])
    preposition = _get_preposition(comparison.results)
    clauses = [
        f"{text} of the tries {preposition} {names}" if preposition else f"{text} of the tries"
        for text, names in groups
    ]
    return [f"{join_names(clauses)} were served after the caller had left."]


def _describe_herds(comparison: LoopComparison) -> list[str]:
    """Describe the herds that retries formed."""
    herds = [(result, result.herd_peak) for result in comparison.results if has_herd(result)]
    if not herds:
        return []
    ordered = sorted((result for result, _ in herds), key=lambda result: result.herd_peak or 0)
    groups = _group(ordered, [f"{format_factor(result.herd_peak or 0)} times their mean" for result in ordered])
    preposition = _get_preposition(comparison.results)
    clauses = [f"{text} {preposition} {names}" if preposition else text for text, names in groups]
    return [f"Retries came in herds: within 100 ms, tries rose to {join_names(clauses)}."]


def has_herd(result: LoopResult) -> bool:
    """Return whether tries come in herds that the first tries do not form."""
    first = compute_herd_peak(result.started, result.population.duration)
    peak = result.herd_peak
    return peak is not None and first is not None and peak >= max(MIN_HERD_PEAK, MIN_HERD_FACTOR * first)


def _describe_quota(comparison: LoopComparison) -> list[str]:
    peaks = [(result.label, result.peak_in_window) for result in comparison.results]
    known = [(name, peak) for name, peak in peaks if peak is not None]
    if len(comparison.quotas) != 1 or len(known) < len(peaks):
        return []
    return [describe_peaks(comparison.quotas[0], known)]


def _list_runs(results: Sequence[LoopResult], texts: Sequence[str], unit: str = "") -> str:
    """List texts with the runs that they are true of, of more than two the first and the last: `5 s under a`."""
    (first, names), *others = _group(results, texts)
    preposition = _get_preposition(results)
    if not others:
        every = "" if len(results) == 1 else f" {preposition} every {_name_row(results[0])}"
        return f"{first}{unit}{every}"
    last, last_names = others[-1]
    up_to = "up to " if len(others) > 1 and last[0].isdigit() else ""
    return f"{first}{unit} {preposition} {names}, and {up_to}{last} {preposition} {last_names}"


def _name_row(result: LoopResult) -> str:
    return "algorithm" if result.variant is None else "variant"


def _get_preposition(results: Sequence[LoopResult]) -> str:
    """Return the word in front of the names of runs; nothing if there is only one."""
    if len(results) == 1:
        return ""
    return "under" if results[0].variant is None else "with"


def _group(results: Sequence[LoopResult], texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return each text with the joined names of the algorithms that it is true of."""
    return [
        (text, join_names([result.label for result, other in zip(results, texts, strict=True) if other == text]))
        for text in dict.fromkeys(texts)
    ]
