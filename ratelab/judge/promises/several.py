"""Promise `several`: two limits are charged both or neither.

A candidate offers several limits as `FACTORY.several([(limit, period, burst), ...])`, which returns `hit(key)`. A
client has a large limit, 6 in 600 s, and a small one, 2 in 10 s. It uses up the small one, is denied ten times, and
hits again after 21 s, when the small limit is restored: twice in each of three rounds, six requests in all. The large
limit must admit these six, as denied requests have not been charged to it, and no seventh at that instant.
Both orders of the limits are tried.
"""

from __future__ import annotations

from ratelab.judge.candidate import Allotment
from ratelab.judge.timeline import TimelineStep
from ratelab.judge.trial import Bench, PromiseReport, Trial
from ratelab.quota import NS_PER_S

LARGE, SMALL = Allotment(6, 600, 6), Allotment(2, 10, 2)

SEVERAL_ROUNDS = LARGE.limit // SMALL.limit

DENIED_HITS = 10

ROUND_PAUSE_NS = (2 * SMALL.period + 1) * NS_PER_S


def check(bench: Bench) -> PromiseReport:
    """Deny a client by one limit, and look whether the other one was charged."""
    if not hasattr(bench.candidate.factory, "several"):
        return PromiseReport(None, reason="offers no several limits together")
    for limits in ([LARGE, SMALL], [SMALL, LARGE]):
        trial = bench.start_with(lambda limits=limits: bench.candidate.create([*map(tuple, limits)], method="several"))  # type: ignore[misc]
        trial.play(TimelineStep(number * ROUND_PAUSE_NS, SMALL.limit + DENIED_HITS) for number in range(SEVERAL_ROUNDS))
        admitted = _count_admitted(trial)
        figures = {"limits": [each._asdict() for each in limits], "expected": LARGE.limit, "admitted": admitted}
        if admitted < LARGE.limit:
            reason = f"admitted {admitted} of {LARGE.limit}: requests that one limit denied were charged to the other"
            return PromiseReport(False, figures, trial.rows, reason)
        if admitted > LARGE.limit:
            reason = f"admitted {admitted}, more than both limits together allow"
            return PromiseReport(False, figures, trial.rows, reason)
    return PromiseReport(True, {"expected": LARGE.limit, "admitted": LARGE.limit})


def _count_admitted(trial: Trial) -> int:
    return sum(hit.allowed for hit in trial.hits)
