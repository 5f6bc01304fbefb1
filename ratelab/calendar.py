"""Calendar windows: the instants at which days, weeks and months begin in a time zone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

from ratelab.errors import InputError, short_repr

if TYPE_CHECKING:
    from datetime import datetime, timedelta, tzinfo

NS_PER_S = 10**9
DAY_S = 86400
EPOCH_DAY = 719_163  # of 1970-01-01, counted from the year 1

NOMINAL_S = {"day": DAY_S, "week": 7 * DAY_S, "month": 146_097 * DAY_S // 4800}
"""Seconds in each unit on average; 400 years of the Gregorian calendar are 146,097 days and 4,800 months."""

FIRST_YEAR, LAST_YEAR = 1969, 2262
"""The windows between these years are exact; 64 bits hold the nanoseconds until 2262."""


class Calendar(NamedTuple):
    """The windows of a quota: days, ISO weeks, which begin on Monday, or months, in a time zone.

    A window begins at the first instant at which the local clock reaches its first date. So a day on which the clock
    changes has 23 or 25 hours, and a date that a zone has skipped has no window.
    """

    unit: str
    """`day`, `week` or `month`."""
    timezone: str = "UTC"
    """A name of the IANA time zone database, such as `Europe/Berlin`."""
    tick: int = 1
    """Nanoseconds in a unit of time; stores count in microseconds."""

    @property
    def nominal(self) -> int:
        """The average length of a window, in ticks."""
        return NOMINAL_S[self.unit] * NS_PER_S // self.tick

    def __str__(self) -> str:
        return f"{self.unit} in {self.timezone}"


class Runs(NamedTuple):
    """Windows in runs of equal lengths: from `starts[n]` on, each window is `lengths[n]` long, in ticks.

    The first run also extends into the past, and the last into the future.
    """

    starts: tuple[int, ...]
    lengths: tuple[int, ...]


@lru_cache(maxsize=64)
def find_runs(calendar: Calendar) -> Runs:
    """Return the windows of a calendar from 1970 to 2262; raise `InputError` for an unknown time zone."""
    ticks_per_s = NS_PER_S // calendar.tick
    begins = _list_beginnings(calendar.unit, load_zone(calendar.timezone))
    starts, lengths = [begins[0]], [begins[1] - begins[0]]
    for begin, end in pairwise(begins):
        if end - begin != lengths[-1]:
            starts.append(begin)
            lengths.append(end - begin)
    return Runs(tuple(start * ticks_per_s for start in starts), tuple(length * ticks_per_s for length in lengths))


def load_zone(name: str) -> tzinfo:
    """Return the time zone called `name`; raise `InputError` with the remedy if it is unknown.

    UTC needs no time zone database.
    """
    from datetime import UTC
    from zoneinfo import ZoneInfo, available_timezones  # slow to import

    if name == "UTC":
        return UTC
    if isinstance(name, str):
        with suppress(LookupError, ValueError, OSError):  # an unknown name, an absolute path, a folder
            return ZoneInfo(name)
    if not (known := available_timezones()):
        raise InputError(f"timezone {short_repr(name)} needs a time zone database: pip install tzdata")
    raise InputError(f"unknown timezone {short_repr(name)}: {_suggest(name, known)}")


def _suggest(name: object, known: set[str]) -> str:
    from difflib import get_close_matches  # slow to import

    by_lower = {zone.lower(): zone for zone in sorted(known)}
    by_city = {lower.rpartition("/")[2]: zone for lower, zone in by_lower.items()}
    text = str(name).lower().replace(" ", "_")
    near = [by_lower[match] for match in get_close_matches(text, by_lower, n=1, cutoff=0.75)]
    near = near or [by_city[match] for match in get_close_matches(text, by_city, n=1, cutoff=0.75)]
    return f"did you mean {near[0]}?" if near else "name one of the IANA database, such as Europe/Berlin"


def _list_beginnings(unit: str, zone: tzinfo) -> list[int]:
    """Return when each window begins, in seconds since 1970, in order; a skipped date has no window."""
    midnights = [*_list_midnights(unit)]
    offsets = [zone.utcoffset(midnight) for midnight in midnights]  # of a midnight that is shown twice: of the first
    begins, last = list[int](), None
    for midnight, offset, following in zip(midnights, offsets, [*offsets[1:], None], strict=True):
        if offset != last:
            seconds, last = _to_seconds(offset), offset
        begin = (midnight.toordinal() - EPOCH_DAY) * DAY_S - seconds
        if following != offset:
            begin = _end_gap(midnight, begin, zone)
        if not begins or begin > begins[-1]:
            begins.append(begin)
    return begins


def _list_midnights(unit: str) -> Iterator[datetime]:
    """Yield the local times at which windows begin."""
    from datetime import datetime, timedelta

    if unit == "month":
        for number in range(12 * FIRST_YEAR, 12 * LAST_YEAR):
            yield datetime(number // 12, number % 12 + 1, 1)
        return
    midnight, step = datetime(FIRST_YEAR, 1, 6), timedelta(days=7 if unit == "week" else 1)  # a Monday
    while midnight.year < LAST_YEAR:
        yield midnight
        midnight += step


def _end_gap(midnight: datetime, begin: int, zone: tzinfo) -> int:
    """Return when the clock is set forward past `midnight`, by bisection; `begin` if it does show `midnight`."""
    from datetime import UTC, datetime, timedelta

    def find_offset(second: int) -> timedelta | None:
        return (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=second)).astimezone(zone).utcoffset()

    gap = _to_seconds(zone.utcoffset(midnight.replace(fold=1))) - _to_seconds(zone.utcoffset(midnight))
    before, after = begin - max(0, gap), begin
    old = find_offset(before)
    while after - before > 1:
        middle = (before + after) // 2
        before, after = (middle, after) if find_offset(middle) == old else (before, middle)
    return after


def _to_seconds(offset: timedelta | None) -> int:
    assert offset is not None  # noqa: S101  (a zone has an offset at every time)
    return offset.days * DAY_S + offset.seconds
