"""The sliding counter as an estimate: what is claimed of it, and on which traffic that holds."""

from __future__ import annotations

import re
from fractions import Fraction
from functools import cache
from pathlib import Path
from statistics import fmean

import pytest
from cli_runner import SCENARIOS, shown, told
from hypothesis import given
from hypothesis import strategies as st
from random_runs import Request, runs, traffic_of

from ratelab import Quota
from ratelab.algorithms import find
from ratelab.lab.comparison import Comparison, compare
from ratelab.lab.counter_estimate import CLAIMED_DIFFERENCE, CLAIMED_WRONG, Estimate, estimate
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.traffic import Traffic
from ratelab.lab.windows import Trailing

CLAIM = sorted((SCENARIOS / "sliding-counter-claim").iterdir())
quotas = st.sampled_from([Quota(1, 1, 1), Quota(1, 3, 4), Quota(1, 4, 1), Quota(2, 10**9, 5), Quota(2, 2**61 - 1, 2)])


def estimated(traffic: Traffic, quota: Quota) -> Estimate:
    return estimate(quota, traffic, Trailing(traffic, quota.window))


@given(runs, quotas, st.sampled_from([0, 5, 10**18]))
def test_an_estimate_is_what_counting_one_by_one_gives(run: list[Request], quota: Quota, origin: int) -> None:
    drawn = traffic_of(run)
    traffic = Traffic(**{**vars(drawn), "origin": origin})
    asked = list(zip(traffic.clock_times.tolist(), traffic.costs.tolist(), traffic.request_keys.tolist(), strict=True))
    real, guessed = [], []
    for number, (now, _, own) in enumerate(asked):
        mine = [(at, cost) for at, cost, key in asked[: number + 1] if key == own]
        begin = now // quota.window * quota.window
        overlap = 1 - Fraction(now - begin, quota.window)
        real.append(sum(cost for at, cost in mine if at + quota.window > now))
        current = sum(cost for at, cost in mine if at >= begin)
        guessed.append(current + overlap * sum(cost for at, cost in mine if begin - quota.window <= at < begin))
    found = estimated(traffic, quota)
    sides = [(truth > quota.burst, guess > quota.burst) for truth, guess in zip(real, guessed, strict=True)]
    assert (found.wrongly_allowed, found.wrongly_limited) == (sides.count((True, False)), sides.count((False, True)))
    apart = [float(abs(guess - truth) / truth) for truth, guess in zip(real, guessed, strict=True)]
    assert found.mean_difference == pytest.approx(fmean(apart or [0]))
    assert found.near_ratio == fmean([abs(truth - quota.burst) * 10 <= quota.burst for truth in real] or [0])
    keys = [key for _, _, key in asked]
    above, taken = ({key for key, side in zip(keys, sides, strict=True) if side[which]} for which in (0, 1))
    assert (found.keys_above, found.keys_missed, found.keys_blamed) == (
        len(above),
        len(above - taken),
        len(taken - above),
    )


@cache
def run_of(stem: str) -> Comparison:
    scenario = load_scenario(str(CLAIM[0].parent / f"{stem}.yaml"))
    return compare(scenario.quota, scenario.traffic, [*map(find, scenario.algorithms)], with_cards=True)


def wrong(stem: str) -> tuple[float, float]:
    """Return the share of requests that the estimate puts on the wrong side, and that of decisions that differ."""
    run = run_of(stem)
    assert run.estimate is not None
    counter = run.results[-1]
    assert counter.over_admitted is not None
    assert counter.over_denied is not None
    return run.estimate.wrong_ratio, (counter.over_admitted + counter.over_denied) / counter.offered


def test_the_claim_holds_on_an_even_flow_nearly_all_of_it_far_below_the_limit() -> None:
    scenario = load_scenario(str(CLAIM[0].parent / "mostly-quiet.yaml"))
    found = estimated(scenario.traffic, scenario.quota)
    assert len(scenario.traffic.names) == 270
    assert len(scenario.traffic) == pytest.approx(400_000, rel=0.01)
    assert found.wrong_ratio == pytest.approx(CLAIMED_WRONG, rel=0.5)
    assert found.mean_difference == pytest.approx(CLAIMED_DIFFERENCE, rel=0.1)
    assert (found.keys_missed, found.keys_blamed) == (2, 0)


def test_the_claim_is_off_by_orders_of_magnitude_near_the_limit() -> None:
    assert wrong("half-the-limit") == (0, 0)
    assert wrong("near-the-limit")[0] > 1000 * CLAIMED_WRONG
    assert wrong("at-the-limit")[0] > wrong("near-the-limit")[0]


def test_far_above_the_limit_the_estimate_is_right_and_two_decisions_in_five_differ() -> None:
    by_estimate, by_limiter = wrong("far-above")
    assert by_estimate == 0
    assert by_limiter == pytest.approx(0.4, abs=0.02)


def test_bursts_are_limited_though_nobody_ever_exceeds_the_limit() -> None:
    run = run_of("bursts")
    assert run.estimate is not None
    assert (run.estimate.keys_above, run.estimate.keys_blamed) == (0, len(run.traffic.names))
    assert (run.estimate.near_ratio, run.estimate.wrong_ratio > 1000 * CLAIMED_WRONG) == (0, True)
    assert [result.denied > 0 for result in run.results] == [False, True]


@pytest.mark.parametrize("path", CLAIM, ids=lambda path: path.stem)
def test_every_scenario_of_the_claim_is_told_of(path: Path) -> None:
    assert path.stem in re.findall(r'"([a-z-]+)(?:\.yaml)?"', Path(__file__).read_text(encoding="utf-8"))
    assert load_scenario(str(path)).name == path.stem


def test_the_table_and_the_json_tell_the_estimate_beside_the_claim() -> None:
    text = " ".join(shown("simulate", CLAIM[0], "--accuracy").split())
    assert "off by 2.9 % on average, and on the wrong side of the limit with 2,438 of 20,005 requests (12 %)." in text
    assert "Cloudflare's analysis of 2017 found 6 % and 0.003 %: https://blog.cloudflare.com/counting-" in text
    found = told("simulate", CLAIM[0], "--accuracy")["estimate"]
    assert found["wrongly_allowed"] + found["wrongly_limited"] == 2438
    assert "estimate" not in told("simulate", CLAIM[0], "--accuracy", "--algo", "gcra")
