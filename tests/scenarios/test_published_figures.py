"""Published figures of clients that retry, reproduced from scenario files.

The tolerance is three standard errors of the difference between two runs, unless a test states another.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from loop_scenarios import PUBLISHED_SCENARIOS, count_successes, load_by_variant, run_variant

from ratelab.lab.closed_loop.figures import LoopResult
from ratelab.lab.closed_loop.outcome import SUCCESS, run_loop
from ratelab.lab.policies.figures import compare_semantics
from ratelab.lab.scenarios import load_variants
from ratelab.quota import NS_PER_S


def find_error(parts: np.ndarray, wholes: np.ndarray) -> float:
    """Return the standard error of the ratio of two sums over independent clients."""
    ratio = parts.sum() / wholes.sum()
    return float(np.sqrt(((parts - ratio * wholes) ** 2).sum()) / wholes.sum())


# --- "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015), whose simulator was run again: 100 runs each

CALLS = {
    10: (50.6, 51.0, 37.9, 42.4, 38.6),
    50: (690, 623, 373, 347, 332),
    100: (2425.7, 1846.1, 998.6, 812.5, 796.2),
    190: (7997, 5150, 2430, 1761, 1772),
}
BACKOFFS = ("none", "exponential", "decorrelated-jitter", "equal-jitter", "full-jitter")
LAST_MS = {"none": 2031, "full-jitter": 4909, "decorrelated-jitter": 4780, "equal-jitter": 6540, "exponential": 63309}
RUNS = {10: 60, 50: 20, 100: 50, 190: 8}


@cache
def repeat(variant: str, runs: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the calls and the time of the last success in milliseconds, of runs with as many seeds."""
    population = load_by_variant("backoff-and-jitter")[variant].population
    assert population is not None
    outcomes = [run_loop(None, replace(population, seed=seed)) for seed in range(100, 100 + runs)]
    assert all((outcome.requests.results == SUCCESS).all() for outcome in outcomes)
    calls = np.array([len(outcome.tries) for outcome in outcomes])
    return calls, np.array([outcome.requests.ended.max() / 1e6 for outcome in outcomes])


def assert_mean(values: np.ndarray, published: float) -> None:
    """Check a mean; the published one is of 100 runs that vary as much."""
    error = values.std(ddof=1) * math.sqrt(1 / len(values) + 1 / 100)
    assert abs(values.mean() - published) < 3 * error, (values.mean(), published, error)


@pytest.mark.parametrize("number", range(5), ids=BACKOFFS)
def test_ten_writers_need_the_published_calls(number: int) -> None:
    assert_mean(repeat(f"{BACKOFFS[number]} 10", RUNS[10])[0], CALLS[10][number])


@pytest.mark.slow
@pytest.mark.parametrize("number", range(5), ids=BACKOFFS)
@pytest.mark.parametrize("clients", [50, 100, 190])
def test_writers_need_the_published_calls(clients: int, number: int) -> None:
    assert_mean(repeat(f"{BACKOFFS[number]} {clients}", RUNS[clients])[0], CALLS[clients][number])


@pytest.mark.slow
@pytest.mark.parametrize("backoff", BACKOFFS)
def test_the_last_of_a_hundred_writers_succeeds_at_the_published_time(backoff: str) -> None:
    assert_mean(repeat(f"{backoff} 100", RUNS[100])[1], LAST_MS[backoff])


# --- Brooker, "Fixing retries with token buckets and circuit breakers" (2022), whose simulator was run again

SUCCESS_AND_LOAD = {
    "none 10%": (0.900, 1),
    "three 10%": (0.9999, 1.111),
    "budget 10%": (0.984, 1.094),
    "breaker 10%": (0.927, 1.031),
    "none 50%": (0.502, 1),
    "three 50%": (0.9375, 1.873),
    "budget 50%": (0.552, 1.104),
    "breaker 50%": (0.501, 1.000),
    "three 75%": (0.682, 2.73),
}


def assert_ratios(result: LoopResult, success: float, load: float) -> None:
    """Check the success ratio and the amplification; clients are independent, and the published run has as many."""
    first, counts = result.client_counts["first_tries"], result.client_counts
    for part, published in (("successes", success), ("attempts", load)):
        ratio = counts[part].sum() / first.sum()
        error = math.sqrt(2) * find_error(counts[part], first) + 0.0005  # the last digit
        assert abs(ratio - published) < 3 * error, (part, ratio, published, error)


