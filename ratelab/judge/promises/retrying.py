"""Promise `retrying`: a client that keeps retrying gets in again.

A client uses up its quota and then hits again and again, at a third, nine tenths or a tenth of `period / limit`. It is
admitted within two periods and a second, and again within that time after each admission: a denied request is free.
"""

from __future__ import annotations

from ratelab.judge.candidate import Allotment
from ratelab.judge.trial import Bench, PromiseReport, Trial
from ratelab.quota import NS_PER_S

RETRYING_ALLOTMENTS = (Allotment(5, 10, 5), Allotment(12, 60, 12))

PACES = ((1, 3), (9, 10), (1, 10))
"""Parts of `period / limit` between two hits."""

PERIODS = 6


def check(bench: Bench) -> PromiseReport:
    """Exhaust a client, retry at several paces, and measure how long the client stays denied."""
    longest = 0
    for allotment in RETRYING_ALLOTMENTS:
        latest = 2 * allotment.period * NS_PER_S + NS_PER_S
        for numerator, denominator in PACES:
            trial = bench.start(allotment, NS_PER_S // 3)
            if trial.hit_until_denied(3 * allotment.limit + 2) is None:
                continue  # it lets requests wait
            gap = allotment.period * NS_PER_S * numerator // (allotment.limit * denominator)
            denied = _retry(trial, gap, PERIODS * allotment.period * NS_PER_S, latest)
            longest = max(longest, denied)
            if denied > latest:
                figures = {**allotment._asdict(), "every": gap / NS_PER_S, "denied_for": denied / NS_PER_S}
                reason = f"denied a client that retried every {gap / NS_PER_S:g} s for {denied / NS_PER_S:g} s"
                return PromiseReport(False, figures, trial.rows, reason, needs_time=bool(trial.admissions()))
    return PromiseReport(True, {"denied_for": longest / NS_PER_S})


def _retry(trial: Trial, gap: int, duration: int, latest: int) -> int:
    """Hit every `gap` nanoseconds; return the longest time without an admission, or the first beyond `latest`."""
    end, longest = trial.now_ns + duration, 0
    since = trial.now_ns
    while trial.now_ns < end:
        trial.move_to(trial.now_ns + gap)
        hit = trial.hit()
        longest = max(longest, trial.now_ns - since)
        if hit.allowed:
            since = trial.now_ns
        elif longest > latest:
            break
    return longest
