"""The rules by which adapters name and resend requests, and checks of their arguments."""

from __future__ import annotations

from typing import Any

from ratelab.errors import InputError, short_repr
from ratelab.pacing.advice import RateAdvice
from ratelab.pacing.pacer import Pacer

IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


def choose_pacer(pacer: Pacer | None) -> Pacer:
    """Return a pacer, by default a new one; raise `InputError` for any other object."""
    if pacer is not None and not isinstance(pacer, Pacer):
        raise InputError(f"pacer must be a Pacer, got {short_repr(pacer)}: create it with Pacer()")
    return Pacer() if pacer is None else pacer


def check_key(key: Any) -> Any:
    """Return a function from the request to its key; raise `InputError` for any other object."""
    if not callable(key):
        raise InputError(f"key must be a function of the request that returns text, got {short_repr(key)}")
    return key


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
