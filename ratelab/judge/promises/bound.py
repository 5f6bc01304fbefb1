"""Promise `bound`: no window admits more than the candidate's own bound.

In a window of any length, from one admission to another, a client gets at most `burst + limit * ceil(window / period)`
requests, or what the candidate declares as `FACTORY.bound(limit, period, burst, window)`. A token bucket, a fixed
window, a log and a counter all stay within that. At one instant, it is `burst`.
"""

from __future__ import annotations

from collections.abc import Iterator
from random import Random

from ratelab.judge.candidate import Allotment
from ratelab.judge.timeline import TimelineStep, shrink
from ratelab.judge.trial import Bench, PromiseReport, find_excess, make_bound
from ratelab.quota import NS_PER_S

BOUND_ALLOTMENTS = (Allotment(5, 10, 5), Allotment(10, 1, 10), Allotment(3, 60, 3))

_MS = NS_PER_S // 1000

RANDOM_TIMELINES = 6
RANDOM_STEPS = 25


def check(bench: Bench) -> PromiseReport:
    """Send bursts around the edges of windows, steady and random requests, and look at every window."""
    worst, requests = None, 0
    for allotment in BOUND_ALLOTMENTS:
        bound = make_bound(bench.candidate, allotment)

        def exceeds(steps: list[TimelineStep], allotment: Allotment = allotment, phase: int = 0) -> bool:
            trial = bench.play(allotment, steps, phase)
            return find_excess(trial.admissions(), make_bound(bench.candidate, allotment)).is_above

        for phase, steps in _list_timelines(allotment):
            trial = bench.play(allotment, steps, phase)
            requests += len(trial.hits)
            found = find_excess(trial.admissions(), bound)
            if worst is None or found.rank > worst.rank:
                worst = found
            if found.is_above:
                short = shrink(steps, lambda steps, fails=exceeds, phase=phase: fails(steps, phase=phase))  # type: ignore[misc]
                trial = bench.play(allotment, short, phase)
                found = find_excess(trial.admissions(), bound)
                window = f"{found.window_ns / NS_PER_S:g} s" if found.window_ns else "one instant"
                reason = f"admitted {found.admitted} in {window}, at most {found.bound:g} are its bound"
                figures = {**allotment._asdict(), **found.figures}
                return PromiseReport(False, figures, trial.rows, reason)
    assert worst is not None  # noqa: S101  (there are timelines)
    return PromiseReport(True, {"requests": requests, **worst.figures})


def _list_timelines(allotment: Allotment) -> Iterator[tuple[int, list[TimelineStep]]]:
    """Yield timelines, each with the phase of its start."""
    limit, period = allotment.limit, allotment.period * NS_PER_S
    many = limit + 2
    yield 0, [TimelineStep(0, many)]
    for phase in (0, period // 3):
        edges = sorted({0, *(k * period + d - p for k in range(1, 5) for d in (-_MS, 0) for p in (0, phase))})
        yield phase, [TimelineStep(at, many) for at in edges]
    yield period // 7, [TimelineStep(k * period // 2, many) for k in range(9)]
    yield 0, [TimelineStep(0, many), TimelineStep(20 * period, 2 * limit + 2), TimelineStep(20 * period + _MS, many)]
    yield 0, [TimelineStep(k * period // (4 * limit)) for k in range(5 * 4 * limit)]
    random = Random(allotment.period)
    for _ in range(RANDOM_TIMELINES):
        times = sorted(random.randrange(4 * period) for _ in range(RANDOM_STEPS))
        yield random.randrange(period), [TimelineStep(at, random.randint(1, limit)) for at in times]
