"""Promise `wait`: the announced wait suffices, and is tight.

A client that is denied, waits `retry_after` seconds and half a millisecond, and hits again is admitted; on a store, it
waits a millisecond longer, as keys of Redis live that much longer than `PTTL` says. The announced
wait exceeds the shortest wait after which the client would have been admitted by at most one second, as if it were
rounded up to whole seconds, or by one percent of the period if that is more. The promise does not apply to a candidate
that announces no wait, or denies nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil, inf
from random import Random

from ratelab.judge.candidate import Allotment
from ratelab.judge.timeline import TimedHit, TimelineStep, shrink
from ratelab.judge.trial import Bench, PromiseReport, Trial
from ratelab.quota import NS_PER_S

WAIT_ALLOTMENTS = (Allotment(5, 10, 5), Allotment(5, 100, 5), Allotment(10, 1, 10), Allotment(1, 60, 1))

HISTORIES = 6
"""Random histories before a denial, for each of the allotments."""

MAX_PERIODS = 20
"""A longer wait is too long."""

Case = tuple[Allotment, int]
"""The quota, and the phase of the start."""


def check(bench: Bench) -> PromiseReport:
    """Deny a client after random histories, and hit again after the announced wait, and before."""
    denials, longest_excess = 0, 0.0
    for allotment in WAIT_ALLOTMENTS:
        random = Random(allotment.period)
        for _ in range(HISTORIES):
            case, history = (allotment, random.randrange(allotment.period * NS_PER_S)), _draw_history(allotment, random)
            trial, denial = _deny(bench, case, history)
            if denial is None or denial.retry_after is None:
                continue
            denials += 1
            if not _suffices(trial, denial):
                return _report(bench, case, history, _is_short)
            if not _is_tight(bench, case, history, denial.retry_after):
                return _report(bench, case, history, _is_long)
            longest_excess = max(longest_excess, _measure_excess(bench, case, history, denial.retry_after))
    if not denials:
        return PromiseReport(None, reason="announces no wait")
    return PromiseReport(True, {"denials": denials, "excess": longest_excess})


def _allowance_ns(allotment: Allotment) -> int:
    return max(NS_PER_S, allotment.period * NS_PER_S // 100)


def _draw_history(allotment: Allotment, random: Random) -> list[TimelineStep]:
    """Return a few admitted requests, and at the end the time of the burst that leads to a denial."""
    period = allotment.period * NS_PER_S
    times = sorted(random.randrange(2 * period) for _ in range(random.randrange(4)))
    return [*(TimelineStep(at) for at in times), TimelineStep(2 * period, 0)]


def _deny(bench: Bench, case: Case, history: Sequence[TimelineStep]) -> tuple[Trial, TimedHit | None]:
    """Play a history, then hit until the client is denied for the first time."""
    allotment, phase = case
    trial = bench.start(allotment, phase)
    for step in history:
        trial.play([step])
        if trial.hits and not trial.hits[-1].allowed:
            return trial, trial.hits[-1]
    return trial, trial.hit_until_denied(3 * allotment.limit + 2)


def _suffices(trial: Trial, denial: TimedHit) -> bool:
    """Wait as announced, and hit again; a wait that is too long to be tried suffices."""
    assert denial.retry_after is not None  # noqa: S101  (the caller has looked)
    if denial.retry_after > 10**6:
        return True
    trial.move_to(denial.done_ns + ceil(max(0, denial.retry_after) * NS_PER_S) + trial.bench.tolerance_ns)
    return trial.hit().allowed


def _hit_early(bench: Bench, case: Case, history: Sequence[TimelineStep], wait_ns: int) -> Trial:
    """Play the history up to the denial in a new trial, and hit again after `wait_ns`."""
    trial, denial = _deny(bench, case, history)
    if denial is not None:
        trial.move_to(denial.done_ns + wait_ns)
        trial.hit()
    return trial


def _is_tight(bench: Bench, case: Case, history: Sequence[TimelineStep], announced: float) -> bool:
    allotment, _ = case
    if announced > MAX_PERIODS * allotment.period:
        return False
    early = int(announced * NS_PER_S) - _allowance_ns(allotment) - bench.tolerance_ns
    return early <= 0 or not _hit_early(bench, case, history, early).hits[-1].allowed


def _measure_excess(bench: Bench, case: Case, history: Sequence[TimelineStep], announced: float) -> float:
    """Return by how many seconds the announced wait exceeds the shortest one, to a millisecond."""
    high = ceil(max(0, announced) * NS_PER_S) + bench.tolerance_ns
    low = max(0, high - _allowance_ns(case[0]) - 2 * bench.tolerance_ns)
    if low == 0 and _hit_early(bench, case, history, 0).hits[-1].allowed:
        return announced
    while high - low > bench.tolerance_ns:
        middle = (low + high) // 2
        if _hit_early(bench, case, history, middle).hits[-1].allowed:
            high = middle
        else:
            low = middle
    return max(0.0, round(announced - high / NS_PER_S, 3))


def _find_shortest(bench: Bench, case: Case, history: Sequence[TimelineStep], longest_ns: int) -> int | None:
    """Return the shortest wait after which the client is admitted, to a millisecond; None if it is longer."""
    if not _hit_early(bench, case, history, longest_ns).hits[-1].allowed:
        return None
    low, high = 0, longest_ns
    while high - low > NS_PER_S // 1000:
        middle = (low + high) // 2
        if _hit_early(bench, case, history, middle).hits[-1].allowed:
            high = middle
        else:
            low = middle
    return high


def _is_short(bench: Bench, case: Case, history: Sequence[TimelineStep]) -> bool:
    trial, denial = _deny(bench, case, history)
    return denial is not None and denial.retry_after is not None and not _suffices(trial, denial)


def _is_long(bench: Bench, case: Case, history: Sequence[TimelineStep]) -> bool:
    _, denial = _deny(bench, case, history)
    return (
        denial is not None
        and denial.retry_after is not None
        and not _is_tight(bench, case, history, denial.retry_after)
    )


def _report(bench: Bench, case: Case, history: list[TimelineStep], fails: object) -> PromiseReport:
    assert callable(fails)  # noqa: S101  (one of the two above)
    short = shrink(history, lambda steps: bool(fails(bench, case, steps)))
    allotment, _ = case
    _, denial = _deny(bench, case, short)
    assert denial is not None  # noqa: S101  (the timeline fails)
    assert denial.retry_after is not None  # noqa: S101
    announced = denial.retry_after
    longest = MAX_PERIODS * allotment.period * NS_PER_S
    shortest_ns = _find_shortest(bench, case, short, longest)
    shortest = None if shortest_ns is None else round(shortest_ns / NS_PER_S, 3)
    figures = {**allotment._asdict(), "announced": None if announced == inf else announced, "shortest": shortest}
    if fails is _is_short:
        trial, denial = _deny(bench, case, short)
        assert denial is not None  # noqa: S101
        _suffices(trial, denial)
        needed = f"{shortest:g} s are needed" if shortest is not None else f"{longest // NS_PER_S} s are not enough"
        reason = f"announced a wait of {announced:g} s, but {needed}"
    else:
        wait_ns = longest if shortest_ns is None else shortest_ns
        trial = _hit_early(bench, case, short, wait_ns)
        reason = f"announced a wait of {announced:g} s, although {wait_ns / NS_PER_S:g} s are enough"
    return PromiseReport(False, figures, trial.rows, reason, needs_time=bool(trial.admissions()))
