"""Process that judges one candidate: its time is fake, so it is not the process of the caller."""

from __future__ import annotations

import json
import os
import sys
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

from ratelab.errors import InputError
from ratelab.judge.candidate import CandidateError, JudgedLimiter, load_factory
from ratelab.judge.fake_clock import FakeClock, FakeLoop, Unsuitable, install
from ratelab.judge.interleaving import install_locks
from ratelab.judge.promises import CHECKS
from ratelab.judge.store_server import NoStore, run_store_server
from ratelab.judge.timeline import CLIENT, TimedHit, TimelineRow, list_rows
from ratelab.judge.trial import Bench, PromiseReport
from ratelab.judge.watch import CallWatch

IMPORT_PATIENCE = 4
"""How much longer than a hit an import may take."""

MAX_ROWS_BEFORE_ERROR = 9
"""Rows before an exception."""

UNREACHED = "reads the time in a way that cannot be replaced, such as in compiled code"


def main(folder: str) -> None:
    """Judge the candidate that standard input describes; print a JSON object for each promise.

    `folder` is searched for modules first, but not for those that this process itself has imported by now.
    """
    sys.path.insert(0, folder)
    request = json.loads(sys.stdin.read())
    output = os.dup(1)
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 1)  # the candidate may print
    os.dup2(null, 2)
    try:
        for message in _judge(request, output):
            _send(output, message)
    except BaseException as error:  # of the judge itself
        _send(output, {"crash": "".join(traceback.format_exception(error))})
    os._exit(0)  # without the exit handlers and threads of the candidate


def _send(output: int, message: dict[str, Any]) -> None:
    os.write(output, f"{json.dumps(message)}\n".encode())


def _judge(request: dict[str, Any], output: int) -> Iterator[dict[str, Any]]:
    """Yield the results of the promises of a request, each after a message that names the promise."""
    watch = CallWatch()
    clock = FakeClock()
    _start_watching(watch, output, request["hang_s"])
    warnings.simplefilter("ignore")
    for name in [name for name in sys.modules if name.partition(".")[0] == "ratelab"]:
        del sys.modules[name]  # a candidate that uses ratelab imports it again, with the fake clock
    install(clock)
    install_locks()
    loop = FakeLoop(clock)
    watch.activity, factory = "the import", None
    try:
        factory = watch.run(lambda: load_factory(request["factory"]), IMPORT_PATIENCE)
    except InputError as error:
        yield {"bad_target": str(error)}
        return
    except Unsuitable:
        pass  # the clock has the reason
    watch.activity = "a hit"
    bench = Bench(JudgedLimiter(factory, clock, loop), clock, loop, watch)
    with ExitStack() as stack:
        if request["on_store"]:
            try:
                bench.store_url = _start_store(factory, request["factory"], clock, stack)
            except (InputError, NoStore) as error:
                yield {"bad_target": str(error)}
                return
            watch.may_wait = True
        problem = clock.problem
        for name in request["promises"]:
            yield {"started": name}
            clock.problem = problem
            yield {"name": name, **_check(name, bench)._asdict()}


def _start_store(factory: Any, target: str, clock: FakeClock, stack: ExitStack) -> str:
    """Start the store on which all limiters are created, and return its URL."""
    if not hasattr(factory, "store"):
        raise InputError(f"{target} has no store: add FACTORY.store(url, limit, period, burst), or omit --on-store")
    return stack.enter_context(run_store_server(clock)).url


def _check(name: str, bench: Bench) -> PromiseReport:
    """Check a promise; a fault of the candidate is its result."""
    clock = bench.clock
    reads = clock.reads
    try:
        if clock.problem is not None:
            clock.reject(clock.problem)
        report = CHECKS[name](bench)
    except Unsuitable as error:
        return PromiseReport(None, reason=str(error))
    except CandidateError as error:
        return PromiseReport(False, timeline=_list_last_rows(bench, str(error)), reason=str(error))
    may_follow = clock.reads > reads or bench.candidate.is_async or bench.watch.may_wait
    if report.kept is False and report.needs_time and not may_follow and _follows_real_time(bench):
        return PromiseReport(None, reason=UNREACHED)
    return report


def _follows_real_time(bench: Bench) -> bool:
    try:
        return bench.follows_real_time
    except Unsuitable:
        return True


def _list_last_rows(bench: Bench, error: str) -> list[TimelineRow]:
    """Return the last rows of the latest trial, and the hit that ended it."""
    trial = bench.latest
    if trial is None:
        return []
    failed = TimedHit(trial.now_ns, trial.now_ns, CLIENT, False, None, error)
    return [*trial.rows[-MAX_ROWS_BEFORE_ERROR:], *list_rows([failed])]


def _start_watching(watch: CallWatch, output: int, hang_s: float) -> None:
    """End this process if a call of the candidate takes too long."""

    def report() -> None:
        _send(output, {"hung": watch.activity})
        os._exit(0)

    watch.start(hang_s, report)
