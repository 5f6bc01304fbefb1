"""Replay of several policies together: the engines, the limiter and slow obvious models decide alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import combinations, combinations_with_replacement

import numpy as np
import pytest
from engine_comparison import draw_traffic, ignore_progress
from joint_traffic import apply_to_all, apply_to_some, create_policies

from ratelab import ManualClock, MemoryLimiter, Policy, Quota
from ratelab.algorithms import ALGORITHMS
from ratelab.lab.decisions import FIGURE_FIELDS
from ratelab.lab.policies import engine
from ratelab.lab.policies.engine import allocate_joint_columns
from ratelab.lab.policies.figures import measure_together
from ratelab.lab.policies.outcome import JointOutcome, replay_together
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS, State

NAMES = list(ALGORITHMS)
PAIRS = list(combinations_with_replacement(ALGORITHMS, 2))
TRIPLES = list(combinations(ALGORITHMS, 3))
QUOTA = Quota.parse("7/13s", 10)


def traffic(requests: int = 250) -> Traffic:
    return draw_traffic(QUOTA, requests=requests, clients=6)


def assert_like_limiter(policies: Sequence[Policy], requests: Traffic) -> None:
    """Check all five fields, the binding policy and each policy's verdict against a limiter on a manual clock."""
    outcome = replay_together(apply_to_all(policies, requests), requests, "atomic", ROW_FIELDS)
    clock = ManualClock()
    limiter = MemoryLimiter(policies, clock=clock)
    now = 0
    for n, (time, key, cost) in enumerate(
        zip(requests.times.tolist(), requests.request_keys.tolist(), requests.costs.tolist(), strict=True)
    ):
        clock.advance(time - now)
        now = time
        decision, each = limiter.hit_each(str(key), cost)
        assert decision[:5] == tuple(outcome.decisions[name][n] for name in ROW_FIELDS)
        assert decision.bound_by == (None if outcome.bound[n] < 0 else policies[outcome.bound[n]].name)
        assert [one.allowed for one in each] == [policy.decisions["allowed"][n] for policy in outcome.policies]


@pytest.mark.parametrize("algorithms", PAIRS[::3], ids="+".join)
def test_two_policies_decide_as_in_the_limiter(algorithms: tuple[str, ...]) -> None:
    assert_like_limiter(create_policies(algorithms), traffic())


@pytest.mark.slow
@pytest.mark.parametrize("algorithms", [*PAIRS, *TRIPLES], ids="+".join)
def test_pairs_and_triples_decide_as_in_the_limiter(algorithms: tuple[str, ...]) -> None:
    assert_like_limiter(create_policies(algorithms), traffic(1000))


def test_a_shadow_policy_decides_as_if_alone() -> None:
    requests = traffic()
    first, shadow = create_policies(["token-bucket"]), create_policies(["fixed-window"], shadow=True)
    assert_like_limiter([*first, *shadow], requests)
    outcome = replay_together(apply_to_all([*first, *shadow], requests), requests)
    alone = replay(shadow[0], requests, FIGURE_FIELDS).decisions
    assert outcome.policies[1].decisions["allowed"].tolist() == alone["allowed"].tolist()
    result = measure_together(outcome).policies[1]
    assert result.differing == np.count_nonzero(alone["allowed"] != outcome.decisions["allowed"])
    assert result.bound == result.burned == 0


def test_a_penalty_counts_denials_as_in_the_limiter() -> None:
    penalty = {"after": 3, "within": "1min", "for": "5min", "growth": 2}
    first = Policy.create("token-bucket", "7/13s", 10, name="first", penalty=penalty)
    assert_like_limiter([first, *create_policies(["fixed-window"])], traffic())


# --- other ways to enforce


def enforce_slowly(parts: Sequence[PolicyTraffic], requests: Traffic, sequential: bool) -> list[bool]:
    """Decide by single steps: ask the policies in order, and let each charge the requests that it admits."""
    states: dict[tuple[int, int], State] = {}
    verdicts = []
    places = [{int(place): n for n, place in enumerate(range(len(requests)) if part.places is None else part.places)}
              for part in parts]  # fmt: skip
    for n, now in enumerate(requests.clock_times.tolist()):
        admitted = True
        for number, part in enumerate(parts):
            if n not in places[number] or (sequential and not admitted):
                continue
            at = places[number][n]
            key = number, int(part.traffic.request_keys[at])
            state = states.setdefault(key, part.policy.start(now))
            admitted &= part.policy.step(state, now, int(part.traffic.costs[at]))[0]
        verdicts.append(admitted)
    return verdicts


@pytest.mark.parametrize("semantics", ["sequential", "independent"])
@pytest.mark.parametrize("algorithms", [TRIPLES[0], TRIPLES[-1]], ids="+".join)
def test_other_semantics_decide_as_single_steps_do(algorithms: tuple[str, ...], semantics: str) -> None:
    requests = traffic(600)
    for apply in (apply_to_all, apply_to_some):
        parts = apply(create_policies(algorithms), requests)
        outcome = replay_together(parts, requests, semantics)
        assert outcome.decisions["allowed"].tolist() == enforce_slowly(parts, requests, semantics == "sequential")


