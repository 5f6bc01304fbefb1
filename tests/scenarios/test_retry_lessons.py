"""Lessons of the scenarios whose clients react to their answers."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from loop_scenarios import RETRY_SCENARIOS, count_successes, load_by_variant, run_variant

from ratelab.lab.closed_loop.figures import LoopResult

TESTED = re.findall(r'run_all\("([a-z-]+)"', Path(__file__).read_text(encoding="utf-8"))


def run_all(stem: str, algorithm: str | None = None) -> dict[str, LoopResult]:
    """Return the results of all variants."""
    return {str(name): run_variant(stem, str(name), algorithm)[1] for name in load_by_variant(stem)}


@pytest.mark.parametrize("path", RETRY_SCENARIOS, ids=lambda path: path.stem)
def test_a_scenario_has_a_tested_lesson_and_variants(path: Path) -> None:
    scenarios = load_by_variant(path.stem)
    assert path.stem in TESTED
    for scenario in scenarios.values():
        assert scenario.name == path.stem
        assert re.fullmatch(r"[A-Z].{30,}\.", scenario.lesson or "")
        assert scenario.population is not None
    assert len(scenarios) >= 2


def test_clients_of_a_fixed_window_return_together_unless_they_add_jitter() -> None:
    fixed, token = (run_all("herd-after-a-window", name) for name in ("fixed-window", "token-bucket"))
    assert fixed["plain"].herd_peak is not None
    assert fixed["plain"].herd_peak > 20
    for result in (fixed["jitter"], token["plain"], token["jitter"]):
        assert result.herd_peak is not None
        assert result.herd_peak < 5
    assert fixed["plain"].successes == fixed["jitter"].successes == 12 * 600


@pytest.mark.slow
def test_retries_at_once_keep_a_service_busy_long_after_a_slow_phase() -> None:
    results = run_all("retry-storm")
    recovery = {name: result.recovery_time for name, result in results.items()}
    assert recovery.pop("twice at once") is None
    assert results["twice at once"].metastable
    at_once = recovery.pop("at once")
    assert at_once is not None
    assert at_once > 45
    assert max(time for time in recovery.values() if time is not None) < 20
    assert None not in recovery.values()
    best = max(results, key=lambda name: results[name].goodput)
    assert best.startswith("backoff")


@pytest.mark.slow
def test_serial_clients_slow_down_and_open_ones_fill_the_queue() -> None:
    results = run_all("serial-or-open")
    serial, open_ = results["serial"], results["open"]
    assert serial.timeouts == 0
    assert serial.goodput == pytest.approx(100, rel=0.02)
    assert serial.time_to_success_p99 is not None
    assert serial.time_to_success_p99 < 0.5
    assert open_.goodput_ratio < 0.2
    assert count_successes(run_variant("serial-or-open", "open")[0], 60, 120) == 0


@pytest.mark.slow
def test_one_retry_keeps_a_service_down_after_a_short_outage() -> None:
    results = run_all("metastable-outage")
    assert {name for name, result in results.items() if result.metastable} == {"one retry"}
    assert {name for name, result in results.items() if result.recovery_time is None} == {"one retry"}
    assert results["last in first out"].recovery_time == 0


def test_jitter_on_top_of_retry_after_saves_a_third_of_the_denials() -> None:
    results = run_all("retry-after-jitter")
    plain, equal, full = (results[name] for name in ("no jitter", "equal jitter", "full jitter"))
    assert full.denied < equal.denied < plain.denied
    assert full.denied == pytest.approx(plain.denied * 2 / 3, rel=0.05)
    assert plain.successes == equal.successes == full.successes
    assert full.gave_up < plain.gave_up / 10


@pytest.mark.slow
def test_a_budget_repairs_rare_errors_without_a_storm_in_an_outage() -> None:
    results = run_all("retry-budget")
    none, three, budget = (results[name] for name in ("no retry", "three retries", "three retries, budget"))
    assert three.amplification > 1.5
    assert budget.amplification < 1.05
    repaired = three.successes - none.successes
    assert repaired > 250
    assert budget.successes - none.successes > 0.85 * repaired