@pytest.mark.slow
@pytest.mark.parametrize(("variant", "published"), SUCCESS_AND_LOAD.items())
def test_budgets_and_breakers_have_the_published_success_and_load(variant: str, published: tuple[float, float]) -> None:
    assert_ratios(run_variant("retry-budgets", variant)[1], *published)


@pytest.mark.slow
@pytest.mark.parametrize("percent", [10, 50, 75])
def test_three_retries_have_the_closed_form_of_success_and_load(percent: int) -> None:
    p = percent / 100
    assert_ratios(run_variant("retry-budgets", f"three {percent}%")[1], 1 - p**4, (1 - p**4) / (1 - p))


@pytest.mark.slow
def test_a_budget_filled_by_successes_allows_half_the_retries_of_one_filled_by_requests() -> None:
    result = run_variant("retry-budgets", "budget on success 50%")[1]
    saved = 4.9 * 100 / result.first_tries  # each client starts with a full bucket
    assert result.amplification - 1 - saved == pytest.approx(0.0526, abs=0.003)


@pytest.mark.slow
@pytest.mark.parametrize(("clients", "load"), [(10, 1.104), (100, 1.141), (1000, 1.463)])
def test_budgets_of_more_clients_allow_more_retries(clients: int, load: float) -> None:
    result = run_variant("budgets-by-client-count", f"budget {clients}")[1]
    error = math.sqrt(2) * find_error(result.client_counts["attempts"], result.client_counts["first_tries"])
    assert result.amplification == pytest.approx(load, abs=3 * error)


@pytest.mark.slow
@pytest.mark.parametrize(("clients", "success"), [(10, 0.498), (100, 0.504), (1000, 0.505)])
def test_breakers_of_more_clients_allow_hardly_more_successes(clients: int, success: float) -> None:
    result = run_variant("budgets-by-client-count", f"breaker {clients}")[1]
    error = math.sqrt(2) * find_error(result.client_counts["successes"], result.client_counts["first_tries"])
    assert result.goodput_ratio == pytest.approx(success, abs=3 * error)


# --- Brooker, "What is Backoff For?" (2022)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "first", "sent"), [("open", 1004, 1878), ("paced", 421, 793), ("paused", 400, 400 * 1.875)]
)
def test_backoff_lowers_the_load_only_of_serial_clients(variant: str, first: float, sent: float) -> None:
    result = run_variant("what-backoff-is-for", variant)[1]
    assert result.amplification == pytest.approx(1.87, abs=0.01)
    for counts, published in (("first_tries", first), ("attempts", sent)):
        a_second = result.client_counts[counts] / 100
        error = math.sqrt(2) * a_second.std(ddof=1) * math.sqrt(len(a_second))
        assert a_second.sum() == pytest.approx(published, abs=3 * error)


# --- Brooker, simple_collapse_sim: means of ten runs


@pytest.mark.slow
def test_a_spike_ends_in_collapse_without_backoff_and_in_recovery_with_it() -> None:
    (collapse,) = (str(path) for path in PUBLISHED_SCENARIOS if path.stem == "collapse-by-timeouts")
    late: dict[str, list[float]] = {"no backoff": [], "backoff and jitter": []}
    soon = []
    for seed in range(10):
        for scenario in load_variants(collapse, seed=seed):
            assert scenario.population is not None
            outcome = run_loop(None, scenario.population)
            late[str(scenario.variant)].append(count_successes(outcome, 70, 80))
            assert count_successes(outcome, 10, 20) == pytest.approx(40, abs=8)
            if scenario.variant == "backoff and jitter":
                soon.append(count_successes(outcome, 35, 40))
    assert min(late["backoff and jitter"]) > 30
    assert 40 <= np.mean(soon) <= 48
    collapsed = np.array(late["no backoff"])
    assert sorted({round(value, -1) for value in late["no backoff"]}) == [0, 40]  # it recovers, or never does
    assert abs(collapsed.mean() - 12) < 3 * collapsed.std(ddof=1) * math.sqrt(2 / 10)


