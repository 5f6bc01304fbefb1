"""Calendar windows by a slow, obvious model: walk along the clock of a zone and note when a later date appears."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import cache, lru_cache
from zoneinfo import ZoneInfo

from ratelab import Quota

ZONES = (
    "Europe/Berlin",
    "America/Havana",  # the clock changes at midnight
    "America/St_Johns",  # it was set back from 00:01 to 23:01 of the day before
    "Australia/Lord_Howe",  # by 30 minutes
    "Pacific/Apia",  # skipped 2011-12-30
    "Asia/Kathmandu",  # never, and the offset is 5:45
    "UTC",
)

LABELS: dict[str, Callable[[datetime], tuple[int, ...]]] = {
    "day": lambda at: (at.year, at.month, at.day),
    "week": lambda at: tuple(at.isocalendar())[:2],
    "month": lambda at: (at.year, at.month),
}
"""The window that a local time belongs to, by unit."""


def calendar_quota(count: int, unit: str, zone: str) -> Quota:
    return Quota.parse(f"{count}/{unit}").in_timezone(zone)


def seconds(year: int, month: int = 1, day: int = 1) -> int:
    """Return a date at midnight UTC in seconds since 1970."""
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


def walk(zone: str, unit: str, moments: range) -> list[int]:
    """Return the seconds among `moments` at which the label of a later window appears first."""
    label, found = LABELS[unit], list[int]()
    latest: tuple[int, ...] | None = None
    for moment, at in _list_new_dates(zone, moments):
        seen = label(at)
        if latest is not None and seen > latest:
            found.append(moment)
        latest = seen if latest is None else max(latest, seen)
    return found


@lru_cache(maxsize=1)
def _list_new_dates(zone: str, moments: range) -> list[tuple[int, datetime]]:
    """Return the seconds at which the local date differs from that before, with the local time, for all units."""
    local, found, day = ZoneInfo(zone), list[tuple[int, datetime]](), 0
    for moment in moments:
        at = datetime.fromtimestamp(moment, local)
        if at.day != day:
            found.append((moment, at))
        day = at.day
    return found


@cache
def find_changes(zone: str, first_year: int, last_year: int) -> tuple[int, ...]:
    """Return the hours, in seconds since 1970, before which the offset of a zone changes."""
    local, found, before = ZoneInfo(zone), list[int](), None
    for hour in range(seconds(first_year), seconds(last_year), 3600):
        offset = datetime.fromtimestamp(hour, local).utcoffset()
        if before is not None and offset != before:
            found.append(hour)
        before = offset
    return tuple(found)


class CalendarModel:
    """A counter for each local date, week or month."""

    def __init__(self, quota: Quota) -> None:
        assert quota.calendar is not None
        self.burst, self.unit, self.zone = quota.burst, quota.calendar.unit, ZoneInfo(quota.calendar.timezone)
        self.used: dict[tuple[int, ...], int] = {}

    def label(self, now: int) -> tuple[int, ...]:
        return LABELS[self.unit](
            (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=now // 10**9)).astimezone(self.zone)
        )

    def admits(self, now: int, cost: int) -> bool:
        return self.used.get(self.label(now), 0) + cost <= self.burst

    def charge(self, now: int, cost: int) -> None:
        self.used[self.label(now)] = self.used.get(self.label(now), 0) + cost

    def is_new(self, now: int) -> bool:
        return not self.used.get(self.label(now))
