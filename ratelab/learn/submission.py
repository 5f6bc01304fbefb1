"""What a person wrote as a step, held to the shape of one: whatever else it does is told, and harms nobody."""

from __future__ import annotations
import __future__

import signal
import sys
from collections.abc import Callable
from traceback import walk_tb
from types import FrameType, TracebackType
from typing import Any, cast

from ratelab.errors import shown
from ratelab.limiter import NEVER, Algorithm, Decision, State

PATIENCE = 1.0
"""Seconds that a call may take, but for those in which its process stands still."""

_RINGS = 20


class TooLongError(BaseException):
    """Time is up: no ordinary `except` catches it."""


class _Alarm:
    """Rings as long as a call goes on: a process that has stood still hears one ring afterwards, not all."""

    left: int | None = None
    """How often it may ring still; None if there is no call."""

    def ring(self, number: int, frame: FrameType | None) -> None:  # noqa: ARG002  (what a handler takes)
        if self.left is not None:
            self.left -= 1
            if self.left <= 0:
                raise TooLongError


_alarm = _Alarm()
_CAN_RING = hasattr(signal, "setitimer")  # where it cannot, what goes on is ended from outside


def be_ready() -> None:
    """Prepare to watch calls of this thread, the main one."""
    if _CAN_RING:
        signal.signal(signal.SIGALRM, _alarm.ring)


def begin() -> None:
    """Raise `TooLongError` in this thread if what begins now has not come to its `end` in time, again and again."""
    if _CAN_RING:
        _alarm.left = _RINGS
        signal.setitimer(signal.ITIMER_REAL, PATIENCE / _RINGS, PATIENCE / _RINGS)


def end() -> None:
    """Watch no more."""
    _alarm.left = None
    if _CAN_RING:
        signal.setitimer(signal.ITIMER_REAL, 0)


FILE = "your answer"

LONGEST = 200
"""Letters of an error's message that are told."""


class WrongStepError(Exception):
    """What was written does something that no step may do; the message says what, and on which line."""


def answered(source: str, kind: type[Algorithm]) -> type[Algorithm]:
    """Return `kind` with the function `step`, and `start` if there is one, that `source` defines in place of its own.

    Raises `WrongStepError` if it defines no `step`; so does the step, for whatever is not as a step should be.
    """
    names: dict[str, Any] = {"__name__": FILE, "NEVER": NEVER, "State": State}
    be_ready()
    _run(lambda: exec(_compiled(source), names))  # noqa: S102  (their own code, in a process of its own)
    if not callable(names.get("step")):
        raise WrongStepError("there is no function step(self, state, now, cost)")
    theirs = {"step": _checked(names["step"])}
    if callable(names.get("start")):
        theirs["start"] = _begun(names["start"])
    return cast("type[Algorithm]", type("Answer", (kind,), theirs))


def line_of(trace: TracebackType | None) -> int | None:
    """Return the innermost line of the answer that a traceback leads through; None if it leads through none."""
    return next(iter([line for frame, line in walk_tb(trace) if frame.f_code.co_filename == FILE][::-1]), None)


def _compiled(source: str) -> Any:
    try:
        return compile(source, FILE, "exec", __future__.annotations.compiler_flag, dont_inherit=True)
    except SyntaxError as error:
        place = f"line {error.lineno}: " if error.lineno else ""
        raise WrongStepError(f"{place}{type(error).__name__}: {error.msg}") from None


def _begun(start: Callable[..., Any]) -> Callable[..., Any]:
    """Have a start looked at."""

    def begun(self: Algorithm, now: int) -> State:
        state = _run(start, self, now)
        if type(state) is not list or not _whole(state):
            raise WrongStepError(f"start must return a list of whole numbers, and returned {_told(state)}")
        return state

    return begun


def _checked(step: Callable[..., Any]) -> Callable[..., Any]:
    """Have a step looked at: what it returns, and what it leaves behind."""

    def checked(self: Algorithm, state: State, now: int, cost: int) -> Any:
        places = len(state)
        row = _row(_run(step, self, state, now, cost))
        if len(state) != places or not _whole(state):
            raise WrongStepError(f"a state must stay {places} whole numbers, and was left as {_told(list(state))}")
        return row

    return checked


def _whole(state: State) -> bool:
    return all(type(number) is int for number in state)


def _row(returned: object) -> tuple[Any, ...]:
    """Return the five fields as what they are, and nothing that only behaves so."""
    fields = Decision._fields
    row = tuple.__getitem__(returned, slice(None)) if isinstance(returned, tuple) else ()
    if len(row) != len(fields):
        raise WrongStepError(f"a step returns five fields, {', '.join(fields)}, and returned {_told(returned)}")
    for name, value in zip(fields, row, strict=True):
        wanted, rule = (bool, "True or False") if name == "allowed" else (int, "a whole number from 0 to NEVER")
        if type(value) is not wanted or not 0 <= value <= NEVER:
            raise WrongStepError(f"{name} must be {rule}, and was {_told(value)}{_unlike(value, wanted)}")
    return row


def _unlike(value: object, wanted: type) -> str:
    """Say what to do with a value that only looks like one of the wanted type, such as numpy's."""
    kind = type(value)
    if kind is wanted or not (hasattr(kind, "__index__") or kind.__name__.startswith("bool")):
        return ""
    module = "" if kind.__module__ == "builtins" else f"{kind.__module__}."
    return f", of type {module}{kind.__name__}: {wanted.__name__}(...) makes it one"


def _told(value: object) -> str:
    return _text(shown, value) or f"something of type {type(value).__name__} that cannot be written"


def _run(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call what was written; raise `WrongStepError` for whatever it raises, and if it does not end in time."""
    try:
        begin()
        return function(*arguments)
    except WrongStepError:
        raise
    except BaseException as error:
        end()
        line = line_of(sys.exc_info()[2])
        raise WrongStepError(f"{f'line {line}: ' if line else ''}{_words(error)}") from None
    finally:
        end()


def _words(error: BaseException) -> str:
    """Say what was raised, shortly."""
    if isinstance(error, TooLongError):
        return f"no end after {PATIENCE:g} s"
    text = _text(str, error)
    said = "what it says cannot be written" if text is None else text
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


def _text(write: Callable[[Any], str], value: object) -> str | None:
    """Have a value of theirs written on a line, cut to a length; None if that fails, for that is theirs, too."""
    try:
        begin()
        text = write(value)
    except BaseException:
        return None
    finally:
        end()
    beginning = str.__getitem__(text, slice(LONGEST))  # a plain str, whatever theirs is
    rest = "..." if str.__len__(text) > LONGEST else ""
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in beginning) + rest
