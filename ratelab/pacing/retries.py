"""The rules by which adapters name and resend requests."""

from __future__ import annotations

from ratelab.errors import InputError, short_repr
from ratelab.pacing.advice import RateAdvice

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


def check_retries(retries: int) -> int:
    """Return a number of retries; raise `InputError` for an invalid one."""
    if isinstance(retries, bool) or not isinstance(retries, int) or retries < 0:
        raise InputError(f"retries must be a whole number >= 0, got {short_repr(retries)}")
    return retries


def may_resend(advice: RateAdvice, status: int, method: str, replayable: bool) -> bool:
    """Return whether a request may be sent again: it was denied, and its body is still there.

    A 429 means that the request was not processed. Any other denial may come from behind the service, so only
    idempotent methods are sent again.
    """
    return advice.denied and replayable and (status == 429 or method.upper() in IDEMPOTENT_METHODS)
