"""Random arrivals: distributions, the same stream for a seed on every machine, and a stream for each client."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import cast

import numpy as np
import pytest
from durations import SECOND, seconds

from ratelab import Quota
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.scenarios.arrivals import exponential, poisson, random_bits, uniform

rate = Quota.parse


def test_poisson_gaps_are_exponential() -> None:
    times = poisson(rate("1000/s"), seconds(0, 100), "a fixed seed")
    gaps = np.diff(times) / SECOND * 1000
    assert len(times) == pytest.approx(100_000, abs=4 * 316)
    assert gaps.mean() == pytest.approx(1, abs=0.02)
    assert gaps.var() == pytest.approx(1, abs=0.04)
    assert (gaps > 3).mean() == pytest.approx(math.exp(-3), rel=0.1)


def test_poisson_counts_have_a_variance_equal_to_their_mean() -> None:
    counts = np.bincount(poisson(rate("1000/s"), seconds(0, 100), "a fixed seed") // SECOND)
    assert counts.var() == pytest.approx(counts.mean(), rel=0.4)


def test_poisson_times_reach_the_end_for_any_gaps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.scenarios.arrivals.exponential", lambda _, size: np.full(size, 0.125))
    times = poisson(rate("1/s"), seconds(5, 105), "seed")
    assert times.tolist() == [5 * SECOND + k * SECOND // 8 for k in range(1, 800)]


def test_the_same_seed_gives_the_same_stream() -> None:
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
    """Random bits that are all zeros, all ones and one half."""

    def random_raw(self, size: int) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
        return np.resize(np.array([0, 2**64 - 1, 2**63], np.uint64), size)


@pytest.mark.parametrize("bits", [lambda: random_bits("seed"), Extremes])
def test_an_exponential_draw_is_the_negative_logarithm_of_a_uniform_one(bits: Callable[[], object]) -> None:
    uniforms = uniform(cast("np.random.PCG64", bits()), 100_000)
    assert 0 < uniforms.min() <= uniforms.max() <= 1
    exponentials = exponential(cast("np.random.PCG64", bits()), 100_000)
    assert exponentials.min() >= 0
    assert np.abs(exponentials + np.log(uniforms)).max() <= 1e-14


# --- one stream for each client


def draw_requests(path: Path, *clients: str) -> dict[str, list[tuple[int, int]]]:
    """Return the times and costs of each client's requests, in a scenario of a minute."""
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


def test_another_client_does_not_change_the_first_one(tmp_path: Path) -> None:
    alone = draw_requests(tmp_path / "a", ALICE)["alice"]
    assert len(alone) > 100
    for clients in ([ALICE, BOB], [BOB, ALICE], [CROWD, ALICE, BOB]):
        assert draw_requests(tmp_path / "a", *clients)["alice"] == alone


def test_another_pattern_does_not_change_the_first_one(tmp_path: Path) -> None:
    one_pattern = draw_requests(tmp_path / "a", ALICE)["alice"]
    two_patterns = draw_requests(tmp_path / "a", ALICE.replace("}]", "}, {pattern: poisson, rate: 1/s}]"))["alice"]
    assert {time for time, _ in one_pattern} < {time for time, _ in two_patterns}


def test_equal_patterns_of_a_client_have_different_times(tmp_path: Path) -> None:
    pattern = "{pattern: poisson, rate: 3/s}"
    requests = draw_requests(tmp_path / "a", f"{{name: a, traffic: [{pattern}, {pattern}]}}")["a"]
    assert len({time for time, _ in requests}) == len(requests) > 200


def test_equal_clients_have_different_times(tmp_path: Path) -> None:
    crowd = draw_requests(tmp_path / "a", CROWD)
    assert list(crowd) == ["crowd-1", "crowd-2", "crowd-3"]
    assert all(first != second for first, second in pairwise([*crowd.values(), crowd["crowd-1"]]))


def test_costs_are_drawn_by_their_weights(tmp_path: Path) -> None:
    client = "{name: a, cost: {1: 0.6, 3: 0, 10: 0.2}, traffic: [{pattern: steady, rate: 1000/s}]}"
    costs = [cost for _, cost in draw_requests(tmp_path / "a", client)["a"]]
    assert set(costs) == {1, 10}
    assert costs.count(10) / len(costs) == pytest.approx(0.25, abs=0.01)
    assert costs[:12] == [1, 10, 1, 1, 1, 1, 1, 1, 10, 10, 1, 1]  # the draw never changes
