"""Calendar windows keep every contract of an algorithm, decide as their model, and the same in every engine."""

from __future__ import annotations

from random import Random

import pytest
from calendar_model import LABELS, ZONES, CalendarModel, calendar_quota, find_changes, seconds
from contracts import find_broken_contracts, moves
from engine_comparison import assert_same, draw_traffic
from hypothesis import given
from hypothesis import strategies as st
from reference_models import decide

from ratelab import ManualClock, MemoryLimiter, Policy, Quota, create
from ratelab.lab.conformance import CONTRACTS, Timeline, run
from ratelab.lab.decisions import ADMISSION_FIELDS
from ratelab.limiter import Algorithm

SECOND = 10**9
HOUR = 3600 * SECOND

EDGES = [seconds(2024, 2, 28), seconds(2023, 12, 30), seconds(2025, 12, 28), seconds(2011, 12, 28)]
"""Before a leap day, two ends of a year, and the date that Apia skipped."""

origins = st.sampled_from(ZONES).flatmap(
    lambda zone: st.tuples(
        st.just(zone),
        st.sampled_from([*EDGES, *(change - 86_400 for change in find_changes(zone, 2009, 2013)), 12_345])
        .map(lambda second: second * SECOND)
        .flatmap(lambda origin: st.integers(origin, origin + 24 * HOUR)),
    )
)


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    zone, origin = draw(origins)
    quota = calendar_quota(draw(st.integers(1, 7)), draw(st.sampled_from([*LABELS])), zone)
    return Timeline(quota, origin, draw(moves))


def build(quota: Quota) -> Algorithm:
    return create("fixed-window", quota).algorithm


@given(timeline=timelines())
def test_a_calendar_window_keeps_every_contract(timeline: Timeline) -> None:
    assert find_broken_contracts(build(timeline.quota), timeline, CONTRACTS) == []


@given(timeline=timelines())
def test_a_calendar_window_decides_as_its_model(timeline: Timeline) -> None:
    assert timeline.quota.calendar is not None
    if timeline.quota.calendar.timezone == "America/St_Johns":  # a date could return for an hour
        return
    model = CalendarModel(timeline.quota)
    for now, cost, made, _ in run(build(timeline.quota), timeline):
        assert made == decide(model, timeline.quota, now, cost)


@pytest.mark.parametrize(
    ("rate", "zone", "at", "hours"),
    [
        ("1/day", "Europe/Berlin", seconds(2026, 3, 28) + 23 * 3600, 23),
        ("1/day", "Europe/Berlin", seconds(2026, 10, 24) + 22 * 3600, 25),
        ("1/day", "Australia/Lord_Howe", seconds(2026, 4, 4) + 13 * 3600, 24.5),
        ("1/day", "America/Havana", seconds(2026, 3, 8) + 5 * 3600, 23),
        ("1/day", "Asia/Kathmandu", seconds(2026, 1, 1) + 18 * 3600 + 900, 24),
        ("1/week", "Europe/Berlin", seconds(2026, 3, 22) + 23 * 3600, 7 * 24 - 1),
        ("1/month", "UTC", seconds(2024, 2), 29 * 24),
        ("1/month", "UTC", seconds(2025, 2), 28 * 24),
        ("1/month", "UTC", seconds(2000, 2), 29 * 24),
        ("1/month", "UTC", seconds(2100, 2), 28 * 24),
        ("1/month", "Europe/Berlin", seconds(2026, 3) - 3600, 31 * 24 - 1),
        ("1/month", "UTC", seconds(2026, 12), 31 * 24),
    ],
)
def test_a_window_lasts_as_long_as_its_date(rate: str, zone: str, at: int, hours: float) -> None:
    clock = ManualClock(at * SECOND)
    limiter = MemoryLimiter(Policy.create("fixed-window", rate, timezone=zone), clock)
    assert limiter.hit("key").reset_after_ns == hours * HOUR
    assert limiter.hit("key").retry_after_ns == hours * HOUR
    clock.advance(int(hours * HOUR) - 1)
    assert limiter.hit("key").retry_after_ns == 1
    clock.advance(1)
    assert limiter.hit("key").allowed


@pytest.mark.slow
@pytest.mark.parametrize("unit", LABELS)
@pytest.mark.parametrize("zone", ["Europe/Berlin", "Australia/Lord_Howe"])
def test_compiled_replay_of_calendar_windows_equals_plain_python(zone: str, unit: str) -> None:
    algorithm = build(calendar_quota(10, unit, zone))
    for start in (0, 1_700_000_000_123_456_789):
        traffic = draw_traffic(calendar_quota(10, "day", "UTC"), start)
        assert_same(algorithm, traffic)
        assert_same(algorithm, traffic, ADMISSION_FIELDS)


def test_a_calendar_window_and_a_bucket_decide_together() -> None:
    day = Policy.create("fixed-window", "3/day", timezone="Europe/Berlin", name="day")
    clock = ManualClock((seconds(2026, 3, 28) + 23 * 3600) * SECOND)
    limiter = MemoryLimiter([Policy.create("token-bucket", "1/s", burst=2, name="second"), day], clock)
    assert [limiter.hit("key").bound_by for _ in range(3)] == [None, None, "second"]
    clock.advance(SECOND)
    assert limiter.hit("key").remaining == 0
    clock.advance(SECOND)
    assert limiter.hit("key")[:3] == (False, 0, 23 * HOUR - 2 * SECOND)


def test_any_order_of_keys_is_decided_as_each_alone() -> None:
    policy, random = create("fixed-window", calendar_quota(3, "day", "America/Havana")), Random(1)
    clock = ManualClock(seconds(2026, 3, 7) * SECOND)
    together, alone = MemoryLimiter(policy, clock), {key: MemoryLimiter(policy, clock) for key in "abc"}
    for _ in range(300):
        clock.advance(random.randrange(6 * HOUR))
        key = random.choice("abc")
        assert together.hit(key) == alone[key].hit(key)
