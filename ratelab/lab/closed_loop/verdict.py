"""Verdict on a closed loop: faults that its figures show, and changes that repair them, each tried by running it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ratelab.errors import InputError
from ratelab.lab.closed_loop.changes import Change, list_changes
from ratelab.lab.closed_loop.diagnoses import Diagnosis, diagnose
from ratelab.lab.closed_loop.figures import LoopResult, measure_loop
from ratelab.lab.closed_loop.outcome import NO_LIMIT, is_compiled, run_loop
from ratelab.lab.decisions import Progress

MAX_TRIAL_TRIES = 300_000
"""Tries of all changes that are tried for a comparison: some seconds of plain Python."""

COMPILED_TRIES = 10
"""Tries that compiled code makes in the time of one."""

MIN_CHANGES = 4
"""Changes that are tried for the rows that serve least, before others get a share."""

MAX_CHANGES = 12
"""Changes that are tried for a row."""

MIN_GAIN = 0.02
"""The least gain of goodput of a change that helps, relative to that before; also the largest loss of any other."""

EASED_RATIO = 0.5
"""The share of its measure to which a change must bring a fault to ease it."""

MEASURES = {"dead-requests": "wasted", "herd": "herd_peak", "tight-limit": "denied"}
"""The figures that measure faults."""

MAX_OVERSHOOT_RISE = 1.1
"""The factor by which a change may raise the overshoot above 1."""


class TriedChange(NamedTuple):
    """A change that helps."""

    change: str
    """In words, as after `with`."""
    result: LoopResult
    cured: tuple[str, ...]
    """The faults that it removes."""
    eased: tuple[str, ...]
    """Other faults, whose measure it brings to half or less."""
    brought: tuple[str, ...]
    """Faults that it brings; it removes more."""


@dataclass(frozen=True, eq=False)
class LoopVerdict:
    """Diagnoses of one row of a comparison, and the changes that help."""

    result: LoopResult
    diagnoses: tuple[Diagnosis, ...]
    """The most fundamental first; empty for a healthy run."""
    trials: tuple[TriedChange, ...] = ()
    """The best first."""
    tried: int = 0
    left_out: int = 0
    """Changes that were not tried, since they would have taken too many tries."""


def judge(
    results: Sequence[LoopResult], progress: Progress = lambda _: None, limit: int = MAX_TRIAL_TRIES
) -> tuple[LoopVerdict, ...]:
    """Return a verdict on each row; all changes together take about as long as `limit` tries in plain Python.

    Rows share them by size, but those that serve least come first. `progress` is called with the simulated
    nanoseconds that have passed since its last call.
    """
    verdicts = {number: LoopVerdict(result, diagnose(result)) for number, result in enumerate(results)}
    faulty = [number for number, verdict in verdicts.items() if verdict.diagnoses]
    faulty.sort(key=lambda number: results[number].goodput_ratio)
    expected = Counter[str]()
    for number in faulty:
        expected[results[number].algorithm] += _count_tries(results[number])
    rest = sum(expected.values())
    for number in faulty:
        tries = _count_tries(results[number])
        share = limit * tries // max(1, rest)
        verdicts[number], spent = _try_changes(verdicts[number], expected, progress, share, limit)
        limit, rest = limit - spent, rest - tries
    return tuple(verdicts[number] for number in range(len(results)))


def _count_tries(result: LoopResult) -> int:
    return result.attempts + result.locally_rejected


def _try_changes(
    verdict: LoopVerdict, expected: Mapping[str, int], progress: Progress, share: int, limit: int
) -> tuple[LoopVerdict, int]:
    """Run the population with each change, until the trials are likely to take longer than `share` tries.

    The first `MIN_CHANGES` may take up to `limit`. Return the verdict with the trials, and the tries that they took,
    as if in plain Python. A change that helps takes fewer tries than the run itself; half of them are assumed.
    """
    result, diagnoses = verdict.result, verdict.diagnoses
    names = [diagnosis.name for diagnosis in diagnoses]
    changes = list_changes(result.population, result.policy, names)[:MAX_CHANGES]
    likely = max(result.first_tries, _count_tries(result) // 2)
    spent, tried, trials = 0, 0, []
    for change in changes:
        tries = expected.get(NO_LIMIT if change.policy is None else change.policy.name, likely)
        factor = COMPILED_TRIES if is_compiled(tries) else 1
        if spent + likely // factor > (share if tried >= MIN_CHANGES else limit):
            break
        tried += 1
        changed = _run(change, progress, tries)
        if changed is None:
            continue
        spent += _count_tries(changed) // factor
        after = [diagnosis.name for diagnosis in diagnose(changed)]
        cured = tuple(name for name in names if name not in after)
        eased = tuple(name for name in after if name in names and _is_eased(name, result, changed))
        brought = tuple(name for name in after if name not in names)
        if _helps(result, changed, cured + eased) and (not brought or len(after) < len(names)):
            trials.append(TriedChange(change.name, changed, cured, eased, brought))
    trials.sort(key=lambda trial: _rank(result, trial))
    return LoopVerdict(result, diagnoses, tuple(trials), tried, len(changes) - tried), spent


def _run(change: Change, progress: Progress, expected_tries: int) -> LoopResult | None:
    """Return the figures with a change; None if it cannot run."""
    try:
        return measure_loop(run_loop(change.policy, change.population, progress, expected_tries))
    except InputError:
        return None


def _is_eased(name: str, before: LoopResult, after: LoopResult) -> bool:
    measure = MEASURES.get(name)
    if measure is None:
        return False
    was: float = getattr(before, measure)
    return bool(getattr(after, measure) <= EASED_RATIO * was)


def _helps(before: LoopResult, after: LoopResult, better: Sequence[str]) -> bool:
    """Return whether a change raises goodput, or makes faults better without lowering it, and keeps to the quota."""
    if before.overshoot is not None and (after.overshoot or 0) > MAX_OVERSHOOT_RISE * max(1, before.overshoot):
        return False
    if after.goodput >= (1 + MIN_GAIN) * before.goodput and after.successes > before.successes:
        return True
    return bool(better) and after.goodput >= (1 - MIN_GAIN) * before.goodput


def _rank(before: LoopResult, trial: TriedChange) -> tuple[int, int, float]:
    """Return a key that sorts changes: most goodput first, in steps of `MIN_GAIN`, then most faults removed."""
    step = MIN_GAIN * max(before.goodput, 1e-9)
    return -round(trial.result.goodput / step), -len(trial.cured), trial.result.amplification