# --- "Handling Overload" (Google SRE book, 2016)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "sent", "local", "rejected"),
    [
        ("K 2 demand 50", 50, 0, 0),
        ("K 2 demand 400", 199.8, 0.501, 0.499),
        ("K 2 demand 1000", 200.4, 0.799, 0.501),
        ("K 1.1 demand 1000", 107, 0.894, 1 - 97 / 107),
    ],
)
def test_clients_that_reject_tries_send_at_most_k_times_the_capacity(
    variant: str, sent: float, local: float, rejected: float
) -> None:
    outcome, _ = run_variant("client-side-throttling", variant)
    begin, span = 150 * NS_PER_S, 150  # seconds, after the first window is full
    is_late = outcome.traffic.times >= begin
    first = np.count_nonzero(outcome.requests.started >= begin)
    assert is_late.sum() / span == pytest.approx(sent, rel=0.02)
    assert 1 - is_late.sum() / first == pytest.approx(local, abs=0.01)
    assert (~outcome.decisions["allowed"][is_late]).mean() == pytest.approx(rejected, abs=0.01)


@pytest.mark.slow
def test_retries_of_an_outage_triple_its_load_and_a_budget_adds_a_tenth() -> None:
    assert run_variant("retries-of-an-outage", "three attempts")[1].amplification == pytest.approx(3, abs=0.001)
    assert run_variant("retries-of-an-outage", "budget of 10%")[1].amplification == pytest.approx(1.1, abs=0.01)


# --- Bronson et al., "Metastable Failures in Distributed Systems" (HotOS 2021)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "recovers"),
    [
        ("140 queries", True),
        ("160 queries", False),
        ("280 queries", False),
        ("280 queries, last in first out", True),
        ("280 queries, stale ones dropped", True),
        ("280 queries, no retry", True),
        ("280 queries, budget of 5%", True),
        ("280 queries, budget of 10%", False),
    ],
)
def test_a_database_recovers_from_an_outage_or_never_does(variant: str, recovers: bool) -> None:
    outcome, result = run_variant("metastable-database", variant)
    assert (result.recovery_time is not None) == recovers
    if not recovers:
        assert result.metastable
        assert count_successes(outcome, 100, 600) == 0
    if variant == "280 queries":
        assert (outcome.traffic.times >= 100 * NS_PER_S).sum() / 500 == pytest.approx(560, rel=0.01)
    if variant.endswith("last in first out"):
        assert result.recovery_time == 0


# --- BerriAI/litellm#18730


@pytest.mark.parametrize(
    ("variant", "admitted", "used"),
    [("charged afterwards", 5, 663), ("64 reserved", 1, 58), ("128 reserved", 0, 0), ("100 reserved", 1, 58)],
)
def test_a_token_limit_admits_what_is_reserved(variant: str, admitted: int, used: int) -> None:
    scenario = load_by_variant("tokens-charged-afterwards")[variant]
    assert scenario.limits is not None
    (result,) = compare_semantics(scenario.limits.parts, scenario.traffic, scenario.limits.semantics).results
    (tokens,) = result.policies
    assert tokens.policy is not None
    assert tokens.policy.asked.settlement is not None
    allowed = tokens.policy.let_through["allowed"]
    assert (allowed.sum(), tokens.policy.asked.settlement.actual[allowed].sum()) == (admitted, used)


# --- a hundred clients of one quota, measured once with a simulator of its own: within 5 %


@pytest.mark.slow
@pytest.mark.parametrize(
    ("variant", "denials", "gave_up"),
    [
        ("immediate", 9.17, 0.478),
        ("fixed", 1.01, 0.036),
        ("full jitter", 1.66, 0.023),
        ("Retry-After", 1.01, 0.036),
        ("Retry-After with jitter", 0.67, 0.001),
    ],
)
def test_clients_of_one_quota_are_denied_least_with_jitter_on_top_of_retry_after(
    variant: str, denials: float, gave_up: float
) -> None:
    result = run_variant("retries-at-a-shared-limit", variant)[1]
    assert result.denied / result.successes == pytest.approx(denials, rel=0.05)
    assert result.gave_up / result.first_tries == pytest.approx(gave_up, abs=0.005)


# --- all of them


@pytest.mark.parametrize("path", PUBLISHED_SCENARIOS, ids=lambda path: path.stem)
def test_each_scenario_names_its_source_and_a_lesson(path: Path) -> None:
    (first, *_) = variants = load_variants(str(path))
    assert first.name == path.stem
    assert first.description.endswith(".")
    assert re.fullmatch(r"[A-Z].{30,}\.", first.lesson or "")
    assert len({variant.variant for variant in variants}) > 1
