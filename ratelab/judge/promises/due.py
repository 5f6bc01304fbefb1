"""Promise `due`: the quota that is due is granted.

A new client gets `burst` requests at once, even after 29 other clients did, and so does one that has been idle for two
periods and a second. A client that uses at most seven tenths of the limit is never denied: small bursts, and between
them a request every 1.9 or 2 parts of `period / limit`. The clients of this promise send nothing that a token bucket,
an aligned window, a log or a counter of two windows may deny. A limiter that lets requests wait may delay them by two
periods at most.
"""

from __future__ import annotations

from ratelab.judge.candidate import Allotment
from ratelab.judge.timeline import CLIENT, TimelineStep, shrink
from ratelab.judge.trial import DAY_NS, Bench, PromiseReport, Trial
from ratelab.quota import NS_PER_S

DUE_ALLOTMENTS = (Allotment(20, 20, 20), Allotment(30, 60, 30), Allotment(12, 100, 12))

DUE_ROUNDS = 8

CLIENTS = (CLIENT, *(f"client-{number}" for number in range(1, 30)))

SPACINGS = (19, 20)
"""Tenths of `period / limit` between two requests."""

_PHASE_NS = 1_234_567_891


def check(bench: Bench) -> PromiseReport:
    """Send requests that every algorithm must admit."""
    requests = 0
    for allotment in DUE_ALLOTMENTS:
        idle = 2 * allotment.period * NS_PER_S + NS_PER_S
        bursts = [TimelineStep(k * idle, allotment.burst) for k in range(3)]
        clients = [TimelineStep(0, allotment.burst, key) for key in CLIENTS]
        for phase, steps in [
            (0, bursts),
            (0, clients),
            *((_PHASE_NS, _plan_steady(allotment, spacing)) for spacing in SPACINGS),
        ]:
            trial = bench.play(allotment, steps, phase)
            requests += len(trial.hits)
            if not _is_granted(trial, allotment):
                return _report_denial(bench, allotment, steps, trial)
    return PromiseReport(True, {"requests": requests, "granted": requests})


def _plan_steady(allotment: Allotment, spacing: int) -> list[TimelineStep]:
    """Return evenly spaced requests, of which one in two periods is a burst of three tenths of the limit."""
    limit, period = allotment.limit, allotment.period * NS_PER_S
    gap = spacing * period // (10 * limit)
    per_round = 2 * period // gap
    return [TimelineStep(k * gap, 3 * limit // 10 if k % per_round == 0 else 1) for k in range(DUE_ROUNDS * per_round)]


def _is_granted(trial: Trial, allotment: Allotment) -> bool:
    latest = 2 * allotment.period * NS_PER_S
    return all(hit.allowed and hit.done_ns - hit.at_ns <= latest for hit in trial.hits)


def _report_denial(bench: Bench, allotment: Allotment, steps: list[TimelineStep], played: Trial) -> PromiseReport:
    phase = played.start_ns % DAY_NS

    def fails(steps: list[TimelineStep]) -> bool:
        return not _is_granted(bench.play(allotment, steps, phase), allotment)

    first = next((hit.at_ns for hit in played.hits if not hit.allowed), steps[-1].at_ns)
    trial = bench.play(allotment, shrink([step for step in steps if step.at_ns <= first], fails), phase)
    granted = sum(hit.allowed for hit in played.hits)
    if _is_granted(trial, allotment):  # the denial depends on the names of the clients, which are new in each trial
        trial = played
    figures = {**allotment._asdict(), "requests": len(played.hits), "granted": granted}
    denied = next((hit for hit in trial.hits if not hit.allowed), None)
    if denied is None:
        reason = f"a request that was due waited for more than {2 * allotment.period} s"
    else:
        before = sum(hit.allowed for hit in trial.hits[: trial.hits.index(denied)] if hit.key == denied.key)
        after = f"a request after {before} in {denied.at_ns / NS_PER_S:g} s" if before else "the first request"
        reason = f"denied {after}, although the limit is {allotment.limit} in {allotment.period} s"
    return PromiseReport(False, figures, trial.rows, reason, needs_time=denied is None or first > 0)
