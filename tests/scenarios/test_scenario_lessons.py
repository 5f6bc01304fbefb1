"""Lessons of the scenarios: each run shows the effect that the lesson describes."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from cli_runner import QUOTA_SCENARIOS
from durations import HOUR, SECOND

from ratelab import create
from ratelab.algorithms import COMPARED
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.decisions import Decisions
from ratelab.lab.metrics import Result
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS

TESTED = re.findall(r'run\("([a-z-]+)"\)', Path(__file__).read_text(encoding="utf-8"))
FIVE = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter")


class Run(NamedTuple):
    """A scenario replayed through five algorithms."""

    comparison: Comparison
    traffic: Traffic
    results: dict[str, Result]
    decisions: dict[str, Decisions]

    def admit_ratios(self) -> dict[str, dict[str, float]]:
        """Return the share of each client's requests that each algorithm admits."""
        return {
            name: dict(zip(self.traffic.names, result.client_admitted / result.client_offered, strict=True))
            for name, result in self.results.items()
        }

    def denial_times(self) -> dict[str, Integers]:
        """Return the times of each algorithm's denials."""
        return {name: self.traffic.times[~rows["allowed"]] for name, rows in self.decisions.items()}

    def departures(self, name: str) -> Integers:
        """Return when the requests that an algorithm admits go ahead, in order."""
        rows = self.decisions[name]
        return np.sort((self.traffic.times + rows["delay_ns"])[rows["allowed"]])

    def figure(self, name: str) -> dict[str, Any]:
        """Return one figure of each algorithm."""
        return {algorithm: getattr(result, name) for algorithm, result in self.results.items()}


@cache
def run(stem: str) -> Run:
    scenario = load_scenario(str(QUOTA_SCENARIOS[0].parent / f"{stem}.yaml"))
    policies = [create(name, scenario.open_loop_quota) for name in FIVE]
    comparison = compare(policies, scenario.traffic, fields=ROW_FIELDS)
    decisions = {outcome.policy.name: outcome.rows for outcome in comparison.outcomes}
    results = {result.algorithm: result for result in comparison.results}
    return Run(comparison, scenario.traffic, results, decisions)


