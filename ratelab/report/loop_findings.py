"""Closed loops in words: clients, server, faults and findings."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.diagnoses import has_herd
from ratelab.lab.closed_loop.figures import LoopCase, LoopComparison, LoopResult
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

MAX_VARIANT_LINES = 12
"""Differences between variants that are described."""

MAX_NAMED_RUNS = 6
"""Runs up to which a finding names all that are equal."""

MAX_LISTED_LENGTH = 200
"""Characters up to which the times of all recoveries are listed, not only the first and the last."""

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


def describe_cases(
    comparison: LoopComparison, described: Sequence[Sequence[str]], with_variants: bool = True
) -> list[str]:
    """Return the lines that describe every case, then after the names of variants those of them alone.

    Of lines that begin alike in all cases, only the rest is repeated.
    """
    variants = [str(case.variant) for case in comparison.cases]
    if len({len(lines) for lines in described}) > 1:
        listed = zip(variants, described, strict=True)
        return [f"{name}: {line}" for name, lines in listed for line in lines] if with_variants else []
    common, special = [], []
    for lines in zip(*described, strict=True):
        clauses = [line.split("; ") for line in lines]
        differing = (place for place, parts in enumerate(zip(*clauses, strict=False)) if len({*parts}) > 1)
        same = next(differing, min(map(len, clauses)))
        common += ["; ".join(clauses[0][:same])] if same else []
        rests = ["; ".join(parts[same:]) for parts in clauses]
        special += [f"{names}: {text}" for text, names in _group(variants, rests) if text]
    rest = len(special) - MAX_VARIANT_LINES
    special[MAX_VARIANT_LINES:] = [f"and {pluralize(rest, 'further difference')}"] if rest > 0 else []
    return [*common, *special] if with_variants else common


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
    served, tries = [describe_served(comparison)], describe_tries(comparison)
    leading = [describe_recovery(comparison), *([tries, served] if served[0].startswith("Every ") else [served, tries])]
    if len({_format_recovery(result) for result in comparison.results}) == 1 < len(comparison.results):
        leading.append(leading.pop(0))  # what distinguishes the runs comes first
    return [
        *(sentence for sentences in leading for sentence in sentences),
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
    noun = f"{join_names([*nouns])}{'s' if len(faults) > 1 and len(nouns) == 1 else ''}"
    ordered = sorted(results, key=_rank_recovery)
    texts = [_format_recovery(result) for result in ordered]
    listed = _list_runs(comparison, ordered, texts, every=True)
    if len(listed) > MAX_LISTED_LENGTH:
        listed = _list_runs(comparison, ordered, texts)
    back = f"back {listed}"
    for first, words in (("back never", "never back"), ("back not by the end", "not back by the end")):
        back = back.replace(first, words)
    failure = ": a metastable failure" if ordered[-1].metastable else ""
    return [f"After the {noun}, goodput was {back}{failure}."]


def _rank_recovery(result: LoopResult) -> tuple[bool, bool, float]:
    """Return a key that sorts runs: the first to recover first, metastable failures last."""
    return result.metastable, result.recovery_time is None, result.recovery_time or 0


def _format_recovery(result: LoopResult) -> str:
    if result.recovery_time is None:
        return "never" if result.metastable else "not by the end"
    return f"after {format_seconds(result.recovery_time)}" if result.recovery_time else "at once"


def describe_served(comparison: LoopComparison) -> str:
    """Describe how many requests were served; the algorithm that served most first."""
    ordered = sorted(comparison.results, key=lambda result: -result.successes)
    first = ordered[0]
    if len(ordered) == 1:
        part = format_part(first.successes, first.first_tries, "request")
        verb = "was" if part.startswith("the only") else "were"
        return f"{part[:1].upper()}{part[1:]} {verb} served, {format_per_second(first.goodput)} on average."
    same, offered = comparison.has_same_requests, first.first_tries
    if not same and all(result.successes == result.first_tries for result in ordered):
        return f"Every {name_rows(comparison)} served all of its requests."
    shares = [format_percent(result.successes / max(1, offered)) for result in ordered]
    served = [f"{result.successes:,} ({share})" for result, share in zip(ordered, shares, strict=True)]
    rates = [format_per_second(result.goodput) for result in ordered]
    labels = [result.label for result in ordered]
    (most, names), *others = _group(labels, served if same else rates)
    if not others:
        part = format_part(first.successes, offered, "request") if same else most
        return f"Every {name_rows(comparison)} served {part}."
    if same and len(ordered) > MAX_NAMED_RUNS and not _is_named_by_variant(ordered):
        return _describe_ends(comparison.results)
    whole = f"Of {pluralize(offered, 'request')}, " if same else ""
    if _is_named_by_variant(ordered):
        numbers = [format_factor(result.goodput) for result in ordered]
        unit = " were served" if same else " requests a second were served"
        return f"{whole}{_list_runs(comparison, ordered, shares if same else numbers, unit, other='only ')}."
    fewest, last = others[-1]
    superlative = ("the fewest, " if same else "the least, ") if len(others) > 1 else ""
    return f"{whole}{names} served {most}, {last} {superlative}{fewest}."


def _describe_ends(results: Sequence[LoopResult]) -> str:
    """Name the run that served most, of equals that with the fewest tries, and the run that served least."""
    ranked = sorted(results, key=lambda result: (-result.successes, result.attempts))
    clauses = [
        f"{result.label} served {rank}, {format_part(result.successes, result.first_tries, 'request')}, "
        f"in {format_factor(result.amplification)} tries each"
        for result, rank in ((ranked[0], "most"), (ranked[-1], "least"))
    ]
    return f"{'; '.join(clauses)}."


def describe_tries(comparison: LoopComparison) -> list[str]:
    """Describe the tries of a request and the requests that clients gave up; nothing if no client tried again."""
    results = comparison.results
    if all(result.attempts <= result.first_tries and not result.gave_up for result in results):
        return []
    ordered = sorted(results, key=lambda result: result.amplification)
    took = _list_runs(comparison, ordered, [format_tries(result.amplification) for result in ordered])
    ordered = sorted(results, key=lambda result: result.gave_up / max(1, result.first_tries))
    if not ordered[-1].gave_up:
        return [f"On average, a request took {took}; clients gave up no request."]
    shares = [format_percent(result.gave_up / result.first_tries) if result.gave_up else "none" for result in ordered]
    gave_up = _list_runs(comparison, ordered, shares, " of the requests")
    return [f"On average, a request took {took}; clients gave up {gave_up}."]


def format_tries(number: float) -> str:
    """Format a mean number of tries: `1 try`, `1.62 tries`."""
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
    return [f"99 % of the successes came {_list_runs(comparison, ordered, texts)}."]


def _describe_wasted(comparison: LoopComparison) -> list[str]:
    wasteful = [result for result in comparison.results if result.wasted]
    if not wasteful:
        return []
    ordered = sorted(wasteful, key=lambda result: result.wasted / result.attempts)
    shares = [format_percent(result.wasted / result.attempts) for result in ordered]
    listed = _list_runs(comparison, ordered, shares, " of the tries")
    return [f"{listed} were served after the caller had left."]


def _describe_herds(comparison: LoopComparison) -> list[str]:
    """Describe the herds that retries formed."""
    herds = [(result, result.herd_peak) for result in comparison.results if has_herd(result)]
    if not herds:
        return []
    ordered = sorted((result for result, _ in herds), key=lambda result: result.herd_peak or 0)
    peaks = [f"{format_factor(result.herd_peak or 0)} times their mean" for result in ordered]
    listed = _list_runs(comparison, ordered, peaks)
    return [f"Retries came in herds: within 100 ms, tries rose to {listed}."]


def _describe_quota(comparison: LoopComparison) -> list[str]:
    peaks = [(result.label, result.peak_in_window) for result in comparison.results]
    known = [(name, peak) for name, peak in peaks if peak is not None]
    if len(comparison.quotas) != 1 or len(known) < len(peaks):
        return []
    (quota,) = comparison.quotas
    if not _is_named_by_variant(comparison.results):
        return [describe_peaks(quota, known)]
    peak, window = max(peak for _, peak in known), about(quota.window)
    place = "above" if peak > quota.burst else "within"
    return [f"At most {peak:,} were let through in any window of {window}, {place} the quota of {quota.burst:,}."]


def _list_runs(
    comparison: LoopComparison,
    results: Sequence[LoopResult],
    texts: Sequence[str],
    unit: str = "",
    every: bool = False,
    other: str = "up to ",
) -> str:
    """List texts with the runs that they are true of: of more than two texts, the first and the last unless `every`.

    `other` is a word before the last.
    """
    (first, names), *others = _group([result.label for result in results], texts)
    whole = comparison.results
    if not others and len(results) == len(whole):
        noun = name_rows(comparison)
        place = f" {'under' if noun == 'algorithm' else 'in'} every {noun}"
        return f"{first}{unit}{place if len(whole) > 1 else ''}"
    listed = [f"{first}{unit}{_attribute(whole, names)}"]
    if len(others) > 1 and not every:
        text, names = others[-1]
        return f"{listed[0]}, and {other if text[0].isdigit() else ''}{text}{_attribute(whole, names)}"
    listed += [f"{text}{_attribute(whole, names)}" for text, names in others]
    return f"{', '.join(listed[:-1])}, and {listed[-1]}" if others else listed[0]


def _attribute(results: Sequence[LoopResult], names: str) -> str:
    """Return the names of runs as words after a value that is true of them."""
    return f" ({names})" if _is_named_by_variant(results) else f" under {names}"


def _is_named_by_variant(results: Sequence[LoopResult]) -> bool:
    """Return whether rows have the names of variants alone, which may be any words."""
    return results[0].label == results[0].variant


def _group(names: Sequence[str], texts: Sequence[str]) -> list[tuple[str, str]]:
    """Return each text with the joined names of the runs or variants that it is true of."""
    pairs = list(zip(names, texts, strict=True))
    return [(text, join_names([name for name, other in pairs if other == text])) for text in dict.fromkeys(texts)]
