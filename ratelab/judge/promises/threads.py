"""Promise `threads`: hits of several threads, or of several tasks of asyncio, are decided exactly.

Four threads hit one new key at one instant; a seed decides after which instruction of the interpreter one thread stops
and another goes on, and every lock of `threading` takes part. In each of up to 30 such schedules, as many hits are
admitted as one thread alone gets: not more, and not fewer. If hits are coroutines, tasks of one event loop take the
place of threads, as nothing else may use it. A limiter that lets requests wait must stay within its bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ratelab.judge.candidate import Allotment, CandidateError, normalize
from ratelab.judge.interleaving import Deadlock, Interleaving
from ratelab.judge.timeline import CLIENT, TimedHit, TimelineStep
from ratelab.judge.trial import Bench, PromiseReport, Trial, find_excess, make_bound
from ratelab.quota import NS_PER_S

THREADS_ALLOTMENT = Allotment(6, 3600, 6)

THREADS = 4
HITS_PER_THREAD = 4

SCHEDULES = 30
SCHEDULES_ON_A_STORE = 6

PATIENCE = 4
"""How much longer than a hit a schedule may take; its instructions run one by one."""

MAX_INSTRUCTIONS = 300_000
"""Instructions of all schedules, after which no further one begins."""

SWITCH_SHARES = (0.5, 0.1, 0.02)
"""Shares of instructions after which another thread goes on, in turn."""


def check(bench: Bench) -> PromiseReport:
    """Hit a key from several threads or tasks."""
    schedules = SCHEDULES if bench.store_url is None else SCHEDULES_ON_A_STORE
    alone = bench.play(
        THREADS_ALLOTMENT, [TimelineStep(0, THREADS * HITS_PER_THREAD)]
    )  # shows, too, whether hits are coroutines
    expected = len(alone.admissions())
    kind = "tasks" if bench.candidate.is_async else "threads"
    hit_together = _hit_in_tasks if bench.candidate.is_async else _hit_in_threads
    hits = THREADS * HITS_PER_THREAD
    instructions = 0
    for seed in range(schedules):
        if instructions > MAX_INSTRUCTIONS:
            schedules = seed
            break
        trial = bench.start(THREADS_ALLOTMENT, seed * NS_PER_S)
        instructions += hit_together(bench, trial, seed)
        admitted = sum(hit.allowed for hit in trial.hits)
        slept = any(hit.done_ns > hit.at_ns for hit in trial.hits)
        exact = admitted == expected
        if slept:
            times = sorted(trial.admissions())
            exact = not find_excess(times, make_bound(bench.candidate, THREADS_ALLOTMENT)).is_above
        if not exact:
            figures = {
                **THREADS_ALLOTMENT._asdict(),
                kind: _count(kind),
                "hits": hits,
                "admitted": admitted,
                "schedule": seed,
            }
            reason = f"{hits} hits of {_count(kind)} {kind} at once: {admitted} were admitted, not {expected}"
            return PromiseReport(False, figures, trial.rows, reason)
    return PromiseReport(True, {kind: _count(kind), "schedules": schedules, "hits": schedules * hits})


def _count(kind: str) -> int:
    return THREADS if kind == "threads" else THREADS * HITS_PER_THREAD


def _hit_in_threads(bench: Bench, trial: Trial, seed: int) -> int:
    """Hit in threads, and return the number of instructions."""
    key = CLIENT + trial.suffix
    limiter: Callable[[str], Any] = trial.limiter

    def work() -> None:
        for _ in range(HITS_PER_THREAD):
            at = trial.now_ns
            answer = normalize(limiter(key))
            trial.hits.append(TimedHit(at, trial.now_ns, CLIENT, *answer))

    may_wait, bench.watch.may_wait = bench.watch.may_wait, True  # the main thread waits for the others
    interleaving = Interleaving(seed, SWITCH_SHARES[seed % len(SWITCH_SHARES)])
    try:
        bench.call(lambda: bench.candidate.run(lambda: interleaving.run([work] * THREADS)), PATIENCE)
    except CandidateError as error:
        if isinstance(error.__cause__, Deadlock):
            raise CandidateError(f"deadlock: {error.__cause__}") from error
        raise
    finally:
        bench.watch.may_wait = may_wait
    return interleaving.steps


def _hit_in_tasks(bench: Bench, trial: Trial, seed: int) -> int:  # noqa: ARG001  (the signature of the other one)
    key = CLIENT + trial.suffix

    async def work() -> None:
        at = trial.now_ns
        answer = normalize(await trial.limiter(key))
        trial.hits.append(TimedHit(at, trial.now_ns, CLIENT, *answer))

    async def run() -> None:
        await asyncio.gather(*(work() for _ in range(THREADS * HITS_PER_THREAD)))

    bench.call(lambda: bench.candidate.run(lambda: bench.loop.run_until_complete(run())))
    return 0
