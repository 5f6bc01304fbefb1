"""Verdicts on closed loops in words and as JSON: faults with their evidence, and the changes that help."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ratelab.lab.closed_loop.figures import LoopResult
from ratelab.lab.closed_loop.verdict import MEASURES, LoopVerdict, TriedChange
from ratelab.report.loops import LOOP_FIGURES
from ratelab.report.numbers import (
    format_factor,
    format_per_second,
    format_percent,
    format_seconds,
    join_names,
    pluralize,
    wrap_text,
)
from ratelab.report.tables import FORMATTERS

MAX_PRINTED_CHANGES = 3
"""Changes of a row that a terminal shows; pages and JSON have all."""

MAX_LISTED_ROWS = 5
"""Rows without a fault that are named; more are counted."""


class VerdictText(NamedTuple):
    """A verdict in words."""

    label: str
    """The name of the row; empty if there is a single one, and for rows without a fault."""
    faults: list[str]
    """A sentence for each fault, with its evidence."""
    changes: list[str]
    """The changes that help, the best first."""
    note: str = ""
    """Changes that were not tried, or that none helps."""


def describe_verdicts(verdicts: Sequence[LoopVerdict]) -> list[VerdictText]:
    """Describe the verdict of each row with a fault, and then the rows without one."""
    faulty = [verdict for verdict in verdicts if verdict.diagnoses]
    texts = [_describe(verdict, verdict.result.label if len(verdicts) > 1 else "") for verdict in faulty]
    healthy = [verdict.result.label for verdict in verdicts if not verdict.diagnoses]
    if not healthy:
        return texts
    names = join_names(healthy) if len(healthy) <= MAX_LISTED_ROWS else f"{len(healthy):,} others"
    rows = f" ({names})" if texts else ""
    return [*texts, VerdictText("", [f"No fault was found{rows}."], [])]


def _describe(verdict: LoopVerdict, label: str) -> VerdictText:
    faults = [FAULTS[diagnosis.name].describe(diagnosis.evidence) for diagnosis in verdict.diagnoses]
    changes = [describe_trial(verdict, trial) for trial in verdict.trials]
    left_out = verdict.left_out
    tried = f"of {pluralize(verdict.tried, 'change')} that were tried" if verdict.tried > 1 else "of one change tried"
    notes = [f"None {tried} helps."] if verdict.tried and not changes else []
    if left_out:
        were = "was" if left_out == 1 else "were"
        if verdict.tried:
            notes.append(f"{pluralize(left_out, 'further change')} {were} not tried, to bound the work.")
        else:
            notes.append(
                f"{pluralize(left_out, 'change')} that may help {were} not tried, to bound the work: "
                "shorten the duration, or have fewer clients or variants."
            )
    if not verdict.tried and not left_out:
        notes.append("No change is known that applies.")
    return VerdictText(label, faults, changes, " ".join(notes))


def describe_trial(verdict: LoopVerdict, trial: TriedChange) -> str:
    """Describe the gain of a change: `with full jitter: goodput 61 % to 97 %, no retry storm`."""
    before, after = verdict.result, trial.result
    if before.first_tries == after.first_tries:
        goodput = [format_percent(result.goodput_ratio) for result in (before, after)]
    else:
        goodput = [format_per_second(result.goodput) for result in (before, after)]
    gained = f"goodput {' to '.join(goodput)}" if goodput[0] != goodput[1] else f"goodput still {goodput[0]}"
    eased = [_describe_easing(MEASURES[name], before, after) for name in trial.eased]
    cured = [f"no {FAULTS[name].noun.removeprefix('a ')}" for name in trial.cured]
    brought = [f"but {FAULTS[name].noun}" for name in trial.brought]
    return ", ".join([f"with {trial.change}: {gained}", *eased, *cured, *brought])


def _describe_easing(name: str, before: LoopResult, after: LoopResult) -> str:
    """Describe how a measure fell: `denied 400 to 150`."""
    format_value = FORMATTERS[LOOP_FIGURES[name].unit]
    values = (format_value(getattr(result, name)) for result in (before, after))
    return f"{LOOP_FIGURES[name].header} {' to '.join(values)}"


def list_lines(text: VerdictText, width: int) -> Iterator[str]:
    """Yield the lines of a verdict for a terminal, with the changes as items of a list."""
    indent = "  " if text.label else ""
    if text.label:
        yield from wrap_text(f"{text.label}:", width)
    rest = len(text.changes) - MAX_PRINTED_CHANGES
    more = [f"{pluralize(rest, 'further change')} {'helps' if rest == 1 else 'help'}, too."] if rest > 0 else []
    for fault in text.faults:
        yield from (f"{indent}{line}" for line in wrap_text(fault, width - len(indent)))
    for change in [*text.changes[:MAX_PRINTED_CHANGES], *more, *([text.note] if text.note else [])]:
        first, *others = wrap_text(change, width - len(indent) - 2)
        yield f"{indent}- {first}"
        yield from (f"{indent}  {line}" for line in others)


def serialize_verdict(verdict: LoopVerdict) -> dict[str, Any]:
    """Return a verdict for JSON; `tried` and `left_out` count changes."""
    return {
        "healthy": not verdict.diagnoses,
        "diagnoses": [{"name": each.name, "evidence": each.evidence} for each in verdict.diagnoses],
        "changes": [_serialize_trial(verdict, trial) for trial in verdict.trials],
        "tried": verdict.tried,
        "left_out": verdict.left_out,
    }


def _serialize_trial(verdict: LoopVerdict, trial: TriedChange) -> dict[str, Any]:
    names = ("goodput", "goodput_ratio", "amplification", "denied", "herd_peak", "wasted", "fairness")
    return {
        "change": trial.change,
        "cured": list(trial.cured),
        "eased": list(trial.eased),
        "brought": list(trial.brought),
        "before": {name: getattr(verdict.result, name) for name in names},
        "after": {name: getattr(trial.result, name) for name in names},
    }


# --- faults


Evidence = Mapping[str, float]


class FaultWords(NamedTuple):
    """A fault in words."""

    noun: str
    """With its article."""
    describe: Callable[[Evidence], str]


def _describe_overload(evidence: Evidence) -> str:
    demand, capacity = format_per_second(evidence["first_tries_per_s"]), format_per_second(evidence["capacity_per_s"])
    return (
        f"Overload without shedding: {demand} for a server that can serve {capacity} and rejects none; "
        f"{format_percent(evidence['goodput_ratio'])} of the requests were served in time."
    )


def _describe_metastable_failure(evidence: Evidence) -> str:
    return (
        f"Metastable failure: goodput was {format_per_second(evidence['goodput_before'])} before the fault, and "
        f"{format_per_second(evidence['goodput_late'])} in the last quarter of the "
        f"{format_seconds(evidence['seconds_after'])} after it."
    )


def _describe_storm(evidence: Evidence) -> str:
    served = format_per_second(evidence["goodput"]) if evidence["goodput"] else "none"
    begin = format_seconds(evidence["begin"]) if evidence["begin"] else "the start"
    return (
        f"Retry storm: from {begin} on, {format_per_second(evidence['first_tries_per_s'])} "
        f"first tries became {format_per_second(evidence['tries_per_s'])} tries for "
        f"{format_seconds(evidence['seconds'])}, and {served} succeeded."
    )


def _describe_dead_requests(evidence: Evidence) -> str:
    return (
        f"Queue of dead requests: the server worked for {evidence['wasted']:,} tries whose callers had left, "
        f"{format_percent(evidence['wasted_ratio'])} of those that it served."
    )


def _describe_herd(evidence: Evidence) -> str:
    return (
        f"Herd: within 100 ms, tries rose to {format_factor(evidence['herd_peak'])} times their mean, "
        f"first tries only to {format_factor(evidence['herd_peak_of_first_tries'])} times."
    )


def _describe_starvation(evidence: Evidence) -> str:
    return (
        f"Starvation: {pluralize(int(evidence['clients']), 'client')} got "
        f"{format_percent(evidence['goodput_ratio'])} of their requests served, "
        f"{pluralize(int(evidence['others']), 'other')} {format_percent(evidence['goodput_ratio_of_others'])} "
        f"with {format_percent(evidence['tries_of_others'])} of the tries."
    )


def _describe_tight_limit(evidence: Evidence) -> str:
    return (
        f"Limit too tight for honest clients: {pluralize(int(evidence['keys']), 'key')} asked for at most "
        f"{format_per_second(evidence['demand_per_s'])} on average, within the "
        f"{format_per_second(evidence['granted_per_s'])} granted, yet "
        f"{format_percent(evidence['denied_ratio'])} of the tries were denied."
    )


FAULTS = {
    "overload-without-shedding": FaultWords("overload", _describe_overload),
    "metastable-failure": FaultWords("a metastable failure", _describe_metastable_failure),
    "retry-storm": FaultWords("a retry storm", _describe_storm),
    "dead-requests": FaultWords("a queue of dead requests", _describe_dead_requests),
    "herd": FaultWords("a herd", _describe_herd),
    "starvation": FaultWords("starvation", _describe_starvation),
    "tight-limit": FaultWords("denial of honest clients", _describe_tight_limit),
}
"""The faults by their names in JSON."""