def list_outcomes() -> list[JointOutcome]:
    requests = traffic(800)
    parts = apply_to_some(create_policies(["token-bucket", "leaky-bucket", "fixed-window"]), requests)
    return [replay_together(parts, requests, semantics) for semantics in ("atomic", "sequential", "independent")]


def test_every_denied_request_is_bound_by_one_policy_that_denied_it() -> None:
    for outcome in list_outcomes():
        result = measure_together(outcome)
        assert sum(row.bound for row in result.policies) == result.whole.result.denied > 0
        for number, policy in enumerate(outcome.policies):
            bound = policy.asked.select(outcome.bound == number)
            assert not policy.decisions["allowed"][bound].any()


def test_only_atomic_policies_burn_nothing() -> None:
    atomic, sequential, independent = map(measure_together, list_outcomes())
    assert atomic.whole.burned == 0
    assert min(sequential.whole.burned, independent.whole.burned) > 0


def test_a_policy_lets_no_more_through_than_alone() -> None:
    requests = traffic(2000)
    policies = create_policies(["fixed-window", "token-bucket"])
    result = measure_together(replay_together(apply_to_all(policies, requests), requests))
    for policy, row in zip(policies, result.policies, strict=True):
        factor, extra = type(policy.algorithm).traits.at_most  # type: ignore[attr-defined]
        assert row.result.peak_in_window <= factor * policy.quota.burst + max(0, extra)


# --- compiled code


def assert_engines_agree(
    parts: Sequence[PolicyTraffic], requests: Traffic, fields: Sequence[str] = FIGURE_FIELDS
) -> None:
    from ratelab.lab.compiled import joint

    expected, compiled = (allocate_joint_columns(parts, requests, fields) for _ in range(2))
    engine.decide(parts, requests, expected, ignore_progress)
    joint.decide(parts, requests, compiled, ignore_progress)
    assert compiled.bound.tolist() == expected.bound.tolist()
    for field in fields:
        assert compiled.whole[field].tolist() == expected.whole[field].tolist(), field
    for part, one, other in zip(parts, compiled.parts, expected.parts, strict=True):
        for field in one:
            assert part.select(one[field]).tolist() == part.select(other[field]).tolist(), (part.label, field)


# Each algorithm is the first of some and not the first of others, since the compiler takes seconds for each of them.


@pytest.mark.slow
@pytest.mark.parametrize("algorithms", [("leaky-bucket", "fixed-window"), ("gcra", "sliding-log")], ids="+".join)
def test_compiled_code_decides_costs_of_1_as_plain_python(algorithms: tuple[str, ...]) -> None:
    pytest.importorskip("numba")
    requests = draw_traffic(QUOTA, 10**15 + 7, clients=12)
    requests = replace(requests, costs=np.ones_like(requests.costs))
    assert_engines_agree(apply_to_all(create_policies(algorithms), requests), requests)


@pytest.mark.slow
@pytest.mark.parametrize("algorithms", [NAMES[place : place + 2] for place in range(0, len(NAMES), 2)], ids="+".join)
def test_compiled_code_decides_as_plain_python_with_several_costs(algorithms: tuple[str, ...]) -> None:
    pytest.importorskip("numba")
    requests = draw_traffic(QUOTA, 10**15 + 7, clients=12)
    assert_engines_agree(apply_to_all(create_policies(algorithms), requests), requests, ROW_FIELDS)


@pytest.mark.slow
@pytest.mark.parametrize(
    "algorithms",
    [
        ("leaky-bucket", "leaky-bucket"),
        ("sliding-log", "gcra", "sliding-log"),
        ("fixed-window", "sliding-counter", "token-bucket"),
    ],
    ids="+".join,
)
def test_compiled_code_decides_as_plain_python_with_several_keys(algorithms: tuple[str, ...]) -> None:
    pytest.importorskip("numba")
    requests = draw_traffic(QUOTA, 10**15 + 7, clients=12)
    fields = FIGURE_FIELDS if "sliding-log" in algorithms else ROW_FIELDS
    assert_engines_agree(apply_to_some(create_policies(algorithms), requests), requests, fields)


@pytest.mark.slow
def test_compiled_code_decides_as_plain_python_by_the_calendar() -> None:
    pytest.importorskip("numba")
    requests = draw_traffic(QUOTA, 10**17 + 7, clients=12)
    day = Policy.create("fixed-window", "100/day", name="day", timezone="Europe/Berlin")
    assert_engines_agree(apply_to_all([day, *create_policies(["token-bucket"])], requests), requests)


@pytest.mark.slow
def test_partitions_of_the_keys_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("numba")
    requests = draw_traffic(QUOTA, clients=40)
    parts = apply_to_all(create_policies(["sliding-log", "token-bucket"]), requests)
    monkeypatch.setattr("ratelab.lab.partition.MAX_STATE_INTEGERS", 64)
    assert_engines_agree(parts, requests)
