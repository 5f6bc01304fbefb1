"""Rate limits that a response advertises, read from its status and header fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from email.utils import parsedate_to_datetime
from functools import partial
from typing import NamedTuple, Protocol

from ratelab.clock import default_clocks
from ratelab.errors import InputError, short_repr
from ratelab.http.headers import read_items
from ratelab.quota import NS_PER_S

MAX_ADVISED_S = 31 * 86_400
"""The longest time in a header field that is believed: a month, the longest common quota."""

DENIAL_STATUSES = (429, 503)

_LEGACY_PREFIXES = ("x-ratelimit-", "x-rate-limit-", "ratelimit-")
_COUNT = re.compile(r"\s*(\d{1,15})\s*(?:[,;].*)?")
_SECONDS = re.compile(r"\s*(\d{1,16}(?:\.\d{1,9})?)\s*")
_EPOCH_UNITS = ((10**14, 10**6), (10**11, 1000), (10**8, 1))
"""The least value that is a time since 1970 in microseconds, milliseconds and seconds; smaller ones are delays."""


class HasItems(Protocol):
    """A mapping of header fields, or a class like that of `urllib.request`, in which names may occur repeatedly."""

    def items(self) -> Iterable[tuple[str, str]]:
        """Return pairs of names and values."""
        ...


Headers = HasItems | Iterable[tuple[str, str]]
"""The header fields of a response, or pairs of their names and values."""


class Allowance(NamedTuple):
    """The part of a response that describes one policy; None where it is unknown."""

    limit: int | None = None
    window_ns: int | None = None
    remaining: int | None = None
    reset_ns: int | None = None
    """Time until the quota is replenished."""


class RateAdvice(NamedTuple):
    """The limits of a service that one of its responses shows."""

    denied: bool
    wait_ns: int | None = None
    """How long to wait after a denial; None if the response does not name a time."""
    allowances: tuple[Allowance, ...] = ()
    cached: bool = False
    """Whether the response came from a cache, so that it shows nothing about the service."""


def read_advice(status: int, headers: Headers, now: float | None = None) -> RateAdvice:
    """Read the status and the header fields of a response.

    `now` is the time in seconds since 1970, by default that of the system; a `Date` field replaces it, so that the
    clocks of client and service may differ. Fields that are malformed, or name a time in the past or more than
    `MAX_ADVISED_S` ahead, are ignored, and so are the rate-limit fields of a cached response (`Age` above 0).
    Raises `InputError` if the status is no whole number, or the header fields are neither a mapping nor pairs.
    """
    if isinstance(status, bool) or not isinstance(status, int):
        raise InputError(f"status must be a whole number such as 429, got {short_repr(status)}")
    fields = _join_fields(headers)
    age = _COUNT.fullmatch(fields.get("age", ""))
    if age and int(age[1]):
        return RateAdvice(status in DENIAL_STATUSES, cached=True)
    read_now = partial(_read_now, fields, now)
    allowances = (*_read_policies(fields), *_read_legacy(fields, read_now))
    retry_after = _read_retry_after(fields.get("retry-after"), read_now)
    exhausted = [each for each in allowances if each.remaining == 0]
    denied = status in DENIAL_STATUSES or (status == 403 and bool(retry_after or exhausted))
    if retry_after is None:
        retry_after = max((each.reset_ns for each in exhausted if each.reset_ns), default=None)
    return RateAdvice(denied, retry_after if denied else None, allowances)


def _join_fields(headers: Headers) -> dict[str, str]:
    """Return the values by lower-case name, several fields of one name joined (RFC 9110, section 5.3)."""
    fields: dict[str, str] = {}
    pairs: Iterable[tuple[str, str]] = headers.items() if hasattr(headers, "items") else headers
    if isinstance(pairs, str) or not isinstance(pairs, Iterable):
        raise InputError(f"headers must be a mapping or pairs of names and values, got {short_repr(headers)}")
    for name, value in pairs:
        key = name.lower()
        fields[key] = f"{fields[key]}, {value}" if key in fields else value
    return fields


def _read_now(fields: Mapping[str, str], now: float | None) -> float:
    """Return the time of a response, in seconds since 1970."""
    date = _read_date(fields.get("date"))
    return date if date is not None else default_clocks.wall() / NS_PER_S if now is None else now


def _read_policies(fields: Mapping[str, str]) -> list[Allowance]:
    """Read `RateLimit` and `RateLimit-Policy`; a policy without a state is taken to be unused."""
    quotas = dict(read_items(fields.get("ratelimit-policy", ""), "q"))
    states = dict(read_items(fields.get("ratelimit", ""), "r"))
    return [
        Allowance(
            quotas.get(name, {}).get("q"),
            _to_ns(quotas.get(name, {}).get("w")),
            states.get(name, {}).get("r"),
            _to_ns(states.get(name, {}).get("t")),
        )
        for name in quotas | states
    ]


def _read_legacy(fields: Mapping[str, str], read_now: Callable[[], float]) -> list[Allowance]:
    """Read `X-RateLimit-Limit`, `-Remaining` and `-Reset`, or the same names with another prefix."""
    for prefix in _LEGACY_PREFIXES:
        if f"{prefix}remaining" not in fields:
            continue
        limit, remaining = (_COUNT.fullmatch(fields.get(prefix + name, "")) for name in ("limit", "remaining"))
        if remaining:
            reset = _read_reset(fields.get(f"{prefix}reset", ""), read_now)
            return [Allowance(int(limit[1]) if limit else None, None, int(remaining[1]), reset)]
    return []


def _read_reset(text: str, read_now: Callable[[], float]) -> int | None:
    """Return the nanoseconds until a reset, which is a delay or a time since 1970, in whichever unit is plausible."""
    match = _SECONDS.fullmatch(text)
    if match is None:
        return None
    value = float(match[1])
    for least, unit in _EPOCH_UNITS:
        if value >= least:
            delay = value / unit - read_now()
            return _to_ns(max(0.0, delay)) if delay > -2 else None  # both times may be rounded down
    return _to_ns(value)


def _read_retry_after(text: str | None, read_now: Callable[[], float]) -> int | None:
    """Return the nanoseconds to wait, if that is a positive and plausible time."""
    if text is None:
        return None
    match = re.fullmatch(r"\s*(\d{1,15})\s*", text)
    if match:
        return _to_ns(int(match[1])) or None
    date = _read_date(text)
    delay = 0.0 if date is None else date - read_now()
    return _to_ns(delay) if delay > 0 else None


def _read_date(text: str | None) -> float | None:
    try:
        return None if text is None else parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError, OSError):
        return None


def _to_ns(seconds: float | None) -> int | None:
    return None if seconds is None or seconds > MAX_ADVISED_S else int(seconds * NS_PER_S)