@pytest.mark.parametrize("path", QUOTA_SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_has_a_lesson_and_runs_the_default_algorithms(path: Path) -> None:
    scenario = load_scenario(str(path))
    assert re.fullmatch(r"[A-Z].{30,}\.", scenario.lesson or "")
    assert tuple(scenario.algorithms) == COMPARED
    assert set(FIVE) <= set(COMPARED)


@pytest.mark.parametrize("path", QUOTA_SCENARIOS, ids=lambda path: path.stem)
def test_every_lesson_is_tested(path: Path) -> None:
    assert path.stem in TESTED
    assert load_scenario(str(path)).name == path.stem


def test_a_fixed_window_admits_twice_its_limit_around_a_boundary() -> None:
    replay = run("boundary-burst")
    overshoots = replay.figure("overshoot")
    assert overshoots.pop("fixed-window") == 2
    assert max(overshoots.values()) <= 1.02
    assert np.unique(replay.departures("fixed-window") // (60 * SECOND), return_counts=True)[1].tolist() == [60, 60]
    assert np.ptp(replay.departures("fixed-window")) < 2 * SECOND


def test_a_token_bucket_admits_a_burst_and_a_leaky_bucket_queues_it() -> None:
    replay = run("burst")
    token, leaky = replay.decisions["token-bucket"], replay.decisions["leaky-bucket"]
    assert token["allowed"].tolist() == leaky["allowed"].tolist()
    assert not token["delay_ns"].any()
    burst = (replay.traffic.times >= 3 * SECOND) & (replay.traffic.times < 4 * SECOND) & token["allowed"]
    assert burst.sum() == replay.comparison.quota.burst
    assert np.ptp(replay.departures("token-bucket")[3:8]) < 0.05 * SECOND
    assert np.diff(replay.departures("leaky-bucket")).min() == SECOND // 2


def test_costly_requests_are_denied_before_cheap_ones() -> None:
    replay = run("costly-requests")
    costly = replay.traffic.costs == 10
    assert 0.08 < costly.mean() < 0.12
    for rows in replay.decisions.values():
        assert (~rows["allowed"][costly]).mean() > 2.5 * (~rows["allowed"][~costly]).mean()
        remaining = rows["remaining"][~rows["allowed"] & ~costly]
        assert not remaining.any()  # if a cheap one does not fit, nothing fits


def test_a_limit_at_the_average_denies_clients_at_the_peak() -> None:
    replay = run("diurnal")
    per_minute = len(replay.traffic) / (24 * 60)
    assert per_minute == pytest.approx(30, rel=0.001)
    for name, times in replay.denial_times().items():
        assert len(times) > 0.25 * len(replay.traffic), name
        assert (times < 12 * HOUR).mean() > 0.999, name  # the half of the day above the average


def test_a_shared_counter_starves_quiet_clients_and_separate_ones_do_not() -> None:
    for name, ratios in run("global-counter").admit_ratios().items():
        assert max(ratio for client, ratio in ratios.items() if client.startswith("shared-quiet")) < 0.25, name
        assert {ratio for client, ratio in ratios.items() if client.startswith("own-quiet")} == {1}, name
        assert ratios["own-flood"] == pytest.approx(ratios["shared-flood"], abs=0.01), name


def test_a_flooding_client_only_harms_itself() -> None:
    for name, ratios in run("noisy-neighbour").admit_ratios().items():
        assert ratios.pop("noisy") < 0.05, name
        assert set(ratios.values()) == {1}, name


def test_a_sliding_counter_wrongly_denies_requests_after_a_burst() -> None:
    replay = run("on-off")
    denied = replay.figure("denied")
    assert denied.pop("sliding-counter") == replay.results["sliding-counter"].over_denied == 55
    assert set(denied.values()) == {0}
    assert replay.results["sliding-log"].peak_in_window == replay.comparison.quota.burst  # just within the quota
    assert replay.decisions["sliding-counter"]["allowed"][:10].all()


def test_under_overload_only_the_sliding_counter_admits_less_than_the_rate() -> None:
    replay = run("overload")
    granted = 2 * 600
    assert len(replay.traffic) > 4.5 * granted
    for name in ("token-bucket", "leaky-bucket", "fixed-window"):
        assert replay.results[name].admitted == pytest.approx(granted, rel=0.01)
    assert replay.results["sliding-counter"].admitted == pytest.approx(0.8 * granted, rel=0.02)


def test_as_traffic_grows_a_sliding_counter_denies_first_and_buckets_last() -> None:
    denied_at = run("ramp").denial_times()
    crossing = 60 * SECOND * (10 - 1) / (20 - 1)
    first = {name: int(times[0]) for name, times in denied_at.items()}
    savings = {first.pop("token-bucket"), first.pop("leaky-bucket")}
    assert min(savings) > max(first.values()) + 4 * SECOND
    assert {name for name, at in first.items() if at < crossing} == {"sliding-counter"}


def test_a_client_slower_than_the_window_finds_its_key_replenished() -> None:
    replay = run("slow-trickle")
    pause = int(np.diff(replay.traffic.times).min())
    for rows in replay.decisions.values():
        assert set(rows["remaining"].tolist()) == {replay.comparison.quota.burst - 1}
        assert rows["reset_after_ns"].max() < pause


def test_a_client_below_the_rate_is_never_denied_or_delayed() -> None:
    replay = run("steady")
    assert set(replay.figure("denied").values()) == set(replay.figure("delayed").values()) == {0}


def test_separate_quotas_admit_a_herd_that_only_a_queue_spreads_out() -> None:
    replay = run("thundering-herd")
    assert set(replay.figure("denied").values()) == {0}
    for name in replay.results:
        at_once = np.unique(replay.departures(name), return_counts=True)[1]
        assert set(at_once.tolist()) == ({200} if name == "leaky-bucket" else {600}), name
