"""Each scenario teaches what its lesson says."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

from ratelab.algorithms import find
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.decisions import Decisions
from ratelab.lab.metrics import Result
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traffic import Integers, Traffic

SECOND, HOUR = 10**9, 3600 * 10**9
SCENARIOS = sorted((Path(__file__).parents[2] / "scenarios").glob("*.yaml"))
TOLD_OF = re.findall(r'told\("([a-z-]+)"\)', Path(__file__).read_text(encoding="utf-8"))


class Told(NamedTuple):
    """What a scenario's run came to."""

    comparison: Comparison
    traffic: Traffic
    results: dict[str, Result]
    decisions: dict[str, Decisions]

    def shares(self) -> dict[str, dict[str, float]]:
        """Return the share of each client's requests that each algorithm admits."""
        return {
            name: dict(zip(self.traffic.names, result.client_admitted / result.client_offered, strict=True))
            for name, result in self.results.items()
        }

    def denied_at(self) -> dict[str, Integers]:
        """Return the times at which each algorithm denies."""
        return {name: self.traffic.times[~made["allowed"]] for name, made in self.decisions.items()}

    def leaving(self, name: str) -> Integers:
        """Return when the requests that an algorithm admits go ahead."""
        made = self.decisions[name]
        return np.sort((self.traffic.times + made["delay_ns"])[made["allowed"]])


@cache
def told(stem: str) -> Told:
    scenario = load_scenario(str(SCENARIOS[0].parent / f"{stem}.yaml"))
    comparison = compare(scenario.quota, scenario.traffic, [*map(find, scenario.algorithms)], keep_decisions=True)
    results = {result.algorithm: result for result in comparison.results}
    return Told(comparison, scenario.traffic, results, comparison.decisions)


def of_all(name: str, run: Told) -> dict[str, Any]:
    """Return one figure of each algorithm."""
    return {algorithm: getattr(result, name) for algorithm, result in run.results.items()}


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_says_its_lesson_and_runs_through_the_usual_five(path: Path) -> None:
    assert re.fullmatch(r"[A-Z].{30,}\.", load_scenario(str(path)).lesson or "")
    assert list(told(path.stem).results) == [
        "token-bucket",
        "leaky-bucket",
        "fixed-window",
        "sliding-log",
        "sliding-counter",
    ]


@pytest.mark.parametrize("path", SCENARIOS, ids=lambda path: path.stem)
def test_every_scenario_has_its_lesson_tested(path: Path) -> None:
    assert path.stem in TOLD_OF
    assert load_scenario(str(path)).name == path.stem


