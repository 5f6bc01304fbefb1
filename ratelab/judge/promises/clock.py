"""Promise `clock`: a clock set back locks no client out for longer than the quota allows, and grants no extra quota.

The wall clock is set back by half a period, an hour or a day, as an administrator or NTP does; monotonic clocks go on.
After six such steps a fifth of a second apart, a client that hits throughout has got no more than its bound, in time
that has really passed. An exhausted client that waits for four periods after a single step is admitted.
"""

from __future__ import annotations

from ratelab.judge.candidate import Allotment
from ratelab.judge.fake_clock import NS_PER_S
from ratelab.judge.timeline import Step, shrink
from ratelab.judge.trial import DAY_NS, Bench, PromiseReport, Trial, find_excess, make_bound

ALLOTMENT = Allotment(5, 10, 5)

PERIOD_NS = ALLOTMENT.period * NS_PER_S

STEPS_BACK_NS = (PERIOD_NS // 2, 3600 * NS_PER_S, DAY_NS)

PHASES_NS = (NS_PER_S // 2, 7 * NS_PER_S)

PAUSE_NS = NS_PER_S // 5

MAX_LOCKOUT_NS = 4 * PERIOD_NS


def check(bench: Bench) -> PromiseReport:
    """Set the clock back while a client is denied."""
    locked_out = 0
    for back in STEPS_BACK_NS:
        for phase in PHASES_NS:
            steps = [Step(0, ALLOTMENT.limit + 1)]
            steps += [Step(k * PAUSE_NS, ALLOTMENT.limit + 1, back_ns=back) for k in range(1, 7)]
            if _grants(bench.play(ALLOTMENT, steps, phase)):
                return _report_grant(bench, steps, phase)
            trial, waited = _wait_after_step(bench, back, phase)
            locked_out = max(locked_out, waited)
            if waited > MAX_LOCKOUT_NS:
                reason = f"an exhausted client was denied for {waited / NS_PER_S:g} s after the clock was set back"
                figures = {**ALLOTMENT._asdict(), "back": back / NS_PER_S, "locked_out": waited / NS_PER_S}
                return PromiseReport(False, figures, trial.rows, reason, needs_time=True)
    return PromiseReport(True, {"extra": 0, "locked_out": locked_out / NS_PER_S})


def _grants(trial: Trial) -> bool:
    return find_excess(trial.admissions(), make_bound(trial.bench.candidate, ALLOTMENT)).is_above


def _report_grant(bench: Bench, steps: list[Step], phase: int) -> PromiseReport:
    short = shrink(steps, lambda steps: _grants(bench.play(ALLOTMENT, steps, phase)))
    trial = bench.play(ALLOTMENT, short, phase)
    found = find_excess(trial.admissions(), make_bound(bench.candidate, ALLOTMENT))
    reason = f"granted {found.admitted} in {found.window_ns / NS_PER_S:g} s while the clock was set back"
    return PromiseReport(False, {**ALLOTMENT._asdict(), **found.figures}, trial.rows, reason)


def _wait_after_step(bench: Bench, back: int, phase: int) -> tuple[Trial, int]:
    """Exhaust a client, set the clock back, and return how long the client is denied, up to twice the limit."""
    waits = [PERIOD_NS, 2 * PERIOD_NS, 3 * PERIOD_NS, MAX_LOCKOUT_NS]
    trial = bench.start(ALLOTMENT, phase)
    for wait in waits:  # a trial for each, as no hit of a client that waits may come before
        trial = bench.start(ALLOTMENT, phase)
        trial.hit_until_denied(3 * ALLOTMENT.limit)
        trial.set_back(back)
        at = trial.now_ns
        trial.move_to(at + wait)
        hit = trial.hit()
        if hit.allowed and hit.done_ns - hit.at_ns <= PERIOD_NS:
            return trial, wait
    return trial, min(back, 2 * MAX_LOCKOUT_NS) if back > MAX_LOCKOUT_NS else 2 * MAX_LOCKOUT_NS
