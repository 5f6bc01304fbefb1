"""Timestamps of traces: numbers, ISO 8601 and log times, parsed exactly as nanoseconds since 1970."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime, tzinfo
from decimal import Context, Decimal
from functools import lru_cache
from math import floor
from zoneinfo import ZoneInfo

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.batches import LineError
from ratelab.quota import LARGEST, NS_PER_S, UNITS

MONTHS = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"]
TIME_UNITS = ("auto", "s", "ms", "us", "ns", "excel")
"""Units of times that are numbers; `excel` is days since 30 December 1899, as in spreadsheets."""

_CONTEXT = Context(prec=60)
_EPOCH_DAY = date(1970, 1, 1).toordinal()
_EXCEL_EPOCH_DAYS = 25_569
_NS_PER_MS = 1_000_000
_FIRST_PLAUSIBLE_S = 315_532_800  # 1980: before, a number is rather a duration

_DECIMAL_NUMBER = re.compile(r"[+-]?[0-9]+(?:\.[0-9]*)?(?:[eE][+-]?[0-9]{1,3})?")
_HOUR_AND_MINUTE = r"(?P<hour>[01][0-9]|2[0-3]):(?P<minute>[0-5][0-9])"
_SECOND_OF_MINUTE = r":(?P<second>[0-5][0-9]|60)(?:[.,](?P<fraction>[0-9]+))?"
_LOG_TIME = re.compile(
    rf"(?P<date>[0-9]{{2}}/(?:{'|'.join(MONTHS)})/[0-9]{{4}})[: ]{_HOUR_AND_MINUTE}{_SECOND_OF_MINUTE}"
    r"(?: ?(?P<zone>[Zz]|UTC|GMT|[+-][0-9]{2}:?[0-9]{2}))?"
)
_MONTH = rf"(?P<month>{'|'.join(MONTHS)})"
_CLOCK = r"(?P<clock>[0-9]{2}:[0-9]{2}:[0-9]{2}(?:\.[0-9]+)?)"
_OTHER_TIMES = [
    re.compile(rf"(?:[A-Z][a-z]+, )?(?P<day>[0-9]{{1,2}})[ -]{_MONTH}[ -](?P<year>[0-9]{{4}}) {_CLOCK}(?P<zone> .+)?"),
    re.compile(rf"[A-Z][a-z]{{2}} {_MONTH} +(?P<day>[0-9]{{1,2}}) {_CLOCK} (?P<year>[0-9]{{4}})(?P<zone>)"),
]  # RFC 9110, section 5.6.7: the time of HTTP headers, and that of asctime
_ISO_TIME = re.compile(
    rf"(?P<date>[0-9]{{4}}[-/][0-9]{{2}}[-/][0-9]{{2}})[Tt ]{_HOUR_AND_MINUTE}(?:{_SECOND_OF_MINUTE})?"
    r" ?(?P<zone>[Zz]|UTC|GMT|[+-][0-9]{2}(?::?[0-9]{2})?)?(?(zone)(?: [A-Z]{3,4})?)"
)

# RE2 is much faster with four groups than with five, so the fraction has no group of its own.
_RE2_SECOND = r":(?P<second>[0-5][0-9](?:\.[0-9]{1,9})?)"
RE2_NUMBER = r"(?P<whole>[0-9]{1,18})(?:\.(?P<fraction>[0-9]{1,9}))?"
RE2_ISO_TIME = (
    r"(?P<minute>[0-9]{4}[-/][0-9]{2}[-/][0-9]{2}[T ][0-9]{2}:[0-9]{2})"
    rf"{_RE2_SECOND}(?P<zone> ?(?:Z|UTC|[+-][0-9]{{2}}:?[0-9]{{2}}))?"
)
RE2_LOG_TIME = (
    r"(?P<minute>[0-9]{2}/[A-Za-z]{3}/[0-9]{4}[: ][0-9]{2}:[0-9]{2})"
    rf"{_RE2_SECOND}(?P<zone> ?[+-][0-9]{{2}}:?[0-9]{{2}})?"
)


@dataclass(frozen=True)
class TimeRule:
    """How the times of a file are written. Raises `InputError` for an invalid `template`."""

    unit: str = "s"
    """The unit of times that are numbers, one of `TIME_UNITS`; `auto` counts as `s`."""
    template: str | None = None
    """The format of all times, as for `strptime`; None for a number, ISO 8601 or the time of a log."""
    zone: tzinfo = UTC
    """The zone of times that name none."""

    def __post_init__(self) -> None:
        if self.template is not None and not {"%Y", "%y", "%G", "%c", "%x", "%s"} & set(
            re.findall("%.", self.template)
        ):
            raise InputError(f"a time format must have a year, %Y, got {short_repr(self.template)}: add the date")

    @property
    def unit_ns(self) -> int:
        """Nanoseconds of one unit; of a day for `excel`."""
        return UNITS["day"] if self.unit == "excel" else UNITS["s" if self.unit == "auto" else self.unit]

    @property
    def is_plain(self) -> bool:
        """Whether times may be split into numbers column by column."""
        return self.template is None and self.unit != "excel"

    def parse(self, text: str) -> int:
        """Parse a time as whole nanoseconds since 1970, rounded down; raise `LineError` for other text."""
        if self.template is not None:
            return _parse_by_template(text, self.template, self.zone)
        return parse_time(text, self.unit_ns, _EXCEL_EPOCH_DAYS if self.unit == "excel" else 0, self.zone)

    def parse_minute(self, text: str) -> int | None:
        """Parse a time that is not a number; None for other text."""
        try:
            return parse_calendar_time(text, self.zone)
        except LineError:
            return None


def parse_time(text: str, unit: int, epoch: int = 0, zone: tzinfo = UTC) -> int:
    """Parse a time as whole nanoseconds since 1970, rounded down.

    A number counts units of `unit` nanoseconds since `epoch` units before 1970. Other text is ISO 8601 (in `zone` if
    it names none) or the time of a log line, `17/May/2015:10:05:03 +0000`. A leap second is the first second of the
    next minute, as in POSIX. Raises `LineError` for other text, and for more than 146 years from 1970.
    """
    number = parse_decimal(text)
    if number is None:
        return parse_calendar_time(text, zone)
    number = _CONTEXT.multiply(_CONTEXT.subtract(number, epoch), unit)
    if abs(number) > LARGEST:
        raise LineError(f"time must be within 146 years of 1970, got {short_repr(text)}: check --time-unit")
    return round(number / _NS_PER_MS) * _NS_PER_MS if epoch else floor(number)


def parse_decimal(text: str) -> Decimal | None:
    """Return a decimal number; None for other text, and for NaN and infinity."""
    return _CONTEXT.create_decimal(text) if _DECIMAL_NUMBER.fullmatch(text) else None


@lru_cache(maxsize=1024)
def parse_calendar_time(text: str, zone: tzinfo = UTC) -> int:
    """Parse a time that is not a number, as `parse_time` does. Cached, since a second has many requests."""
    match = _match_time(text)
    if match is None:
        raise LineError(
            f"time must be a number or look like 2015-05-17T10:05:03Z, got {short_repr(text)}: check --time-format"
        )
    hour, minute, second, fraction = match.group("hour", "minute", "second", "fraction")
    try:
        midnight = _parse_midnight(match["date"], match["zone"])
        seconds = midnight + int(hour) * 3600 + int(minute) * 60 + int(second or 0)
        if match["zone"] is None and zone is not UTC:
            seconds -= _get_offset(seconds, zone)
    except (ValueError, OverflowError) as error:
        raise LineError(f"time must be on a day of the calendar, got {short_repr(text)} ({error})") from None
    time = seconds * NS_PER_S + (int(f"{fraction:0<9}"[:9]) if fraction else 0)
    if abs(time) > LARGEST:
        raise LineError(f"time must be within 146 years of 1970, got {short_repr(text)}")
    return time


def _match_time(text: str) -> re.Match[str] | None:
    """Match ISO 8601 or the time of a log; other known forms are rewritten as the latter."""
    match = _ISO_TIME.fullmatch(text) or _LOG_TIME.fullmatch(text)
    for pattern in _OTHER_TIMES if match is None else ():
        other = pattern.fullmatch(text)
        if other is not None:
            day, month, year, clock, zone = other.group("day", "month", "year", "clock", "zone")
            return _LOG_TIME.fullmatch(f"{day:0>2}/{month}/{year}:{clock}{zone or ''}")
    return match


@lru_cache(maxsize=64)
def _parse_midnight(day: str, zone: str | None) -> int:
    """Return the seconds from 1970 to the start of a day in a zone such as `+0130`, `+01:30`, `-08` or `Z`."""
    if day[2] == "/":
        day = f"{day[7:]}-{MONTHS.index(day[3:6]) + 1:02}-{day[:2]}"
    midnight = (date.fromisoformat(day.replace("/", "-")).toordinal() - _EPOCH_DAY) * 86400
    if zone is None or zone[0] not in "+-":
        return midnight
    offset = int(zone[1:3]) * 3600 + int(zone[3:].lstrip(":") or 0) * 60
    return midnight - offset if zone[0] == "+" else midnight + offset


def _get_offset(seconds: int, zone: tzinfo) -> int:
    """Return the seconds by which local time is ahead of UTC, at a local time given in seconds since 1970."""
    local = datetime.fromtimestamp(seconds, UTC).replace(tzinfo=zone)
    offset = local.utcoffset()
    return 0 if offset is None else round(offset.total_seconds())


@lru_cache(maxsize=1024)
def _parse_by_template(text: str, template: str, zone: tzinfo) -> int:
    try:
        moment = datetime.strptime(text, template)
    except ValueError:
        raise LineError(f"time must look like {template}, got {short_repr(text)}: check --time-format") from None
    moment = moment.replace(tzinfo=moment.tzinfo or zone)
    time = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // _MICROSECOND * 1000
    if abs(time) > LARGEST:
        raise LineError(f"time must be within 146 years of 1970, got {short_repr(text)}")
    return time


_MICROSECOND = datetime.resolution


def find_zone(name: str) -> tzinfo:
    """Return a time zone such as Europe/Berlin; raise `InputError` for an unknown name."""
    if name.upper() == "UTC":
        return UTC
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise InputError(f"unknown time zone {short_repr(name)}: give one such as UTC or Europe/Berlin") from None


# --- sample times


def guess_unit(texts: Iterable[str]) -> str:
    """Return the unit in which most of these times, if they are numbers, lie between 1973 and 5138."""
    numbers = sorted(abs(number) for text in texts if (number := parse_decimal(text)) is not None)
    middle = numbers[len(numbers) // 2] if numbers else Decimal(0)
    bounds = (("s", 11), ("ms", 14), ("us", 17))
    return next((unit for unit, digits in bounds if middle < 10**digits), "ns")


def is_plausible(text: str, rule: TimeRule) -> bool:
    """Return whether a text is a time from 1980 on, rather than a duration or no time at all."""
    try:
        time = TimeRule(guess_unit([text]), rule.template, rule.zone).parse(text)
    except LineError:
        return False
    return time >= _FIRST_PLAUSIBLE_S * NS_PER_S


def lacks_zone(text: str) -> bool:
    """Return whether a time names no zone; a number needs none."""
    match = _match_time(text)
    return match is not None and match["zone"] is None


def is_excel_serial(text: str) -> bool:
    """Return whether a number may be a date of a spreadsheet, of 2000 to 2100."""
    number = parse_decimal(text)
    return number is not None and 36_526 <= number < 73_051 and "." in text
