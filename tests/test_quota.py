"""Quotas and durations: read exactly, written back exactly, refused with a reason and a remedy."""

from __future__ import annotations

import re
from fractions import Fraction
from math import gcd

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ratelab import InputError, Quota, create
from ratelab.quota import LARGEST, UNITS, about, format_duration, parse_duration

SECOND, MINUTE, DAY = 10**9, 60 * 10**9, 86400 * 10**9


@pytest.mark.parametrize(
    ("rate", "limit", "period", "burst"),
    [
        ("2/s", 1, SECOND // 2, 2),
        ("100/min", 1, MINUTE // 100, 100),
        ("5/2.5s", 1, SECOND // 2, 5),
        ("2.5/s", 1, 2 * SECOND // 5, 5),
        ("7/13s", 7, 13 * SECOND, 7),
        ("1/3s", 1, 3 * SECOND, 1),
        ("1/day", 1, DAY, 1),
        ("3/1ns", 3, 1, 3),
        ("3/ns", 3, 1, 3),
        ("1/0.5us", 1, 500, 1),
        ("3/0.1ns", 30, 1, 3),
        ("0.1/s", 1, 10 * SECOND, 1),
        ("1000000/h", 1, 3_600_000, 1_000_000),
        (" 2 / 1 s ", 1, SECOND // 2, 2),
    ],
)
def test_a_rate_is_read_exactly(rate: str, limit: int, period: int, burst: int) -> None:
    quota = Quota.parse(rate)
    assert (quota.limit, quota.period, quota.burst) == (limit, period, burst)


SPELLINGS = {
    "1ns": "ns nsec nanosecond nanoseconds",
    "1us": "us usec µs μs microsecond microseconds",
    "1ms": "ms msec millisecond milliseconds",
    "1s": "s sec secs second seconds",
    "1min": "min mins minute minutes",
    "1h": "h hr hrs hour hours",
    "1day": "d day days",
    "7day": "w week weeks",
}


@pytest.mark.parametrize(
    ("unit", "written"), [(unit, written) for written, units in SPELLINGS.items() for unit in units.split()]
)
def test_a_unit_is_read_in_its_usual_spellings_and_written_in_one(unit: str, written: str) -> None:
    assert format_duration(parse_duration(f"3 {unit}")) == format_duration(3 * parse_duration(written))
    assert Quota.parse(f"5/{unit}") == Quota.parse(f"5/{written}")
    assert Quota.parse(Quota.parse(f"5/{unit}").rate, 5) == Quota.parse(f"5/{unit}")


def test_burst_is_what_is_asked_for() -> None:
    assert Quota.parse("2/s", burst=5) == Quota(2, SECOND, 5) == Quota(1, SECOND // 2, 5)
    assert create("token-bucket", "2/s", 5) == create("token-bucket", Quota(2, SECOND), 5)


def test_a_window_is_the_time_in_which_the_rate_grants_the_burst_rounded_up() -> None:
    assert Quota.parse("2/s", burst=5).window == 2.5 * SECOND
    assert Quota(3, 10, 1).window == 4
    assert Quota(3, 1, 1).window == 1


@given(st.integers(1, 10**6), st.integers(1, 10**12), st.integers(1, 10**6))
def test_equal_rates_are_equal_quotas(limit: int, period: int, factor: int) -> None:
    quota = Quota(limit, period, 1)
    assert quota == Quota(limit * factor, period * factor, 1)
    assert gcd(quota.limit, quota.period) == 1


@given(st.integers(1, LARGEST), st.integers(1, LARGEST), st.integers(1, LARGEST))
def test_a_quota_is_read_back_from_its_text(limit: int, period: int, burst: int) -> None:
    assume(burst * period <= LARGEST * limit)
    quota = Quota(limit, period, burst)
    assert Quota.parse(quota.rate, quota.burst) == quota


@pytest.mark.parametrize(
    ("quota", "text"),
    [
        (Quota(2, SECOND, 5), "2/s, burst 5"),
        (Quota(100, MINUTE), "100/min, burst 100"),
        (Quota(1, DAY), "1/day, burst 1"),
        (Quota(7, 13 * SECOND, 3), "7/13s, burst 3"),
        (Quota(1, 3 * SECOND, 1), "20/min, burst 1"),
    ],
)
def test_a_quota_is_written_as_people_would(quota: Quota, text: str) -> None:
    assert str(quota) == text


NOT_RATES = [
    "", " ", "/", "2", "2/", "/s", "s", "2/s/s", "2 s", "2/s2", "-2/s", "2/-1s", "+2/s", "nan/s", "inf/s", "1/inf s",
    "1e3/s", "1/1e3s", "0x10/s", "1_000/s", "1,000/s", "2,5/s", ".5/s", "5./s", "٣/s", "²/s", "1/٣s", "2/S", "2/Sec",
    "2/m", "2/2month", "2/1", "9" * 31 + "/s", "two/s", None, 2, 2.0, True, b"2/s", ["2/s"], Fraction(2),
]  # fmt: skip


@pytest.mark.parametrize("rate", NOT_RATES)
def test_what_is_no_rate_is_refused_with_examples(rate: str) -> None:
    with pytest.raises(InputError, match=r"^rate must look like 2/s, 100/min or 5/2.5s, got ") as refusal:
        Quota.parse(rate)
    assert repr(rate)[:50] in str(refusal.value)


@pytest.mark.parametrize(
    ("rate", "remedy"),
    [
        ("5 per minute", "write 5/minute"),
        ("10 per 2 hours", "write 10/2hours"),
        ("5/minute;100/day", "give each rate by itself"),
        ("5/minute, 100/day", "give each rate by itself"),
    ],
)
def test_a_rate_as_other_packages_write_it_is_refused_with_the_remedy(rate: str, remedy: str) -> None:
    with pytest.raises(InputError, match=f"got '{rate}': {remedy}$"):
        Quota.parse(rate)


@pytest.mark.parametrize("rate", ["5/minute", "10/2hours"])
def test_the_remedies_for_such_rates_are_rates(rate: str) -> None:
    assert Quota.parse(rate)


@pytest.mark.parametrize("rate", ["0/s", "0.0/s", "1/0s", "0/0s", "1/0.0ns"])
def test_a_rate_of_nothing_is_refused(rate: str) -> None:
    with pytest.raises(InputError, match=f"rate must be above 0, got '{rate}'"):
        Quota.parse(rate)


NOT_WHOLE = [0, -1, True, False, 1.0, 2.5, float("nan"), float("inf"), "1", Fraction(1), 2**62, 10**400, [1]]


@pytest.mark.parametrize("number", [*NOT_WHOLE, None])
@pytest.mark.parametrize("name", ["limit", "period"])
def test_limit_and_period_are_whole_numbers(name: str, number: int) -> None:
    with pytest.raises(InputError, match=rf"^{name} must be a whole number from 1 to 2\*\*62 - 1, got "):
        Quota(number if name == "limit" else 1, number if name == "period" else 1)


@pytest.mark.parametrize("burst", NOT_WHOLE)
def test_burst_is_a_whole_number(burst: int) -> None:
    rule = r"^burst must be a whole number from 1 to 2\*\*62 - 1, got "
    with pytest.raises(InputError, match=rule) as refusal:
        Quota.parse("1/s", burst)
    assert repr(burst)[:50] in str(refusal.value)
    with pytest.raises(InputError, match=rule):
        Quota(1, 1, burst)


def test_a_window_of_more_than_146_years_is_refused_with_the_remedy() -> None:
    assert Quota(1, LARGEST, 1).window == LARGEST
    with pytest.raises(InputError, match=r"got burst 60000 at 1/day: lower the burst or raise the rate"):
        Quota.parse("1/day", 60_000)


@pytest.mark.parametrize("rate", ["1/60000day", "9999999999999999999999/s", "0.0000000000000000000001/s"])
def test_numbers_beyond_any_use_are_refused(rate: str) -> None:
    with pytest.raises(InputError, match="too many digits or too long a period.*got .*" + rate[:9]):
        Quota.parse(rate)


def test_a_log_that_memory_could_not_hold_is_refused_with_the_remedy() -> None:
    quota = Quota.parse("1000/s", burst=1_000_001)
    with pytest.raises(InputError, match=r"at most 1000000 .* got 1000001: use sliding-counter or lower the burst"):
        create("sliding-log", quota)
    assert create("sliding-counter", quota)
    assert create("sliding-log", quota, 1_000_000)


@pytest.mark.parametrize(
    ("name", "hint"),
    {
        "tokenbucket": "token-bucket",
        "TokenBucket": "token-bucket",
        "token_bucket": "token-bucket",
        "token": "token-bucket",
        "leaky": "leaky-bucket",
        "fixed": "fixed-window",
        "sliding-window": "sliding-log or sliding-counter",
        "slidingWindow": "sliding-log or sliding-counter",
        "sliding_window_log": "sliding-log",
    }.items(),
)
def test_an_unknown_algorithm_is_refused_with_the_nearest_names(name: str, hint: str) -> None:
    with pytest.raises(InputError, match=rf"^unknown algorithm '{name}': did you mean {hint}\?$"):
        create(name, "2/s")


@pytest.mark.parametrize(
    ("text", "nanoseconds"),
    [
        ("0s", 0),
        ("1ns", 1),
        ("1us", 1000),
        ("10ms", 10**7),
        ("0.5s", SECOND // 2),
        ("0.000000001s", 1),
        ("2min", 2 * MINUTE),
        ("1.5h", 90 * MINUTE),
        ("1day", DAY),
        (" 10 s ", 10 * SECOND),
        ("4611686018427387903ns", LARGEST),
    ],
)
def test_a_duration_is_read_exactly(text: str, nanoseconds: int) -> None:
    assert parse_duration(text) == nanoseconds


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "must look like 10s, 0.5s or 2min"),
        ("s", "must look like 10s, 0.5s or 2min"),
        ("-1s", "must look like 10s, 0.5s or 2min"),
        ("1e3s", "must look like 10s, 0.5s or 2min"),
        ("nan", "must look like 10s, 0.5s or 2min"),
        ("1s 2ms", "must look like 10s, 0.5s or 2min"),
        ("1٣s", "must look like 10s, 0.5s or 2min"),
        (None, "must look like 10s, 0.5s or 2min"),
        (10, "must look like 10s, 0.5s or 2min"),
        (10.0, "must look like 10s, 0.5s or 2min"),
        ("0.5ns", "whole number of nanoseconds"),
        ("0.0000000001s", "whole number of nanoseconds"),
        ("4611686018427387905ns", "at most 146 years"),
        ("60000day", "at most 146 years"),
    ],
)
def test_what_is_no_duration_is_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(InputError, match=why) as refusal:
        parse_duration(text)
    assert repr(text) in str(refusal.value)


@pytest.mark.parametrize(
    ("text", "why"),
    [("10", "no unit in '10'"), ("10 parsecs", "unknown unit 'parsecs'"), ("1S", "unknown unit 'S'")],
)
def test_a_duration_without_a_known_unit_is_told_all_units(text: str, why: str) -> None:
    with pytest.raises(InputError, match=f"{why}.*{', '.join(UNITS)}"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [(0, "0s"), (1, "1ns"), (1500, "1.5us"), (500_000_000, "500ms"), (2_500_000_000, "2.5s"), (90 * SECOND, "90s")],
)
def test_a_duration_is_written_short(nanoseconds: int, text: str) -> None:
    assert format_duration(nanoseconds) == text


@given(st.integers(0, LARGEST) | st.integers(0, 10**12))
def test_a_duration_is_read_back_from_its_text(nanoseconds: int) -> None:
    assert parse_duration(format_duration(nanoseconds)) == nanoseconds


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0 s"),
        (21_428_571_429, "21.4 s"),
        (90 * SECOND, "1 min 30 s"),
        (1_997 * SECOND, "33 min 17 s"),
        (2_388_100_000_000, "39 min 48 s"),
        (999_999_999, "1 s"),
        (59_999_999_999, "1 min"),
        (3_599_600_000_000, "1 h"),
        (DAY - 1, "1 day"),
        (100_000 * SECOND, "1 day 4 h"),
        (1000 * DAY - 1, "1,000 days"),
        (LARGEST, "53,376 days"),
    ],
)
def test_a_duration_is_written_for_people(nanoseconds: int, text: str) -> None:
    assert about(nanoseconds) == text


@given(st.integers(1, LARGEST // 2) | st.integers(1, 10**12))
def test_a_duration_for_people_is_right_to_three_figures_or_half_a_unit(nanoseconds: int) -> None:
    parts = re.findall(r"([0-9.]+) ([a-z]+)", about(nanoseconds).replace(",", "").replace("days", "day"))
    written = sum(parse_duration("".join(part)) for part in parts)
    half = {"day": UNITS["h"], "h": UNITS["min"], "min": UNITS["s"]}.get(parts[0][1], 0) // 2
    assert written == pytest.approx(nanoseconds, rel=0.0051, abs=half)
