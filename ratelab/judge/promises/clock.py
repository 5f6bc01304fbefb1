"""Promise `clock`: a clock set back locks no client out for longer than the quota allows, and grants no extra quota.

The wall clock is set back by half a period, an hour or a day, as an administrator or NTP does; monotonic clocks go on.
After six such steps a fifth of a second apart, a client that hits throughout has got no more than its bound, in time
that has really passed, unless it gets as much without the steps. An exhausted client that hits once in each period
after a single step is admitted within four periods.
"""

from __future__ import annotations

from ratelab.judge.candidate import Allotment
from ratelab.judge.timeline import TimelineStep, shrink
from ratelab.judge.trial import DAY_NS, Bench, PromiseReport, Trial, find_excess, make_bound
from ratelab.quota import NS_PER_S

CLOCK_ALLOTMENT = Allotment(5, 10, 5)

PERIOD_NS = CLOCK_ALLOTMENT.period * NS_PER_S

STEPS_BACK_NS = (PERIOD_NS // 2, 3600 * NS_PER_S, DAY_NS)

PHASES_NS = (NS_PER_S // 2, 7 * NS_PER_S)

STEP_PAUSE_NS = NS_PER_S // 5

MAX_LOCKOUT_NS = 4 * PERIOD_NS


def check(bench: Bench) -> PromiseReport:
    """Set the clock back while a client is denied."""
    locked_out = 0
    for back in STEPS_BACK_NS:
        for phase in PHASES_NS:
            steps = [TimelineStep(0, CLOCK_ALLOTMENT.limit + 1)]
            steps += [TimelineStep(k * STEP_PAUSE_NS, CLOCK_ALLOTMENT.limit + 1, back_ns=back) for k in range(1, 7)]
            if _grants(bench, steps, phase):
                return _report_grant(bench, steps, phase)
            trial, waited = _wait_after_step(bench, back, phase)
            locked_out = max(locked_out, waited)
            if waited > MAX_LOCKOUT_NS:
                reason = f"an exhausted client was denied for {waited / NS_PER_S:g} s after the clock was set back"
                figures = {**CLOCK_ALLOTMENT._asdict(), "back": back / NS_PER_S, "locked_out": waited / NS_PER_S}
                return PromiseReport(False, figures, trial.rows, reason, needs_time=bool(trial.admissions()))
    return PromiseReport(True, {"extra": 0, "locked_out": locked_out / NS_PER_S})


def _grants(bench: Bench, steps: list[TimelineStep], phase: int) -> bool:
    """Return whether the steps back grant more than the bound, and more than the same hits get without them."""
    admitted = bench.play(CLOCK_ALLOTMENT, steps, phase).admissions()
    if not find_excess(admitted, make_bound(bench.candidate, CLOCK_ALLOTMENT)).is_above:
        return False
    usual = bench.play(CLOCK_ALLOTMENT, [step._replace(back_ns=0) for step in steps], phase).admissions()
    return len(admitted) > len(usual)


def _report_grant(bench: Bench, steps: list[TimelineStep], phase: int) -> PromiseReport:
    short = shrink(steps, lambda steps: _grants(bench, steps, phase))
    trial = bench.play(CLOCK_ALLOTMENT, short, phase)
    found = find_excess(trial.admissions(), make_bound(bench.candidate, CLOCK_ALLOTMENT))
    reason = f"granted {found.admitted} in {found.window_ns / NS_PER_S:g} s while the clock was set back"
    return PromiseReport(False, {**CLOCK_ALLOTMENT._asdict(), **found.figures}, trial.rows, reason)


def _wait_after_step(bench: Bench, back: int, phase: int) -> tuple[Trial, int]:
    """Exhaust a client, set the clock back, and hit once in each period; return how long the client is denied."""
    trial = bench.start(CLOCK_ALLOTMENT, phase)
    trial.hit_until_denied(3 * CLOCK_ALLOTMENT.limit)
    trial.set_back(back)
    start, waited = trial.now_ns, 0
    while waited <= MAX_LOCKOUT_NS:
        waited += PERIOD_NS
        trial.move_to(start + waited)
        hit = trial.hit()
        if hit.allowed:
            return trial, max(waited, hit.done_ns - start)
    return trial, waited
