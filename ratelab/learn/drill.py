"""Drills: what to write, and a verdict on what was written, whatever it does."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from textwrap import dedent
from typing import Any

from ratelab.algorithms import find
from ratelab.learn.examiner import Row, Verdict
from ratelab.limiter import Decision

PATIENCE = 15.0
"""Seconds after which there is a verdict."""


def grade(name: str, answer: str | Callable[..., Any]) -> Verdict:
    """Examine an answer, a function `step` or source text that defines it, for the algorithm called `name`.

    It runs in a process of its own that is ended after `PATIENCE`. That protects from mistakes, not from malice.
    Raises `InputError` if there is no such algorithm.
    """
    find(name)
    source = answer if isinstance(answer, str) else dedent(inspect.getsource(answer))
    code = f"import sys; sys.path[:] = {sys.path}; from ratelab.learn.examiner import main; main()"
    with subprocess.Popen(  # noqa: S603  (this file's neighbour)
        [sys.executable, "-c", code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    ) as examiner:
        try:
            told, _ = examiner.communicate(json.dumps({"algorithm": name, "source": source}).encode(), PATIENCE)
        except subprocess.TimeoutExpired:
            _end(examiner)
            return Verdict(name, False, f"no end after {PATIENCE:g} s, and it does not let itself be interrupted")
    if not told:
        return Verdict(name, False, "the answer ended its whole process")
    verdict = json.loads(told)
    if "failed" in verdict:
        raise RuntimeError(f"the examiner failed\n{verdict['failed']}")
    return _read(verdict)


def _end(examiner: subprocess.Popen[bytes]) -> None:
    """Kill an examiner and whatever it has started."""
    if hasattr(os, "killpg"):
        os.killpg(examiner.pid, signal.SIGKILL)
    else:
        examiner.kill()


def _read(told: list[Any]) -> Verdict:
    name, right, words, promises, quota, rows = told
    return Verdict(name, right, words, [(text, kept) for text, kept in promises], quota, list(map(_row, rows)))


def _row(told: list[Any]) -> Row:
    at, cost, yours, exact = told
    return Row(at, cost, yours and Decision(*yours), Decision(*exact))
