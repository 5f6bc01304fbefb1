"""Accuracy of the sliding counter's estimate, and the traffic on which a published claim about it holds."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest
from cli_runner import SCENARIOS, get_json, get_output
from hypothesis import given
from hypothesis import strategies as st
from random_runs import Request, create_traffic, runs

from ratelab import Quota, create
from ratelab.lab.comparison import Comparison, compare, with_accuracy
from ratelab.lab.counter_estimate import CLAIMED_DIFFERENCE, CLAIMED_WRONG, measure_estimate
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traffic import Traffic

CLAIM = sorted((SCENARIOS / "sliding-counter-claim").iterdir())
quotas = st.sampled_from([Quota(1, 1, 1), Quota(1, 3, 4), Quota(1, 4, 1), Quota(2, 10**9, 5), Quota(2, 2**61 - 1, 2)])


@given(runs, quotas, st.sampled_from([0, 5, 10**18]))
def test_the_estimate_equals_a_count_one_by_one(run: list[Request], quota: Quota, origin: int) -> None:
    drawn = create_traffic(run)
    traffic = Traffic(**{**vars(drawn), "origin": origin})
    requests = list(
        zip(traffic.clock_times.tolist(), traffic.costs.tolist(), traffic.request_keys.tolist(), strict=True)
    )
    real, guessed = [], []
    for number, (now, _, key) in enumerate(requests):
        past = [(at, cost) for at, cost, other in requests[: number + 1] if other == key]
        begin = now // quota.window * quota.window
        overlap = 1 - Fraction(now - begin, quota.window)
        real.append(sum(cost for at, cost in past if at + quota.window > now))
        current = sum(cost for at, cost in past if at >= begin)
        guessed.append(current + overlap * sum(cost for at, cost in past if begin - quota.window <= at < begin))
    found = measure_estimate(quota, traffic)
    sides = [(truth > quota.burst, guess > quota.burst) for truth, guess in zip(real, guessed, strict=True)]
    assert (found.wrongly_allowed, found.wrongly_limited) == (sides.count((True, False)), sides.count((False, True)))
    apart = [float(abs(guess - truth) / truth) for truth, guess in zip(real, guessed, strict=True)]
    assert found.mean_difference == pytest.approx(fmean(apart or [0]))
    assert found.near_ratio == fmean([abs(truth - quota.burst) * 10 <= quota.burst for truth in real] or [0])
    keys = [key for _, _, key in requests]
    above, taken = ({key for key, side in zip(keys, sides, strict=True) if side[which]} for which in (0, 1))
    assert (found.keys_above, found.keys_missed, found.keys_blamed) == (
        len(above),
        len(above - taken),
        len(taken - above),
    )


@cache
def run_scenario(stem: str) -> Comparison:
    scenario = load_scenario(str(CLAIM[0].parent / f"{stem}.yaml"))
    policies = [create(name, scenario.open_loop_quota) for name in scenario.algorithms]
    return with_accuracy(compare(policies, scenario.traffic))


def compute_wrong_ratios(stem: str) -> tuple[float, float]:
    """Return the ratio of requests on the wrong side of the estimate, and that of differing decisions."""
    run = run_scenario(stem)
    assert run.estimate is not None
    counter = run.results[-1]
    assert counter.over_admitted is not None
    assert counter.over_denied is not None
    return run.estimate.wrong_ratio, (counter.over_admitted + counter.over_denied) / counter.offered


@pytest.mark.slow
def test_the_claim_holds_on_even_traffic_mostly_far_below_the_limit() -> None:
    scenario = load_scenario(str(CLAIM[0].parent / "mostly-quiet.yaml"))
    found = measure_estimate(scenario.open_loop_quota, scenario.traffic)
    assert len(scenario.traffic.names) == 270
    assert len(scenario.traffic) == pytest.approx(400_000, rel=0.01)
    assert found.wrong_ratio == pytest.approx(CLAIMED_WRONG, rel=0.5)
    assert found.mean_difference == pytest.approx(CLAIMED_DIFFERENCE, rel=0.1)
    assert (found.keys_missed, found.keys_blamed) == (2, 0)


def test_the_claim_is_off_by_orders_of_magnitude_near_the_limit() -> None:
    assert compute_wrong_ratios("half-the-limit") == (0, 0)
    assert compute_wrong_ratios("near-the-limit")[0] > 1000 * CLAIMED_WRONG
    assert compute_wrong_ratios("at-the-limit")[0] > compute_wrong_ratios("near-the-limit")[0]


def test_far_above_the_limit_the_estimate_is_right_but_decisions_differ() -> None:
    by_estimate, by_limiter = compute_wrong_ratios("far-above")
    assert by_estimate == 0
    assert by_limiter == pytest.approx(0.4, abs=0.02)


def test_bursts_are_limited_although_no_key_exceeds_the_limit() -> None:
    run = run_scenario("bursts")
    assert run.estimate is not None
    assert (run.estimate.keys_above, run.estimate.keys_blamed) == (0, len(run.traffic.names))
    assert (run.estimate.near_ratio, run.estimate.wrong_ratio > 1000 * CLAIMED_WRONG) == (0, True)
    assert [result.denied > 0 for result in run.results] == [False, True]


@pytest.mark.parametrize("path", CLAIM, ids=lambda path: path.stem)
def test_every_scenario_of_the_claim_is_tested(path: Path) -> None:
    assert path.stem in re.findall(r'"([a-z-]+)(?:\.yaml)?"', Path(__file__).read_text(encoding="utf-8"))
    assert load_scenario(str(path)).name == path.stem


def test_table_and_json_compare_the_estimate_with_the_claim() -> None:
    text = " ".join(get_output("simulate", CLAIM[0], "--accuracy").split())
    assert "off by 2.92 % on average, and on the wrong side of the limit for 2,438 of 20,005 requests (12.2 %)." in text
    assert "Cloudflare's analysis of 2017 found 6 % and 0.003 %: https://blog.cloudflare.com/counting-" in text
    found = get_json("simulate", CLAIM[0], "--accuracy")["estimate"]
    assert found["wrongly_allowed"] + found["wrongly_limited"] == 2438
    assert "estimate" not in get_json("simulate", CLAIM[0], "--accuracy", "--algo", "gcra")