def test_a_fixed_window_lets_twice_its_limit_through_half_on_each_side_of_the_boundary() -> None:
    run = told("boundary-burst")
    overshoots = of_all("overshoot", run)
    assert overshoots.pop("fixed-window") == 2
    assert max(overshoots.values()) <= 1.02
    assert np.unique(run.leaving("fixed-window") // (60 * SECOND), return_counts=True)[1].tolist() == [60, 60]
    assert np.ptp(run.leaving("fixed-window")) < 2 * SECOND


def test_a_token_bucket_spends_its_savings_at_once_and_a_leaky_bucket_makes_the_same_burst_queue() -> None:
    run = told("burst")
    token, leaky = run.decisions["token-bucket"], run.decisions["leaky-bucket"]
    assert token["allowed"].tolist() == leaky["allowed"].tolist()
    assert not token["delay_ns"].any()
    burst = (run.traffic.times >= 3 * SECOND) & (run.traffic.times < 4 * SECOND) & token["allowed"]
    assert burst.sum() == run.comparison.quota.burst
    assert np.ptp(run.leaving("token-bucket")[3:8]) < 0.05 * SECOND
    assert np.diff(run.leaving("leaky-bucket")).min() == SECOND // 2


def test_the_dear_requests_are_denied_before_the_cheap_ones() -> None:
    run = told("costly-requests")
    dear = run.traffic.costs == 10
    assert 0.08 < dear.mean() < 0.12
    for made in run.decisions.values():
        assert (~made["allowed"][dear]).mean() > 2.5 * (~made["allowed"][~dear]).mean()
        refused_cheap = made["remaining"][~made["allowed"] & ~dear]
        assert not refused_cheap.any()  # where a cheap one no longer fits, nothing does


def test_a_limit_at_the_average_turns_people_away_at_the_peak() -> None:
    run = told("diurnal")
    per_minute = len(run.traffic) / (24 * 60)
    assert per_minute == pytest.approx(30, rel=0.001)
    for name, times in run.denied_at().items():
        assert len(times) > 0.25 * len(run.traffic), name
        assert (times < 12 * HOUR).mean() > 0.999, name  # the half of the day above the average


def test_one_counter_for_all_starves_everybody_and_a_counter_for_each_starves_nobody() -> None:
    for name, shares in told("global-counter").shares().items():
        assert max(share for client, share in shares.items() if client.startswith("shared-quiet")) < 0.25, name
        assert {share for client, share in shares.items() if client.startswith("own-quiet")} == {1}, name
        assert shares["own-flood"] == pytest.approx(shares["shared-flood"], abs=0.01), name


def test_a_client_that_floods_harms_only_itself() -> None:
    for name, shares in told("noisy-neighbour").shares().items():
        assert shares.pop("noisy") < 0.05, name
        assert set(shares.values()) == {1}, name


def test_a_sliding_counter_denies_what_is_due_after_a_burst() -> None:
    run = told("on-off")
    denied = of_all("denied", run)
    assert denied.pop("sliding-counter") == run.results["sliding-counter"].over_denied == 55
    assert set(denied.values()) == {0}
    assert run.results["sliding-log"].peak_in_window == run.comparison.quota.burst  # just within the quota
    assert run.decisions["sliding-counter"]["allowed"][:10].all()


def test_under_overload_buckets_and_fixed_window_admit_the_rate_and_the_sliding_counter_a_fifth_less() -> None:
    run = told("overload")
    granted = 2 * 600
    assert len(run.traffic) > 4.5 * granted
    for name in ("token-bucket", "leaky-bucket", "fixed-window"):
        assert run.results[name].admitted == pytest.approx(granted, rel=0.01)
    assert run.results["sliding-counter"].admitted == pytest.approx(0.8 * granted, rel=0.02)


def test_while_traffic_grows_the_sliding_counter_denies_before_the_limit_and_the_buckets_last() -> None:
    denied_at = told("ramp").denied_at()
    crossing = 60 * SECOND * (10 - 1) / (20 - 1)
    first = {name: int(times[0]) for name, times in denied_at.items()}
    savings = {first.pop("token-bucket"), first.pop("leaky-bucket")}
    assert min(savings) > max(first.values()) + 4 * SECOND
    assert {name for name, at in first.items() if at < crossing} == {"sliding-counter"}


def test_a_client_slower_than_the_window_finds_its_key_as_good_as_new() -> None:
    run = told("slow-trickle")
    pause = int(np.diff(run.traffic.times).min())
    for made in run.decisions.values():
        assert set(made["remaining"].tolist()) == {run.comparison.quota.burst - 1}
        assert made["reset_after_ns"].max() < pause


def test_a_client_below_the_rate_is_never_denied_nor_delayed() -> None:
    run = told("steady")
    assert set(of_all("denied", run).values()) == set(of_all("delayed", run).values()) == {0}


def test_a_quota_for_each_does_not_protect_from_all_at_once_and_only_a_queue_spreads_them() -> None:
    run = told("thundering-herd")
    assert set(of_all("denied", run).values()) == {0}
    for name in run.results:
        at_once = np.unique(run.leaving(name), return_counts=True)[1]
        assert set(at_once.tolist()) == ({200} if name == "leaky-bucket" else {600}), name
