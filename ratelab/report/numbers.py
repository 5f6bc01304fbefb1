"""Numbers, shares, durations and dates as people read them: one format of each for all tables, sentences and charts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction
from math import floor, log10
from re import compile as compile_pattern
from textwrap import TextWrapper

from ratelab.lab.traffic import Traffic
from ratelab.quota import UNITS, Quota, about

MIN_DATED_NS = 3650 * UNITS["day"]
"""Nanoseconds since 1970 from which on the clock of traffic is that of a calendar; a scenario's begins at 0."""


def format_count(count: int) -> str:
    """Format a count, with `none` for 0."""
    return f"{count:,}" if count else "none"


def pluralize(count: int, noun: str) -> str:
    """Format a count of things: `1 request`, `2,000 requests`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def format_part(part: int, whole: int, noun: str) -> str:
    """Format a part of a whole: `7 of 20 requests (35 %)`, `all 20 requests`, `the only request`."""
    if part < whole:
        return f"{part:,} of {pluralize(whole, noun)} ({format_percent(part / whole)})"
    return f"all {pluralize(whole, noun)}" if whole > 1 else f"the only {noun}"


def format_share(count: int, whole: int) -> str:
    """Format a count with its share of a whole: `2 (0.11 %)`, `none`."""
    return f"{count:,} ({format_percent(count / max(1, whole))})" if count else "none"


def format_percent(ratio: float) -> str:
    """Format a ratio as a percentage: `44.1 %`, `1.31 %`, `0.0037 %`, `99.996 %`, `190 %`.

    It is never rounded to 0 or 100 %: there are two significant digits of the smaller part.
    """
    percentage = 100 * ratio
    smaller = min(percentage, 100 - percentage)
    if smaller <= 0:
        return f"{format_factor(percentage)} %"
    digits = 1 if 10 <= percentage <= 99 else max(2, 1 - floor(log10(smaller)))
    return f"{percentage:.{digits}f}".rstrip("0").rstrip(".") + " %"


def format_factor(factor: float) -> str:
    """Format a factor with three digits, or as a whole number: `0.000083`, `1.53`, `901`, `8,387`."""
    return f"{Decimal(f'{factor:.3g}'):,f}" if factor < 1000 else f"{factor:,.0f}"


def format_seconds(value: float) -> str:
    """Format a time in seconds for reading: `0`, `1.97 s`, `58 min 23 s`."""
    return about(round(value * 1e9)) if value else "0"


def format_per_second(value: float) -> str:
    """Format a number of things a second: `0.35/s`, `421/s`, `1,004/s`."""
    return f"{format_factor(value)}/s"


def format_rate(quota: Quota) -> str:
    """Format the rate of a quota: `2/s`, `1,000/min`."""
    count, _, period = quota.rate.partition("/")
    return f"{int(count):,}/{period}"


def format_rate_in(quota: Quota, unit: str) -> str:
    """Format the rate of a quota in a unit of time: `3.73/min`."""
    count = Fraction(quota.limit * UNITS[unit], quota.period)
    return f"{float(count):,.9f}".rstrip("0").rstrip(".") + f"/{unit}"


def format_quota(quota: Quota) -> str:
    """Format a quota: `1,000/min, burst 20`, or by the calendar `1,000/day in Europe/Berlin`."""
    if quota.calendar is not None:
        return f"{format_rate(quota)} in {quota.calendar.timezone}"
    return f"{format_rate(quota)}, burst {quota.burst:,}"


def is_dated(traffic: Traffic) -> bool:
    """Return whether the clock of the traffic is that of a calendar."""
    return traffic.origin >= MIN_DATED_NS


def format_moment(traffic: Traffic, time: int) -> str:
    """Format a time of the traffic: as date and time in UTC if it has dates, else since its beginning."""
    if not is_dated(traffic):
        return about(time)
    return f"{parse_clock(traffic.origin + time):%Y-%m-%d %H:%M:%S} UTC"


def format_short_moment(traffic: Traffic, time: int) -> str:
    """Format a time of the traffic without its year: `18 May 08:05`, `at 3.2 s`."""
    if not is_dated(traffic):
        return f"at {about(time)}"
    date = parse_clock(traffic.origin + time)
    return f"{date.day} {date:%b %H:%M}"


def parse_clock(nanoseconds: int) -> datetime:
    """Return a clock time as a date, without the part of a microsecond; the last year is 9999."""
    try:
        return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def join_names(names: Sequence[str]) -> str:
    """Join names as in a sentence: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def group_by_value(values: Iterable[tuple[str, int]]) -> list[tuple[int, str]]:
    """Return each value, the largest first, with the joined names that have it."""
    pairs = list(values)
    return [
        (value, join_names([name for name, other in pairs if other == value]))
        for value in sorted({value for _, value in pairs}, reverse=True)
    ]


_UNIT_BEHIND_NUMBER = compile_pattern(r"(?<=[0-9]) (?=(?:%|ns|us|ms|s|min|h|days?)(?!\w))")


def bind_units(text: str) -> str:
    """Return `text` with no-break spaces between numbers and their units, so that no line ends between them."""
    return _UNIT_BEHIND_NUMBER.sub("\N{NO-BREAK SPACE}", text)


def wrap_text(text: str, width: int, at_hyphens: bool = False) -> list[str]:
    """Break a text into lines between words, and optionally at hyphens, but not between a number and its unit."""
    wrapper = TextWrapper(width, break_long_words=False, break_on_hyphens=at_hyphens)
    return [line.replace("\N{NO-BREAK SPACE}", " ") for line in wrapper.wrap(bind_units(text))]
