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
from textwrap import dedent, indent, wrap
from typing import Any

from ratelab.algorithms import find
from ratelab.errors import InputError
from ratelab.learn.source import field_lines
from ratelab.learn.verdict import Verdict, read
from ratelab.limiter import Algorithm

FILE = '''\
"""{name}: {meaning}

{idea}

Grade it: ratelab drill {name} answer.py. What it prints is told with the timeline on which it fails.
"""


def step(self, state, now, cost):
    """Decide a hit of `cost` at `now`, in nanoseconds; update `state` in place, and return the five fields."""
    # what there is to work with:
{given}
    allowed = True
    remaining = 0  # further cost admissible at this instant
    retry_after_ns = 0  # the shortest wait that helps, rounded up; 0 if allowed, NEVER if none does
    reset_after_ns = 0  # until the key is as good as new, rounded up
    delay_ns = 0  # how long an admitted request must queue
    return allowed, remaining, retry_after_ns, reset_after_ns, delay_ns
'''


def task(algorithm: type[Algorithm]) -> str:
    """Return a file in which `step` is to be written; raise `InputError` if the algorithm's source cannot be had."""
    try:
        fields, start = field_lines(algorithm), dedent(inspect.getsource(algorithm.start))
    except (OSError, TypeError):
        raise InputError(f"{algorithm.name} has no source to make a drill from") from None
    meaning, *rest = [" ".join(part.split()) for part in (inspect.getdoc(algorithm) or "").split("\n\n")]
    given = [*(f"self.{line}" for line in fields), *_state(algorithm), "a new key's state:", *_body(start)]
    return FILE.format(
        name=algorithm.name,
        meaning=meaning,
        idea="\n".join(wrap(rest[0] if rest else "", 100)),
        given=indent("\n".join(given), "    # ", lambda _: True),
    )


def _state(algorithm: type[Algorithm]) -> list[str]:
    """Name the places of a state; a ring is all that are left."""
    names = enumerate(getattr(algorithm, "remembers", ()))
    return [f"state[{place}{':' * name.startswith('a ring')}]: {name}" for place, name in names]


def _body(start: str) -> list[str]:
    lines = dedent(start.split("\n", 1)[1]).splitlines()
    return [f"    {line}" for line in lines if not line.startswith('"""')]


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
