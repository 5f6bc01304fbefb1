"""What can go wrong: a person's input, and a store that other machines keep."""

from __future__ import annotations


class InputError(ValueError):
    """What was given cannot be used; the message states the value, the rule and the remedy."""


class SlowWarning(UserWarning):
    """Something takes longer than it would have to; what comes of it is the same."""


def install_hint(*extras: str) -> str:
    """Return how to install ratelab with the optional dependencies `extras`; without any, the command line's."""
    target = f"'.[{','.join(extras)}]'" if extras else "."
    return f"run pip install {target} in a ratelab checkout"


def shown(value: object) -> str:
    """Write a refused value for an error message, cut to a line."""
    text = repr(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 60 else f"{text[:57]}..."


STORE_ERRORS = ("timeout", "unreachable", "refused", "readonly", "full", "down", "other")
"""The kinds of `StoreError`."""


class StoreError(Exception):
    """The store has not decided, so far as anybody can tell: it may have charged the request, but never twice.

    `kind` is one of `STORE_ERRORS`: `refused` is for want of a password or a right, and `down` if the store was not
    asked, for it has just failed. `retry_after_ns` is when to ask again.
    """

    def __init__(self, kind: str, message: str, retry_after_ns: int = 10**9) -> None:
        super().__init__(message)
        self.kind = kind
        self.retry_after_ns = retry_after_ns
