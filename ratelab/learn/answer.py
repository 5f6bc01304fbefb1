"""What a person wrote as a step, held to the shape of one: whatever else it does is told, and harms nobody."""

from __future__ import annotations
import __future__

import signal
from collections.abc import Callable
from traceback import walk_tb
from types import FrameType
from typing import Any, cast

from ratelab.errors import shown
from ratelab.limiter import NEVER, Algorithm, Decision, State

PATIENCE = 0.5
"""Seconds of the processor that one step may take; other programs' time is no fault of its."""

FILE = "your answer"


class WrongStepError(Exception):
    """What was written does something that no step may do; the message says what, and on which line."""


class _TooLongError(BaseException):
    """Time is up: no ordinary `except` of the answer's own catches it."""


def answered(source: str, kind: type[Algorithm]) -> type[Algorithm]:
    """Return `kind` with the function `step`, and `start` if there is one, that `source` defines in place of its own.

    Raises `WrongStepError` if it defines no `step`; so does the step, for whatever is not as a step should be.
    """
    names: dict[str, Any] = {"__name__": FILE, "NEVER": NEVER, "State": State}

    def read() -> None:
        code = compile(source, FILE, "exec", __future__.annotations.compiler_flag, dont_inherit=True)
        exec(code, names)  # noqa: S102  (their own code, in a process of its own)

    if hasattr(signal, "SIGPROF"):
        signal.signal(signal.SIGPROF, _ring)
    _run(read)
    if not callable(names.get("step")):
        raise WrongStepError("there is no function step(self, state, now, cost)")
    theirs = {"step": _checked(names["step"])}
    if callable(names.get("start")):
        theirs["start"] = _guarded(names["start"])
    return cast("type[Algorithm]", type("Answer", (kind,), theirs))


def _guarded(function: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *arguments: _run(function, *arguments)


def _checked(step: Callable[..., Any]) -> Callable[..., Any]:
    """Have a step looked at: what it returns, and what it leaves behind."""

    def checked(self: Algorithm, state: State, now: int, cost: int) -> Any:
        places = len(state)
        row = _run(step, self, state, now, cost)
        _check_row(row)
        if len(state) != places or any(type(number) is not int for number in state):
            raise WrongStepError(f"a state must stay {places} whole numbers, and was left as {shown(list(state))}")
        return row

    return checked


def _check_row(row: object) -> None:
    fields = Decision._fields
    if not isinstance(row, tuple) or len(row) != len(fields):
        raise WrongStepError(f"a step returns five fields, {', '.join(fields)}, and returned {shown(row)}")
    for name, value in zip(fields, row, strict=True):
        wanted = bool if name == "allowed" else int
        if type(value) is not wanted or value < 0:
            rule = "True or False" if wanted is bool else "a whole number >= 0"
            raise WrongStepError(f"{name} must be {rule}, and was {shown(value)}")


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what was written; raise `WrongStepError` for whatever it raises, and if it does not end in time."""
    try:
        _set_timer(PATIENCE)
        return function(*arguments)
    except _TooLongError:
        raise WrongStepError(f"no end after {PATIENCE:g} s") from None
    except BaseException as error:
        lines = [line for frame, line in walk_tb(error.__traceback__) if frame.f_code.co_filename == FILE]
        line = error.lineno if isinstance(error, SyntaxError) else lines[-1] if lines else None
        place = f"line {line}: " if line else ""
        raise WrongStepError(f"{place}{type(error).__name__}{f': {error}' if str(error) else ''}") from None
    finally:
        _set_timer(0)


def _set_timer(seconds: float) -> None:
    if hasattr(signal, "setitimer"):  # elsewhere, as where it only sleeps, the examiner is ended from outside
        signal.setitimer(signal.ITIMER_PROF, seconds)


def _ring(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (what a handler takes)
    raise _TooLongError
