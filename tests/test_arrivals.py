"""Arrivals: each pattern's times, exact to the nanosecond, and the same for one seed on every machine."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ratelab import InputError, Quota
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.scenarios.arrivals import (
    MOST_REQUESTS,
    Span,
    burst,
    exponential,
    listed,
    on_off,
    poisson,
    ramp,
    random_bits,
    steady,
    uniform,
    wave,
)
from ratelab.lab.traffic import Integers

SECOND, MINUTE, HOUR = 10**9, 60 * 10**9, 3600 * 10**9
rate = Quota.parse


def seconds(begin: float, end: float) -> Span:
    return round(begin * SECOND), round(end * SECOND)


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        (steady(rate("2/s"), seconds(0, 2)), [0, 0.5, 1, 1.5]),
        (steady(rate("2/s"), seconds(3, 4.6)), [3, 3.5, 4, 4.5]),
        (steady(rate("1/min"), seconds(0, 2)), [0]),
        (ramp(rate("2/s"), rate("2/s"), seconds(1, 3)), [1, 1.5, 2, 2.5]),
        (on_off(rate("2/s"), SECOND, 2 * SECOND, seconds(0, 6.4)), [0, 0.5, 3, 3.5, 6]),
        (on_off(rate("2/s"), SECOND, 0, seconds(1, 3)), [1, 1.5, 2, 2.5]),
        (on_off(rate("2/s"), 9 * SECOND, SECOND, seconds(1, 2)), [1, 1.5]),
        (burst(3 * SECOND, 3, SECOND // 100, seconds(0, 10)), [3, 3.01, 3.02]),
        (burst(3 * SECOND, 3, 0, seconds(3, 3.1)), [3, 3, 3]),
        (listed([2 * SECOND, 0, SECOND // 2, SECOND // 2], seconds(0, 10)), [0, 0.5, 0.5, 2]),
    ],
)
def test_a_pattern_makes_the_times_it_says(times: Integers, expected: list[float]) -> None:
    assert times.tolist() == [round(time * SECOND) for time in expected]


def test_seven_in_thirteen_seconds_come_at_the_first_nanosecond_due() -> None:
    assert steady(rate("7/13s"), seconds(0, 26)).tolist() == [-(-k * 13 * SECOND // 7) for k in range(14)]


@given(st.integers(1, 50), st.integers(1, 10**4), st.integers(0, 10**4), st.integers(1, 10**4))
def test_steady_times_are_exact_whatever_the_rate(limit: int, period: int, begin: int, length: int) -> None:
    due = (begin - (-k * period // limit) for k in range(length * limit // period + 2))
    expected = [time for time in due if time < begin + length]
    assert steady(Quota(limit, period), (begin, begin + length)).tolist() == expected


def test_a_million_steady_times_do_not_drift() -> None:
    times = steady(rate("1000003/s"), seconds(0, 1))
    assert len(times) == 1_000_003
    assert times[-1] == -(-1_000_002 * SECOND // 1_000_003)


def follows(times: Integers, due: Callable[[float], float], length: int) -> None:
    """Check that request k comes when the rate adds up to k, give or take half of one, and that none is missing."""
    made = [due(time) for time in times.tolist()]
    assert made == pytest.approx(range(len(made)), abs=0.5)
    assert due(length) - len(made) <= 0.5


@pytest.mark.parametrize(
    ("start", "end", "length"),
    [("1/s", "20/s", MINUTE), ("20/s", "1/s", MINUTE), ("1/h", "7/13s", HOUR), ("100/s", "1/day", 20 * SECOND)],
)
def test_a_ramp_follows_its_line(start: str, end: str, length: int) -> None:
    first, last = (quota.limit / quota.period for quota in (rate(start), rate(end)))
    times = ramp(rate(start), rate(end), (0, length))
    follows(times, lambda time: first * time + (last - first) * time**2 / (2 * length), length)


@pytest.mark.parametrize(
    ("mean", "amplitude", "cycle", "length"),
    [("5/s", "4/s", MINUTE, 10 * SECOND), ("5/s", "5/s", MINUTE, 5 * MINUTE), ("30/min", "25/min", 6 * HOUR, 7 * HOUR)],
)
def test_a_wave_follows_its_sine(mean: str, amplitude: str, cycle: int, length: int) -> None:
    middle, swing = (quota.limit / quota.period for quota in (rate(mean), rate(amplitude)))
    turn = 2 * math.pi / cycle
    times = wave(rate(mean), rate(amplitude), cycle, (0, length))
    follows(times, lambda time: middle * time + swing / turn * (1 - math.cos(turn * time)), length)


PATTERNS: dict[str, Callable[[Span], Integers]] = {
    "steady": lambda span: steady(rate("7/13s"), span),
    "ramp": lambda span: ramp(rate("1/s"), rate("9/s"), span),
    "wave": lambda span: wave(rate("5/s"), rate("4/s"), MINUTE, span),
    "on-off": lambda span: on_off(rate("3/s"), SECOND, SECOND, span),
    "poisson": lambda span: poisson(rate("5/s"), span, "seed"),
}


@pytest.mark.parametrize("times", PATTERNS.values(), ids=PATTERNS)
def test_a_pattern_that_starts_later_is_the_same_pattern_later(times: Callable[[Span], Integers]) -> None:
    assert (times(seconds(20, 40)) - 20 * SECOND).tolist() == times(seconds(0, 20)).tolist()


def test_poisson_gaps_are_exponential() -> None:
    times = poisson(rate("1000/s"), seconds(0, 100), "a fixed seed")
    gaps = np.diff(times) / SECOND * 1000
    assert len(times) == pytest.approx(100_000, abs=4 * 316)
    assert gaps.mean() == pytest.approx(1, abs=0.02)
    assert gaps.var() == pytest.approx(1, abs=0.04)
    assert (gaps > 3).mean() == pytest.approx(math.exp(-3), rel=0.1)


def test_poisson_counts_vary_as_much_as_they_are() -> None:
    counts = np.bincount(poisson(rate("1000/s"), seconds(0, 100), "a fixed seed") // SECOND)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.4)


def test_poisson_times_go_on_to_the_end_however_short_the_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.scenarios.arrivals.exponential", lambda _, size: np.full(size, 0.125))
    times = poisson(rate("1/s"), seconds(5, 105), "seed")
    assert times.tolist() == [5 * SECOND + k * SECOND // 8 for k in range(1, 800)]


def test_one_seed_gives_one_stream() -> None:
    first, again, other = (poisson(rate("9/s"), seconds(0, 60), seed).tolist() for seed in ("a", "a", "b"))
    assert first == again != other


def test_the_stream_of_a_seed_never_changes() -> None:
    assert random_bits("42/alice/0").random_raw(3).tolist() == [
        14882421676706353477,
        1445644781345404179,
        9920866777263530375,
    ]
    assert poisson(rate("3/s"), seconds(0, 1.5), "42/alice/0").tolist() == [
        71569039,
        920346521,
        1127095716,
        1443167052,
        1475337316,
    ]


def test_a_longer_span_begins_with_the_times_of_a_shorter_one() -> None:
    long, short = (poisson(rate("9/s"), seconds(0, end), "seed").tolist() for end in (60, 20))
    assert long[: len(short)] == short


class Extremes:
    """Stands in for random bits that are all zeros, all ones and one half."""

    def random_raw(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return np.resize(np.array([0, 2**64 - 1, 2**63], np.uint64), size)


@pytest.mark.parametrize("bits", [lambda: random_bits("seed"), Extremes])
def test_an_exponential_draw_is_the_negative_logarithm_of_a_uniform_one(bits: Callable[[], object]) -> None:
    drawn = uniform(cast("np.random.PCG64", bits()), 100_000)
    assert 0 < drawn.min() <= drawn.max() <= 1
    made = exponential(cast("np.random.PCG64", bits()), 100_000)
    assert made.min() >= 0
    assert np.abs(made + np.log(drawn)).max() <= 1e-14


TOO_MANY = {
    "steady": lambda: steady(rate("1000000/s"), seconds(0, 21)),
    "a ramp up": lambda: ramp(rate("1/s"), rate("1000000/s"), seconds(0, 21)),
    "a ramp down": lambda: ramp(rate("1000000/s"), rate("1/s"), seconds(0, 21)),
    "a wave": lambda: wave(rate("1000000/s"), rate("1/s"), MINUTE, seconds(0, 21)),
    "on and off": lambda: on_off(rate("1000000/s"), SECOND, SECOND, seconds(0, 60)),
    "many short pauses": lambda: on_off(rate("1/day"), 1, 1, seconds(0, 1)),
    "poisson": lambda: poisson(rate("1000000/s"), seconds(0, 21), "seed"),
    "a burst": lambda: burst(0, MOST_REQUESTS + 1, 0, seconds(0, 1)),
}


@pytest.mark.parametrize("draw", TOO_MANY.values(), ids=TOO_MANY)
def test_more_requests_than_can_be_held_are_refused_before_they_are_drawn(draw: Callable[[], Integers]) -> None:
    with pytest.raises(InputError, match=r"at most 20,000,000 requests, got [0-9,]+: lower the rate or shorten it"):
        draw()


@pytest.mark.parametrize(
    ("at", "size", "spacing", "told"),
    [
        (0, 1, 0, "got 0s to 0s"),
        (1, 5, 1, "got 1s to 5s"),
        (1, 5, 2, "got 1s to 9s"),
        (5, 1, 0, "got 5s to 5s"),
    ],
)
def test_a_burst_must_lie_in_its_span(at: int, size: int, spacing: int, told: str) -> None:
    assert len(burst(SECOND, 4, SECOND, seconds(1, 5))) == 4
    with pytest.raises(InputError, match=f"must lie in 1s to 5s .*{told}: move it, shorten it or lengthen the span"):
        burst(at * SECOND, size, spacing * SECOND, seconds(1, 5))


@pytest.mark.parametrize("time", [0.999999999, 5])
def test_a_listed_time_must_lie_in_its_span(time: float) -> None:
    with pytest.raises(InputError, match=r"a time must lie in 1s to 5s \(its end not included\), got "):
        listed([2 * SECOND, round(time * SECOND)], seconds(1, 5))


def test_a_wave_does_not_swing_below_nothing() -> None:
    assert len(wave(rate("2/s"), rate("2/s"), SECOND, seconds(0, 2))) == pytest.approx(4, abs=1)
    with pytest.raises(InputError, match="amplitude must be at most the mean of 2/s, got 3/s"):
        wave(rate("2/s"), rate("3/s"), SECOND, seconds(0, 2))


def test_a_wave_of_more_cycles_than_can_be_drawn_is_refused() -> None:
    with pytest.raises(InputError, match="cycle must be longer"):
        wave(rate("1/h"), rate("1/h"), 1, seconds(0, 1))


def test_what_is_never_on_is_refused() -> None:
    with pytest.raises(InputError, match="on must be longer than 0s, got 0s"):
        on_off(rate("1/s"), 0, SECOND, seconds(0, 2))


# --- clients, each with a stream of its own


def drawn(path: Path, *clients: str) -> dict[str, list[tuple[int, int]]]:
    """Return each client's requests, by time and cost, in a minute of a scenario."""
    path.write_text(f"name: x\nduration: 1min\nseed: 7\nquota: {{rate: 1/s}}\nclients: [{', '.join(clients)}]\n")
    traffic = load_scenario(str(path)).traffic
    requests: dict[str, list[tuple[int, int]]] = {name: [] for name in traffic.names}
    columns = (traffic.times.tolist(), traffic.clients.tolist(), traffic.costs.tolist())
    for time, client, cost in zip(*columns, strict=True):
        requests[traffic.names[client]].append((time, cost))
    return requests


