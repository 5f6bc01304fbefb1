"""Calendar windows begin with the local date, in every zone, and their quotas are read and written exactly."""

from __future__ import annotations

import sys
import zoneinfo
from collections.abc import Iterator
from pathlib import Path

import pytest
from calendar_model import LABELS, ZONES, calendar_quota, find_changes, seconds, walk
from slow_parameters import mark_slow

from ratelab import InputError, MemoryLimiter, Quota, create
from ratelab.calendar import Calendar, find_runs, load_zone
from ratelab.clock import aligned_clock
from ratelab.http.headers import HeaderWriter
from ratelab.lab.recording import RecordingLines, read_recording
from ratelab.report.numbers import format_quota
from ratelab.report.serialize import serialize_quota
from ratelab.stores.recording import RecordingLimiter

SECOND = 10**9
DAY = 86_400


def list_beginnings(calendar: Calendar, first: int, last: int) -> list[int]:
    """Return when windows begin, in seconds, after `first` and before `last`."""
    runs = find_runs(calendar)
    ends = [*runs.starts[1:], last * SECOND]
    begins = [
        begin // SECOND
        for start, end, length in zip(runs.starts, ends, runs.lengths, strict=True)
        if start < last * SECOND
        for begin in range(start, min(end, last * SECOND), length)
    ]
    return [begin for begin in begins if first < begin < last]


@pytest.mark.parametrize("unit", LABELS)
@pytest.mark.parametrize("zone", mark_slow(ZONES, ZONES[:3]))
def test_windows_begin_when_the_local_date_changes(zone: str, unit: str) -> None:
    first, last = seconds(2010, 12, 15), seconds(2012, 5, 15)
    assert list_beginnings(Calendar(unit, zone), first, last) == walk(zone, unit, range(first, last, 900))


@pytest.mark.parametrize(
    "zone", mark_slow([*ZONES, "America/Asuncion", "Africa/Casablanca", "America/Toronto", "Asia/Gaza"], [ZONES[0]])
)
def test_days_begin_to_the_minute_where_the_clock_changes(zone: str) -> None:
    for change in find_changes(zone, 2007, 2016)[:16]:
        first, last = change - 2 * DAY, change + 2 * DAY
        expected = walk(zone, "day", range(first, last, 60))
        assert list_beginnings(Calendar("day", zone), first, last - 60) == expected, change


@pytest.mark.slow
@pytest.mark.parametrize("zone", ZONES)
def test_windows_of_20_years_begin_when_the_local_date_changes(zone: str) -> None:
    first, last = seconds(2005), seconds(2025)
    for unit in LABELS:
        assert list_beginnings(Calendar(unit, zone), first, last) == walk(zone, unit, range(first, last, 900))


def test_a_skipped_date_has_no_window() -> None:
    begins = list_beginnings(Calendar("day", "Pacific/Apia"), seconds(2011, 12, 29), seconds(2012, 1, 1))
    assert begins == [
        seconds(2011, 12, 29) + 10 * 3600,
        seconds(2011, 12, 30) + 10 * 3600,
        seconds(2011, 12, 31) + 36_000,
    ]


