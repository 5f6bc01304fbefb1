"""Drill: the file to complete for an algorithm, and the grading of a completed one in a process of its own."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from importlib.util import find_spec
from textwrap import dedent, indent, wrap
from typing import Any

from ratelab.algorithms import find, traits_of
from ratelab.errors import InputError
from ratelab.learn.source import field_lines
from ratelab.learn.verdict import FAILURE_MARK, Verdict, parse_verdict
from ratelab.limiter import Algorithm
from ratelab.prove import proves_equal
from ratelab.quota import Quota

GRADER_TIMEOUT_S = 30.0

PROVED_RATE, PROVED_BURST = "7/3s", 3
"""The quota of a proof: small, since the state of a log grows with it, and with waits that are rounded."""

PROOF_TIMEOUT_NS = 5 * 10**9

TEMPLATE = '''\
"""{name}: {meaning}

{idea}

Grade it: ratelab drill {name} answer.py. Its printed output is shown with the failing timeline.
"""


def step(self, state, now, cost):
    """Decide a hit of `cost` at `now`, in nanoseconds; update `state` in place, and return the five fields."""
    # available:
{available}
    allowed = True
    remaining = 0  # further cost admissible at this instant
    retry_after_ns = 0  # the shortest sufficient wait, rounded up; 0 if allowed, NEVER if no wait helps
    reset_after_ns = 0  # time until the key is fully replenished, rounded up
    delay_ns = 0  # time that an admitted request must queue
    return allowed, remaining, retry_after_ns, reset_after_ns, delay_ns
'''


def exercise(algorithm: type[Algorithm]) -> str:
    """Return the text of a file in which a user completes `step`; raise `InputError` if there is no source."""
    try:
        fields, start = field_lines(algorithm), dedent(inspect.getsource(algorithm.start))
    except (OSError, TypeError):
        raise InputError(f"no source code of {algorithm.name}: a drill needs it") from None
    meaning, *rest = [" ".join(part.split()) for part in (inspect.getdoc(algorithm) or "").split("\n\n")]
    available = [
        *(f"self.{line}" for line in fields),
        *_state_lines(algorithm),
        "the state of a new key:",
        *_start_lines(start),
    ]
    return TEMPLATE.format(
        name=algorithm.name,
        meaning=meaning,
        idea="\n".join(wrap(rest[0] if rest else "", 100)),
        available=indent("\n".join(available), "    # ", lambda _: True),
    )


def _state_lines(algorithm: type[Algorithm]) -> list[str]:
    """Name each integer of a state; a ring takes the rest of it."""
    names = enumerate(traits_of(algorithm).state)
    return [f"state[{place}{':' * name.startswith('a ring')}]: {name}" for place, name in names]


def _start_lines(start: str) -> list[str]:
    """Return the body of `start` without its docstring."""
    lines = dedent(start.split("\n", 1)[1]).splitlines()
    return [f"    {line}" for line in lines if not line.startswith('"""')]


def grade(name: str, submission: str | Callable[..., Any]) -> Verdict:
    """Grade a submission, a function `step` or the source text that defines it, for the algorithm `name`.

    It runs in a process group of its own, which is killed after the verdict or after `GRADER_TIMEOUT_S`. This protects
    from mistakes, not from malice. Raises `InputError` for an unknown algorithm, `RuntimeError` if the grader fails.
    """
    find(name)
    source = submission if isinstance(submission, str) else dedent(inspect.getsource(submission))
    code = f"import sys; sys.path[:] = {sys.path}; from ratelab.learn.sandbox import main; main()"
    with subprocess.Popen(  # noqa: S603  (this interpreter, with a module of this package)
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as grader:
        try:
            task = json.dumps({"algorithm": name, "source": source}).encode()
            output, _ = grader.communicate(task, GRADER_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            return Verdict(name, False, f"no verdict after {GRADER_TIMEOUT_S:g} s: step is slow or blocks signals")
        finally:
            _kill(grader)
    verdict = _parse_output(name, output.decode(errors="replace"))
    return verdict._replace(proof=_prove(name, source)) if verdict.correct else verdict


def _prove(name: str, source: str) -> str:
    """Return a sentence if a submission is proved to be exact for all times; empty without the solver."""
    if find_spec("z3") is None:
        return ""
    quota, shown = Quota.parse(PROVED_RATE, PROVED_BURST), f"{PROVED_RATE}, burst {PROVED_BURST}"
    with suppress(InputError):  # it is more than plain integer arithmetic
        if proves_equal(find(name), source, quota, PROOF_TIMEOUT_NS):
            return f"Proved for all times, states and costs at {shown}: every decision is exact."
    return ""


def _kill(grader: subprocess.Popen[bytes]) -> None:
    """Kill the grader's process group, if any of it still runs."""
    with suppress(ProcessLookupError, PermissionError):  # the group has ended, or consists of zombies
        if hasattr(os, "killpg"):
            os.killpg(grader.pid, signal.SIGKILL)
        else:
            grader.kill()


def _parse_output(name: str, output: str) -> Verdict:
    if not output:
        return Verdict(name, False, "the submission ended the grader's process")
    if output.startswith(f"{FAILURE_MARK}Traceback"):  # other text is the submission's
        raise RuntimeError(f"the grader failed\n{output.removeprefix(FAILURE_MARK)}")
    try:
        return parse_verdict(output)
    except ValueError:
        return Verdict(name, False, "the submission wrote to the grader's output")
