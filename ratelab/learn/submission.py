"""Submission to a drill: a user's `step`, checked at every call and stopped if it runs too long."""

from __future__ import annotations
import __future__

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic, process_time
from traceback import walk_tb
from types import CodeType, FrameType, TracebackType
from typing import Any, NamedTuple, cast

from ratelab.algorithms import traits_of
from ratelab.errors import short_repr
from ratelab.limiter import NEVER, ROW_FIELDS, Algorithm, State

SUBMISSION_NAME = "submission"
"""The file name of a submission in tracebacks."""

STEP_TIMEOUT_S = 1.0
MAX_ALARM_DELAY_S = 0.1
"""Seconds after its time at which an alarm comes, unless the machine has stalled."""

MAX_ERROR_CHARS = 200


class SubmissionError(Exception):
    """The submission breaks a rule of `step`; the message states the rule and, if there is one, the line."""


class StepTimeoutError(BaseException):
    """A call exceeds `STEP_TIMEOUT_S`. Not an `Exception`, so that a submission's `except Exception` lets it pass."""


def load_submission(source: str, algorithm: type[Algorithm]) -> type[Algorithm]:
    """Return a subclass of `algorithm` with the `step`, and the `start` if any, that `source` defines.

    Both check the values that they return. They raise `SubmissionError` for an invalid value, for any exception of the
    submission, and after `STEP_TIMEOUT_S`; so does this function while it runs `source`.
    """
    names: dict[str, Any] = {"__name__": SUBMISSION_NAME, "NEVER": NEVER, "State": State}
    if _HAS_ALARM:
        signal.signal(signal.SIGALRM, _raise_timeout)
    _call(lambda: exec(_compile(source), names))  # noqa: S102  (the user's own code, in a process of its own)
    if not callable(names.get("step")):
        raise SubmissionError("missing function: step(self, state, now, cost)")
    methods: dict[str, Any] = {"step": _checked_step(names["step"])}
    if callable(names.get("start")):
        methods["start"] = _checked_start(names["start"])
    traits = traits_of(algorithm)._replace(bound=None)  # the promises hold for the submission, its integers are unknown
    return cast("type[Algorithm]", type("Submission", (algorithm,), {**methods, "traits": traits}))


def submission_line(traceback: TracebackType | None) -> int | None:
    """Return the innermost line of the submission in a traceback; None if it contains none."""
    lines = [line for frame, line in walk_tb(traceback) if frame.f_code.co_filename == SUBMISSION_NAME]
    return lines[-1] if lines else None


def _compile(source: str) -> CodeType:
    flags = __future__.annotations.compiler_flag  # annotations may name types that are not imported
    try:
        return cast("CodeType", compile(source, SUBMISSION_NAME, "exec", flags, dont_inherit=True))
    except SyntaxError as error:
        place = f"line {error.lineno}: " if error.lineno else ""
        raise SubmissionError(f"{place}{type(error).__name__}: {error.msg}") from None


# --- calls with a timeout

_HAS_ALARM = hasattr(signal, "setitimer")  # not on Windows, where the timeout of the whole grader must do


class _Due(NamedTuple):
    """Until when a call may run."""

    at: float
    processor_time: float


_due = [_Due(0, 0)]


def _set_alarm() -> None:
    _due[0] = _Due(monotonic() + STEP_TIMEOUT_S, process_time() + STEP_TIMEOUT_S)
    signal.setitimer(signal.ITIMER_REAL, STEP_TIMEOUT_S)


def _raise_timeout(number: int, frame: FrameType | None) -> None:  # noqa: ARG001  (the signature of a handler)
    """Raise, unless the machine has stalled: then the alarm is late, and the call has had no time."""
    if monotonic() > _due[0].at + MAX_ALARM_DELAY_S and process_time() < _due[0].processor_time:
        _set_alarm()
    else:
        raise StepTimeoutError


@contextmanager
def _time_limit() -> Iterator[None]:
    """Raise `StepTimeoutError` in this block, which the main thread must run, after `STEP_TIMEOUT_S`."""
    if not _HAS_ALARM:
        yield
        return
    _set_alarm()
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    """Call a function of the submission; turn any exception and a timeout into a `SubmissionError`."""
    try:
        with _time_limit():
            return function(*arguments)
    except SubmissionError:
        raise
    except BaseException as error:
        line = submission_line(sys.exc_info()[2])
        raise SubmissionError(f"{f'line {line}: ' if line else ''}{_format_error(error)}") from None


# --- checked methods


def _checked_start(start: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `start` with a check of the state that it returns."""

    def checked(self: Algorithm, now: int) -> State:
        state = _call(start, self, now)
        if type(state) is not list or not _all_integers(state):
            raise SubmissionError(f"start must return a list of integers, got {_format_value(state)}")
        return state

    return checked


def _checked_step(step: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap `step` with a check of the decision that it returns and of the state that it leaves."""

    def checked(self: Algorithm, state: State, now: int, cost: int) -> Any:
        length = len(state)
        fields = _check_fields(_call(step, self, state, now, cost))
        if len(state) != length or not _all_integers(state):
            raise SubmissionError(f"state must remain {length} integers, got {_format_value(list(state))}")
        return fields

    return checked


def _all_integers(state: State) -> bool:
    return all(type(number) is int for number in state)


def _check_fields(returned: object) -> tuple[Any, ...]:
    """Return the five fields of a decision; raise `SubmissionError` if their number, types or ranges are wrong."""
    names = ROW_FIELDS
    if not isinstance(returned, tuple) or len(returned) != len(names):
        raise SubmissionError(f"step must return five fields ({', '.join(names)}), got {_format_value(returned)}")
    for name, value in zip(names, returned, strict=True):
        expected, rule = (bool, "True or False") if name == "allowed" else (int, "an integer from 0 to NEVER")
        if type(value) is not expected or not 0 <= value <= NEVER:
            raise SubmissionError(f"{name} must be {rule}, got {_format_value(value)}{_conversion(value, expected)}")
    return tuple(returned)


def _conversion(value: object, expected: type) -> str:
    """Suggest a conversion for a value, such as numpy's, that only looks like one of the expected type."""
    found = type(value)
    if found is expected or not (hasattr(found, "__index__") or found.__name__.startswith("bool")):
        return ""
    module = "" if found.__module__ == "builtins" else f"{found.__module__}."
    return f" of type {module}{found.__name__}: convert it with {expected.__name__}(...)"


# --- values and errors of the submission as text


def _format_value(value: object) -> str:
    return _one_line(short_repr(value))


def _format_error(error: BaseException) -> str:
    if isinstance(error, StepTimeoutError):
        return f"still running after {STEP_TIMEOUT_S:g} s"
    try:
        message = _one_line(str(error))
    except Exception:
        message = "(message cannot be formatted)"
    return f"{type(error).__name__}: {message}" if message else type(error).__name__


def _one_line(text: str) -> str:
    """Escape control characters and cut the text to `MAX_ERROR_CHARS`."""
    escaped = [char if char.isprintable() else char.encode("unicode_escape").decode() for char in text]
    return "".join(escaped[:MAX_ERROR_CHARS]) + "..." * (len(escaped) > MAX_ERROR_CHARS)