ALICE = "{name: alice, cost: {1: 1, 5: 1}, traffic: [{pattern: poisson, rate: 3/s}]}"
BOB = "{name: bob, traffic: [{pattern: poisson, rate: 9/s}, {pattern: poisson, rate: 1/s}]}"
CROWD = "{name: crowd, count: 3, traffic: [{pattern: poisson, rate: 1/s}]}"


def test_another_client_changes_nothing_for_alice(tmp_path: Path) -> None:
    alone = drawn(tmp_path / "a", ALICE)["alice"]
    assert len(alone) > 100
    for company in ([ALICE, BOB], [BOB, ALICE], [CROWD, ALICE, BOB]):
        assert drawn(tmp_path / "a", *company)["alice"] == alone


def test_another_pattern_changes_nothing_for_the_first(tmp_path: Path) -> None:
    one = drawn(tmp_path / "a", ALICE)["alice"]
    two = drawn(tmp_path / "a", ALICE.replace("}]", "}, {pattern: poisson, rate: 1/s}]"))["alice"]
    assert {time for time, _ in one} < {time for time, _ in two}


def test_patterns_alike_do_not_send_in_step(tmp_path: Path) -> None:
    pattern = "{pattern: poisson, rate: 3/s}"
    requests = drawn(tmp_path / "a", f"{{name: a, traffic: [{pattern}, {pattern}]}}")["a"]
    assert len({time for time, _ in requests}) == len(requests) > 200


def test_clients_alike_do_not_send_in_step(tmp_path: Path) -> None:
    crowd = drawn(tmp_path / "a", CROWD)
    assert list(crowd) == ["crowd-1", "crowd-2", "crowd-3"]
    assert all(one != other for one, other in pairwise([*crowd.values(), crowd["crowd-1"]]))


def test_costs_are_drawn_by_their_weights(tmp_path: Path) -> None:
    client = "{name: a, cost: {1: 0.6, 3: 0, 10: 0.2}, traffic: [{pattern: steady, rate: 1000/s}]}"
    costs = [cost for _, cost in drawn(tmp_path / "a", client)["a"]]
    assert set(costs) == {1, 10}
    assert costs.count(10) / len(costs) == pytest.approx(0.25, abs=0.01)
    assert costs[:12] == [1, 10, 1, 1, 1, 1, 1, 1, 10, 10, 1, 1]  # the draw never changes
