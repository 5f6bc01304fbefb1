"""Timestamps of traces: numbers, ISO 8601 and log times, parsed exactly as nanoseconds since 1970."""

from __future__ import annotations

import re
from datetime import date
from decimal import Context, Decimal
from functools import lru_cache
from math import floor

from ratelab.errors import short_repr
from ratelab.lab.traces.batches import LineError
from ratelab.quota import LARGEST, NS_PER_S

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

_CONTEXT = Context(prec=60)
_EPOCH_DAY = date(1970, 1, 1).toordinal()

_DECIMAL_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_HOUR_AND_MINUTE = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
_SECOND_OF_MINUTE = r":(?P<second>[0-5][0-9]|60)(?:[.,](?P<fraction>[0-9]+))?"
_LOG_TIME = re.compile(
    rf"(?P<date>[0-9]{{2}}/(?:{'|'.join(MONTHS)})/[0-9]{{4}}):{_HOUR_AND_MINUTE}{_SECOND_OF_MINUTE}"
    r" (?P<zone>[+-][0-9]{4})"
)
_ISO_TIME = re.compile(
    rf"(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt ]{_HOUR_AND_MINUTE}(?:{_SECOND_OF_MINUTE})?"
    r" ?(?P<zone>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)

# RE2 is much faster with four groups than with five, so the fraction has no group of its own.
_RE2_SECOND = r":(?P<second>[0-5][0-9](?:\.[0-9]{1,9})?)"
RE2_NUMBER = r"(?P<whole>[0-9]{1,18})(?:\.(?P<fraction>[0-9]{1,9}))?"
RE2_ISO_TIME = (
    r"(?P<minute>[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2})"
    rf"{_RE2_SECOND}(?P<zone>Z|[+-][0-9]{{2}}:?[0-9]{{2}})?"
)
RE2_LOG_TIME = (
    rf"(?P<minute>[0-9]{{2}}/[A-Za-z]{{3}}/[0-9]{{4}}:[0-9]{{2}}:[0-9]{{2}}){_RE2_SECOND}(?P<zone> [+-][0-9]{{4}})"
)
RE2_TIMES = (RE2_NUMBER, RE2_ISO_TIME, RE2_LOG_TIME)
"""Patterns of common times. `parse_time` adds the groups up as the columnar reader does, or rejects the text."""


def parse_time(text: str, unit: int) -> int:
    """Parse a time as whole nanoseconds since 1970, rounded down.

    A number counts units of `unit` nanoseconds. Other text is ISO 8601 (UTC if it has no zone) or the time of a log
    line, `17/May/2015:10:05:03 +0000`. A leap second is the first second of the next minute, as in POSIX.
    Raises `LineError` for other text, and for more than 146 years from 1970.
    """
    number = parse_decimal(text, unit)
    if number is None:
        return _parse_calendar_time(text)
    if abs(number) > LARGEST:
        raise LineError(f"time must be within 146 years of 1970, got {short_repr(text)}: check --time-unit")
    return floor(number)


@lru_cache(maxsize=1024)
def parse_log_time(text: str) -> int:
    """Parse a time that is not a number, as `parse_time` does. Cached, since a second has many requests."""
    return _parse_calendar_time(text)


def parse_decimal(text: str, factor: int = 1) -> Decimal | None:
    """Return a decimal number times `factor`, to 60 digits; None for other text, and for NaN and infinity."""
    return _CONTEXT.multiply(Decimal(text), factor) if _DECIMAL_NUMBER.fullmatch(text) else None


def _parse_calendar_time(text: str) -> int:
    match = _ISO_TIME.fullmatch(text) or _LOG_TIME.fullmatch(text)
    if match is None:
        raise LineError(f"time must be a number or look like 2015-05-17T10:05:03Z, got {short_repr(text)}")
    try:
        midnight = _parse_midnight(match["date"], match["zone"])
    except ValueError as error:
        raise LineError(f"time must be on a day of the calendar, got {short_repr(text)} ({error})") from None
    hour, minute, second, fraction = match.group("hour", "minute", "second", "fraction")
    seconds = midnight + int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    time = seconds * NS_PER_S + (int(f"{fraction:0<9}"[:9]) if fraction else 0)
    if abs(time) > LARGEST:
        raise LineError(f"time must be within 146 years of 1970, got {short_repr(text)}")
    return time


@lru_cache(maxsize=64)
def _parse_midnight(day: str, zone: str | None) -> int:
    """Return the seconds from 1970 to the start of a day in a zone such as `+0130`, `+01:30`, `-08` or `Z`."""
    if "/" in day:
        day = f"{day[7:]}-{MONTHS.index(day[3:6]) + 1:02}-{day[:2]}"
    midnight = (date.fromisoformat(day).toordinal() - _EPOCH_DAY) * 86400
    if zone is None or zone in "Zz":
        return midnight
    offset = int(zone[1:3]) * 3600 + int(zone[3:].lstrip(":") or 0) * 60
    return midnight - offset if zone[0] == "+" else midnight + offset
