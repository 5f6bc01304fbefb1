"""Instants: the ways a trace writes the time, read exactly as nanoseconds since 1970."""

from __future__ import annotations

import re
from datetime import date
from decimal import Context, Decimal
from functools import lru_cache
from math import floor

from ratelab.errors import short_repr
from ratelab.lab.traces.files import LineError
from ratelab.quota import LARGEST, UNITS

_EXACT = Context(prec=60)
_EPOCH = date(1970, 1, 1).toordinal()
MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]

_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_MINUTE = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
_SECOND = r":(?P<second>[0-5][0-9]|60)(?:[.,](?P<fraction>[0-9]+))?"
_LOG = re.compile(
    rf"(?P<date>[0-9]{{2}}/(?:{'|'.join(MONTHS)})/[0-9]{{4}}):{_MINUTE}{_SECOND} (?P<zone>[+-][0-9]{{4}})"
)
_ISO = re.compile(
    rf"(?P<date>[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}})[Tt ]{_MINUTE}(?:{_SECOND})?"
    r" ?(?P<zone>[Zz]|[+-][0-9]{2}(?::?[0-9]{2})?)?"
)

# RE2 is much quicker with four groups than with five, so a fraction has none of its own.
_OF_SECOND = r":(?P<second>[0-5][0-9](?:\.[0-9]{1,9})?)"
PLAIN_NUMBER = r"(?P<whole>[0-9]{1,18})(?:\.(?P<fraction>[0-9]{1,9}))?"
"""Nearly every time that is a number."""
PLAIN_ISO = (
    r"(?P<minute>[0-9]{4}-[0-9]{2}-[0-9]{2}[T ][0-9]{2}:[0-9]{2})"
    rf"{_OF_SECOND}(?P<zone>Z|[+-][0-9]{{2}}:?[0-9]{{2}})?"
)
"""Nearly every time in ISO 8601."""
PLAIN_LOG = (
    rf"(?P<minute>[0-9]{{2}}/[A-Za-z]{{3}}/[0-9]{{4}}:[0-9]{{2}}:[0-9]{{2}}){_OF_SECOND}(?P<zone> [+-][0-9]{{4}})"
)
"""Nearly every time of a log."""
PLAIN_TIMES = (PLAIN_NUMBER, PLAIN_ISO, PLAIN_LOG)
"""What one of these matches, `read_instant` reads as the sum of its parts, or refuses."""


def read_number(text: str, unit: int = 1) -> Decimal | None:
    """Read a decimal number times `unit`, to 60 digits; None for anything else, NaN and infinity included."""
    return _EXACT.multiply(Decimal(text), unit) if _NUMBER.fullmatch(text) else None


def read_instant(text: str, unit: int) -> int:
    """Read a time as nanoseconds since 1970, rounded down to a whole one.

    A number counts `unit` nanoseconds each. Other text is ISO 8601 (UTC where it names no zone) or a log's
    `17/May/2015:10:05:03 +0000`. A leap second is the first of the next minute, as POSIX has it.
    Raises `LineError` for anything else and for more than 146 years from 1970.
    """
    number = read_number(text, unit)
    if number is None:
        return _calendar_instant(text)
    if abs(number) > LARGEST:
        raise LineError(f"time must lie within 146 years of 1970, got {short_repr(text)}: check --time-unit")
    return floor(number)


@lru_cache(maxsize=1024)
def read_log_instant(text: str) -> int:
    """Read a time that is not a number, as `read_instant` does; the requests of a second cost one reading."""
    return _calendar_instant(text)


def _calendar_instant(text: str) -> int:
    """Put the parts of a written time together."""
    match = _ISO.fullmatch(text) or _LOG.fullmatch(text)
    if match is None:
        raise LineError(f"time must be a number or look like 2015-05-17T10:05:03Z, got {short_repr(text)}")
    try:
        midnight = _midnight(match["date"], match["zone"])
    except ValueError as error:
        raise LineError(f"time must be a day of the calendar, got {short_repr(text)} ({error})") from None
    hour, minute, second, fraction = match.group("hour", "minute", "second", "fraction")
    seconds = midnight + int(hour) * 3600 + int(minute) * 60 + int(second or 0)
    instant = seconds * UNITS["s"] + (int(f"{fraction:0<9}"[:9]) if fraction else 0)
    if abs(instant) > LARGEST:
        raise LineError(f"time must lie within 146 years of 1970, got {short_repr(text)}")
    return instant


@lru_cache(maxsize=64)
def _midnight(day: str, zone: str | None) -> int:
    """Count the seconds from 1970 to the start of a day in a zone such as `+0130`, `+01:30`, `-08` or `Z`."""
    if "/" in day:
        day = f"{day[7:]}-{MONTHS.index(day[3:6]) + 1:02}-{day[:2]}"
    midnight = (date.fromisoformat(day).toordinal() - _EPOCH) * 86400
    if zone is None or zone in "Zz":
        return midnight
    ahead = int(zone[1:3]) * 3600 + int(zone[3:].lstrip(":") or 0) * 60
    return midnight - ahead if zone[0] == "+" else midnight + ahead
