"""Exceptions raised by ratelab, and the parts that their messages share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ratelab.limiter import Decision


class InputError(ValueError):
    """Invalid user input; the message states the value, the rule and the remedy."""


class ResourceError(Exception):
    """A run cannot continue, although its input is valid: a disk is full, or another machine does not answer.

    The message states the remedy.
    """


class ConfigurationWarning(UserWarning):
    """A limiter works, but probably not as intended; the message states the remedy."""


def warn_of_configuration(message: str) -> None:
    """Show a `ConfigurationWarning` at the line of the user that led to it."""
    import inspect
    import warnings

    level, frame, passed_by = 1, inspect.currentframe(), {"ratelab", "contextlib", "functools"}
    while frame is not None and str(frame.f_globals.get("__name__")).partition(".")[0] in passed_by:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, ConfigurationWarning, stacklevel=level)


class SlowWarning(UserWarning):
    """A slower code path was taken; results are unaffected."""


STORE_ERRORS = (
    "timeout",
    "unreachable",
    "refused",
    "misconfigured",
    "readonly",
    "full",
    "overload",
    "down",
    "other",
)
"""The kinds of `StoreError`."""


class StoreError(Exception):
    """The store returned no decision; the request was charged at most once.

    `kind` is one of `STORE_ERRORS`. `refused` means a wrong password or a missing permission. `misconfigured` means a
    server or URL with which no key can ever be decided, such as a node of a cluster without `cluster=true`. `overload`
    means that more hits came at once than could be sent in time; this one was neither sent nor charged. `down` means
    that the store was not called, because it has just failed. Retry after `retry_after_ns`.
    """

    def __init__(self, kind: str, message: str, retry_after_ns: int = 10**9) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_ns = retry_after_ns

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle the arguments of the constructor, so that the error crosses processes unchanged."""
        return type(self), (self.kind, str(self), self.retry_after_ns), self.__dict__


class RateLimitExceeded(Exception):  # noqa: N818  (the name that users of other libraries expect)
    """A request was denied, or would have had to wait for too long; nothing was charged.

    `decision` is the denial: its `retry_after` is the shortest wait that was known to be necessary. `key` is the key of
    the request, which the message leaves out because it may be a secret.
    """

    def __init__(self, decision: Decision, key: object) -> None:
        super().__init__(decision, key)  # the arguments with which `pickle` creates the exception again
        self.decision = decision
        self.key = key

    def __str__(self) -> str:
        """Return the policy that denied the request, and the wait in seconds, rounded up to milliseconds."""
        decision = self.decision
        policy = f" by policy {decision.bound_by!r}" if decision.bound_by else ""
        if decision.retry_after == float("inf"):
            return f"rate limit exceeded{policy}: the request costs more than its burst, so no wait is enough"
        return f"rate limit exceeded{policy}: retry after {-(-decision.retry_after_ns // 10**6) / 1000:g} s"


def short_repr(value: object) -> str:
    """Format a rejected value for an error message: its `repr`, cut to 60 characters."""
    try:
        text = repr(value[:80] if isinstance(value, str) else value)
    except Exception:  # of the value's own class, or an integer of too many digits
        return f"a value of type {type(value).__name__} that cannot be formatted"
    return text if len(text) <= 60 else f"{text[:57]}..."


def format_reason(error: Exception) -> str:
    """Return why a file or an address cannot be used, without the number and the path that the system adds."""
    if isinstance(error, UnicodeDecodeError):
        return f"invalid UTF-8: byte {error.object[error.start]:#04x} at offset {error.start}"
    return (isinstance(error, OSError) and error.strerror) or str(error)


def install_hint(*extras: str) -> str:
    """Return the command that installs ratelab with the optional dependencies `extras`."""
    target = f"'.[{','.join(extras)}]'" if extras else "."
    return f"run pip install {target} in a ratelab checkout"
