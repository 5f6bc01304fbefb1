"""Drills: what to write, and a verdict on what was written, whatever it does."""

from __future__ import annotations

import inspect
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from textwrap import dedent
from typing import Any

from ratelab.algorithms import find
from ratelab.learn.verdict import Verdict, read

PATIENCE = 10.0
"""Seconds after which there is a verdict."""


def grade(name: str, answer: str | Callable[..., Any]) -> Verdict:
    """Examine an answer, a function `step` or source text that defines it, for the algorithm called `name`.

    It runs in a process of its own that is ended after `PATIENCE`, with whatever it has started that has not left its
    process group. That protects from mistakes, not from malice. Raises `InputError` if there is no such algorithm.
    """
    find(name)
    source = answer if isinstance(answer, str) else dedent(inspect.getsource(answer))
    code = f"import sys; sys.path[:] = {sys.path}; from ratelab.learn.sandbox import main; main()"
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
            return Verdict(name, False, f"no verdict after {PATIENCE:g} s: it is too slow, or cannot be interrupted")
        finally:
            _end(examiner)
    return _heard(name, told.decode(errors="replace"))


def _end(examiner: subprocess.Popen[bytes]) -> None:
    """Kill an examiner and whatever is left of its process group."""
    with suppress(ProcessLookupError, PermissionError):  # nobody is left, or only who has ended
        if hasattr(os, "killpg"):
            os.killpg(examiner.pid, signal.SIGKILL)
        else:
            examiner.kill()


def _heard(name: str, told: str) -> Verdict:
    if not told:
        return Verdict(name, False, "the answer ended its whole process")
    if told.startswith("!"):
        raise RuntimeError(f"the examiner failed\n{told[1:]}")
    try:
        return read(told)
    except ValueError:
        return Verdict(name, False, "the answer wrote where its verdict is told")