def test_a_gap_across_midnight_ends_the_day_at_the_change(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in Toronto in 1919, before the years of the table: the clock was set from 23:30 to 00:30."""
    monkeypatch.setattr("ratelab.calendar.FIRST_YEAR", 1919)
    find_runs.cache_clear()
    try:
        begins = list_beginnings(Calendar("day", "America/Toronto"), seconds(1919, 3, 29), seconds(1919, 4, 2))
    finally:
        find_runs.cache_clear()
    assert [begin % DAY for begin in begins] == [5 * 3600, 5 * 3600, 4 * 3600 + 1800, 4 * 3600]


@pytest.mark.parametrize(
    ("unit", "windows"), [("day", 1), ("week", 1), ("month", 2930)], ids=["days", "weeks", "months"]
)
def test_windows_without_changes_need_no_table(unit: str, windows: int) -> None:
    assert len(find_runs(Calendar(unit)).starts) == windows


def test_weeks_begin_on_monday() -> None:
    begins = list_beginnings(Calendar("week"), seconds(2026, 1, 1), seconds(2026, 1, 20))
    assert begins == [seconds(2026, 1, 5), seconds(2026, 1, 12), seconds(2026, 1, 19)]


# --- quotas


@pytest.mark.parametrize(
    ("rate", "zone", "text"),
    [
        ("1000/day", "Europe/Berlin", "1000/day in Europe/Berlin"),
        ("7/week", "UTC", "7/week in UTC"),
        ("100000/month", None, "100000/month in UTC"),
        ("100000 / months", "Asia/Kathmandu", "100000/month in Asia/Kathmandu"),
        ("24000/24h", "Europe/Berlin", "24000/day in Europe/Berlin"),
    ],
)
def test_a_quota_of_the_calendar_is_read_and_written(rate: str, zone: str | None, text: str) -> None:
    quota = Quota.parse(rate) if zone is None else Quota.parse(rate).in_timezone(zone)
    assert str(quota) == text
    assert quota.calendar is not None
    assert Quota.parse(quota.rate).in_timezone(quota.calendar.timezone) == quota
    assert Quota.of(quota) == Quota.of(quota, quota.burst) == quota


def test_a_quota_without_timezone_keeps_its_windows() -> None:
    for rate in ("1000/day", "7/week", "1/12h"):
        quota = Quota.parse(rate)
        assert quota.calendar is None
        assert type(create("fixed-window", quota).algorithm).__name__ == "FixedWindow"
    assert Quota.parse("1000/day") != Quota.parse("1000/day").in_timezone("UTC")


def test_a_month_counts_as_its_average() -> None:
    quota = Quota.parse("100000/month")
    assert quota.window == 2_629_746 * SECOND
    assert 4800 * quota.window == 146_097 * DAY * SECOND
    assert quota.limit * quota.window == quota.burst * quota.period


@pytest.mark.parametrize(("unit", "seconds"), [("day", DAY), ("week", 7 * DAY), ("month", 2_629_746)])
def test_headers_state_the_average_window(unit: str, seconds: int) -> None:
    policy = create("fixed-window", calendar_quota(1000, unit, "Europe/Berlin"))
    fields = dict(HeaderWriter(policy).format(3, 4, False))
    assert fields[b"ratelimit-policy"] == b'"fixed-window";q=1000;w=%d' % seconds


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Quota.parse("1.5/month"), "a rate per month must be a whole number, got '1.5/month': round it"),
        (lambda: Quota.parse("1/2month"), "a month has 28 to 31 days: name a number of days"),
        (lambda: Quota.parse("10/month", 20), "burst must be 10, got 20: leave out the burst"),
        (lambda: Quota.parse("10/day", 20).in_timezone("UTC"), "a timezone needs a window of a day, a week or a month"),
        (lambda: Quota.parse("10/s").in_timezone("UTC"), "got 10/s, burst 10: write a rate such as 1000/day"),
        (lambda: Quota.parse("1/3day").in_timezone("UTC"), "a timezone needs a window"),
        (lambda: load_zone("Europe/Berln"), "unknown timezone 'Europe/Berln': did you mean Europe/Berlin?"),
        (lambda: load_zone("berlin"), "did you mean Europe/Berlin?"),
        (lambda: load_zone("Europe"), "unknown timezone 'Europe': name one of the IANA database"),
        (lambda: load_zone("/etc/passwd"), "unknown timezone '/etc/passwd'"),
        (lambda: load_zone("../zoneinfo/UTC"), "unknown timezone '../zoneinfo/UTC'"),
        (lambda: load_zone(""), "unknown timezone ''"),
        (lambda: load_zone("a\0b"), "unknown timezone"),
        (lambda: load_zone(3), "unknown timezone 3"),  # type: ignore[arg-type]
    ],
)
def test_an_invalid_calendar_is_rejected_in_one_line(build: object, message: str) -> None:
    with pytest.raises(InputError) as rejected:
        build()  # type: ignore[operator]
    assert message in str(rejected.value)
    assert "\n" not in str(rejected.value)


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-log", "sliding-counter", "gcra"])
def test_algorithms_without_calendar_refuse_it(name: str) -> None:
    with pytest.raises(InputError, match=rf"^{name} needs a period of fixed length, .* 30/30day$"):
        create(name, "30/month")
    with pytest.raises(InputError, match=rf"^{name} has no windows for timezone Asia/Tokyo to align: use fixed-window"):
        create(name, Quota.parse("30/day").in_timezone("Asia/Tokyo"))


@pytest.fixture
def without_zones(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Hide every time zone database."""
    paths = zoneinfo.TZPATH
    for module in ("tzdata", *(name for name in sys.modules if name.startswith("tzdata."))):
        monkeypatch.setitem(sys.modules, module, None)
    zoneinfo.reset_tzpath(to=[])
    zoneinfo.ZoneInfo.clear_cache()
    find_runs.cache_clear()
    yield
    zoneinfo.reset_tzpath(to=paths)


@pytest.mark.usefixtures("without_zones")
def test_a_system_without_zones_still_knows_utc() -> None:
    assert MemoryLimiter(create("fixed-window", "2/month")).hit("key").remaining == 1
    with pytest.raises(InputError, match="needs a time zone database: pip install tzdata"):
        Quota.parse("2/day").in_timezone("Europe/Berlin")


def test_recordings_and_results_keep_the_timezone(tmp_path: Path) -> None:
    quota, path = calendar_quota(2, "week", "Asia/Kathmandu"), tmp_path / "decisions.jsonl"
    with path.open("w") as file:
        RecordingLimiter(create("fixed-window", quota), file).hit("key")
    assert read_recording(RecordingLines(str(path))).quota == quota
    assert serialize_quota(quota) == {"rate": "2/week", "burst": 2, "window": 604_800.0, "timezone": "Asia/Kathmandu"}
    assert format_quota(quota) == "2/week in Asia/Kathmandu"


# --- clocks


def test_after_a_step_back_the_calendar_is_reached_again() -> None:
    """Time runs at half its pace until the windows of the calendar, whose lengths differ, are those of the clock."""
    times = [1000 * DAY * SECOND, 0]
    read = aligned_clock(None, lambda: times[0], lambda: times[1])
    start = read()
    times[0] -= 3 * DAY * SECOND
    for _ in range(6 * 24):
        times[0] += 3600 * SECOND
        times[1] += 3600 * SECOND
        assert times[0] <= read() <= start + times[1]
    assert read() == times[0]
