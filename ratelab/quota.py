"""Quotas and durations: exact values, parsed from and formatted as text."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fractions import Fraction
from math import gcd
from typing import Self

from ratelab.calendar import Calendar, Runs, find_runs, load_zone
from ratelab.errors import InputError, short_repr

UNITS = {
    "ns": 1,
    "us": 10**3,
    "ms": 10**6,
    "s": 10**9,
    "min": 60 * 10**9,
    "h": 3600 * 10**9,
    "day": 86400 * 10**9,
}
"""Nanoseconds in each unit of time that is written, shortest first."""

_SPELLINGS = {
    "ns": "nsec nsecs nanosecond nanoseconds",
    "us": "usec usecs \u00b5s \u03bcs microsecond microseconds",
    "ms": "msec msecs millisecond milliseconds",
    "s": "sec secs second seconds",
    "min": "mins minute minutes",
    "h": "hr hrs hour hours",
    "day": "d days",
}
"""Other spellings of the units, which are read and never written."""

_READ_UNITS = {
    **UNITS,
    **{name: UNITS[unit] for unit, names in _SPELLINGS.items() for name in names.split()},
    **dict.fromkeys(("week", "weeks", "w"), 7 * UNITS["day"]),
}

_MONTHS = ("month", "months", "mo")

NS_PER_US, NS_PER_S = UNITS["us"], UNITS["s"]

LARGEST = 2**62 - 1
"""Largest integer in a quota: twice it is still less than `NEVER`. In nanoseconds, 146 years."""

_NUMBER = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?")
_DURATION = re.compile(rf"\s*({_NUMBER.pattern})?\s*([^\W\d_]*)\s*")


def parse_duration(text: str) -> int:
    """Parse a duration such as `0s`, `10s`, `0.5s` or `2min`; return whole nanoseconds.

    Units are those of `UNITS`, their usual other spellings, such as `sec`, `minutes`, `hr` and `d`, and weeks.
    Raises `InputError` unless the text is a decimal number >= 0 with a unit, and for a fraction of a nanosecond or more
    than `LARGEST`.
    """
    length = _duration(text)
    if length.denominator != 1:
        raise InputError(f"a duration must be a whole number of nanoseconds, got {short_repr(text)}")
    if length > LARGEST:
        raise InputError(f"a duration must be at most 146 years, got {short_repr(text)}")
    return int(length)


def format_duration(nanoseconds: int) -> str:
    """Format a duration exactly: `2.5s`, `500ms`, `90s`, `2h`."""
    for unit in ("day", "h", "min"):
        if nanoseconds and nanoseconds % UNITS[unit] == 0:
            return f"{nanoseconds // UNITS[unit]}{unit}"
    unit = next((u for u in ("s", "ms", "us") if nanoseconds >= UNITS[u] or not nanoseconds), "ns")
    whole, part = divmod(nanoseconds, UNITS[unit])
    digits = f"{part:0{len(str(UNITS[unit])) - 1}d}".rstrip("0") if part else ""
    return f"{whole}.{digits}{unit}" if digits else f"{whole}{unit}"


def spell_duration(nanoseconds: int) -> str:
    """Format a duration exactly, for reading: `2.5 s`, `500 ms`, `90 s`, `2 h`."""
    return re.sub(r"(?<=[0-9])(?=[a-z])", " ", format_duration(nanoseconds))


def about(nanoseconds: int) -> str:
    """Format a duration for reading, in one or two units: `2.5 s`, `33 min 17 s`, `3 days 11 h`."""
    for unit, part in (("day", "h"), ("h", "min"), ("min", "s")):
        whole, rest = divmod((nanoseconds + UNITS[part] // 2) // UNITS[part], UNITS[unit] // UNITS[part])
        if whole:
            plural = "s" if unit == "day" and whole > 1 else ""
            return f"{whole:,} {unit}{plural}{f' {rest} {part}' if rest else ''}"
    figures = ((float(f"{nanoseconds / UNITS[unit]:.3g}"), unit) for unit in ("s", "ms", "us", "ns"))
    return next((f"{figure:g} {unit}" for figure, unit in figures if figure >= 1), "0 s")


@dataclass(frozen=True, slots=True, init=False)
class Quota:
    """A rate of `limit` units of cost per `period` nanoseconds, and up to `burst` (default `limit`) at once.

    `limit` and `period` are divided by their greatest common divisor, so equal rates compare equal.

    With a `calendar`, the quota is `burst` in each of its windows. `limit` per `period` is then the average rate: a
    month counts as 1/4800 of the 400 years after which the Gregorian calendar repeats, 30 days 10 h 29 min 6 s.

    Raises `InputError` unless each is a whole number from 1 to `LARGEST`, and if `burst` at the rate does not take an
    average window of the calendar.
    """

    limit: int
    period: int
    burst: int
    calendar: Calendar | None

    def __init__(self, limit: int, period: int, burst: int | None = None, calendar: Calendar | None = None) -> None:
        _check_whole("limit", limit)
        _check_whole("period", period)
        _check_whole("burst", limit if burst is None else burst)
        common = gcd(limit, period)
        object.__setattr__(self, "limit", limit // common)
        object.__setattr__(self, "period", period // common)
        object.__setattr__(self, "burst", limit if burst is None else burst)
        object.__setattr__(self, "calendar", calendar)
        if calendar is not None and self.burst * self.period != calendar.nominal * self.limit:
            raise InputError(
                f"a {calendar.unit} of the calendar admits its whole count at once, so burst must be "
                f"{calendar.nominal * self.limit // self.period}, got {self.burst}: leave out the burst"
            )
        if self.window > LARGEST:
            raise InputError(
                f"burst / rate must be at most 146 years, got burst {self.burst} at {self.rate}: "
                "lower the burst or raise the rate"
            )

    @classmethod
    def parse(cls, rate: str, burst: int | None = None) -> Self:
        """Parse a rate such as `2/s`, `100/min`, `5/2.5s` or `2.5/s` (which is 5 per 2 s), exactly.

        Without `burst`, the burst is the rate's count; a decimal count is first made whole, so that `2.5/s` has a
        burst of 5. A rate per month is one by the calendar, in UTC; `in_timezone` names another zone. Raises
        `InputError` for any other text, and for a rate of 0.
        """
        count, period, calendar = _rate(rate)
        if burst is None:
            burst = count.numerator
        else:
            _check_whole("burst", burst)
        per_ns = count / period
        if max(per_ns.numerator, per_ns.denominator) > LARGEST:
            raise InputError(f"rate has too many digits or too long a period: round it, got {short_repr(rate)}")
        return cls(per_ns.numerator, per_ns.denominator, burst, calendar)

    @classmethod
    def of(cls, rate: str | Quota, burst: int | None = None) -> Quota:
        """Return the quota of `rate`, a quota or text for `parse`, with another `burst` if one is given."""
        if isinstance(rate, Quota):
            return rate if burst is None else cls(rate.limit, rate.period, burst, rate.calendar)
        return cls.parse(rate, burst)

    def in_timezone(self, name: str) -> Quota:
        """Return this quota for windows of the calendar in a time zone, such as `Europe/Berlin`.

        Raises `InputError` unless the rate grants the burst in a day, a week or a month, and for an unknown zone.
        """
        load_zone(name)
        units = {UNITS["day"]: "day", 7 * UNITS["day"]: "week"}
        window, rest = divmod(self.burst * self.period, self.limit)
        unit = self.calendar.unit if self.calendar is not None else units.get(0 if rest else window)
        if unit is None:
            raise InputError(
                f"a timezone needs a window of a day, a week or a month, got {self}: "
                "write a rate such as 1000/day without a burst, or leave out the timezone"
            )
        return Quota(self.limit, self.period, self.burst, Calendar(unit, name))

    def in_microseconds(self) -> Quota:
        """Return this quota with the microsecond as its unit of time, in which a store counts."""
        calendar = self.calendar and self.calendar._replace(tick=NS_PER_US)
        return Quota(self.limit * NS_PER_US, self.period, self.burst, calendar)

    @property
    def runs(self) -> Runs:
        """The windows of the calendar, which the quota must have."""
        assert self.calendar is not None  # noqa: S101  (`build_policy` builds plain windows otherwise)
        return find_runs(self.calendar)

    @property
    def window(self) -> int:
        """Nanoseconds in which the rate grants `burst`: ceil(burst * period / limit)."""
        return -(-self.burst * self.period // self.limit)

    @property
    def rate(self) -> str:
        """The rate as text that `parse` reads back exactly: per s, min, h or day where the count is whole.

        A rate by the calendar is one per day, week or month, without its time zone.
        """
        if self.calendar is not None:
            return f"{self.burst}/{self.calendar.unit}"
        for unit in ("s", "min", "h", "day"):
            count, rest = divmod(self.limit * UNITS[unit], self.period)
            if not rest:
                return f"{count}/{unit}"
        return f"{self.limit}/{format_duration(self.period)}"

    def __str__(self) -> str:
        return (
            f"{self.rate}, burst {self.burst}" if self.calendar is None else f"{self.rate} in {self.calendar.timezone}"
        )


def _check_whole(name: str, value: object) -> None:
    """Raise `InputError` unless `value` is a whole number from 1 to `LARGEST`; booleans are not."""
    if type(value) is not int or not 1 <= value <= LARGEST:
        raise InputError(f"{name} must be a whole number from 1 to 2**62 - 1, got {short_repr(value)}")


def _rate(text: str) -> tuple[Fraction, Fraction, Calendar | None]:
    """Parse a rate into its count and its period in nanoseconds, both above 0, and its calendar."""
    count_text, slash, period_text = text.partition("/") if type(text) is str else ("", "", "")
    if not slash or not _NUMBER.fullmatch(count_text.strip()):
        raise _invalid_rate(text)
    calendar = None
    try:
        if period_text.strip() in _MONTHS:
            calendar = Calendar("month")
        period = _duration(period_text, number="1") if calendar is None else Fraction(calendar.nominal)
    except InputError as error:
        raise _invalid_rate(text, str(error)) from None
    count = Fraction(count_text.strip())
    if not count or not period:
        raise InputError(f"rate must be above 0, got {short_repr(text)}")
    if calendar is not None and count.denominator != 1:
        raise InputError(f"a rate per month must be a whole number, got {short_repr(text)}: round it")
    return count, period, calendar


def _invalid_rate(text: object, reason: str = "") -> InputError:
    """Return the error for a rate, with the remedy if it is written as other packages write rates."""
    written = str(text)
    if per := re.fullmatch(r"\s*(\d+)\s+per\s+(?:(\d+)\s+)?([a-z]+)\s*", written):
        reason = f"write {per[1]}/{per[2] or ''}{per[3]}"
    elif len(parts := re.split("[;,]", written)) > 1 and all("/" in part for part in parts):
        reason = "give each rate by itself"
    message = f"rate must look like 2/s, 100/min or 5/2.5s, got {short_repr(text)}"
    return InputError(f"{message}: {reason}" if reason else message)


def _duration(text: str, number: str = "") -> Fraction:
    """Parse a duration into nanoseconds, exactly; `number` is used where only a unit is written."""
    match = _DURATION.fullmatch(text) if type(text) is str else None
    number = (match[1] or number) if match else ""
    if match is None or not number:
        raise InputError(f"a duration must look like 10s, 0.5s or 2min, got {short_repr(text)}")
    if match[2] in _MONTHS:
        raise InputError("a month has 28 to 31 days: name a number of days, or the rate of one month, as in 1000/month")
    if match[2] not in _READ_UNITS:
        unit = f"unknown unit {match[2]!r}" if match[2] else f"no unit in {short_repr(text)}"
        raise InputError(f"{unit}, a duration takes one of {', '.join(UNITS)}, week")
    return Fraction(number) * _READ_UNITS[match[2]]
