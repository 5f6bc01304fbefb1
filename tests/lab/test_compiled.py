"""Compiled replay: the decisions of plain Python, or the reason why it cannot make them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from engine_comparison import QUOTA, assert_same, traffic

from ratelab import Algorithm, create
from ratelab.errors import SlowWarning
from ratelab.lab import comparison, compiled, python_engine, sweep
from ratelab.lab.compiled import states
from ratelab.lab.conformance import ORIGINS, QUOTAS
from ratelab.lab.decisions import ADMITTED, FIGURED
from ratelab.lab.replay import allocate_columns, replay
from ratelab.limiter import Decision


def test_every_algorithm_decides_the_same_on_every_quota(kind: type[Algorithm]) -> None:
    too_large = 0
    for quota, origin in product(QUOTAS, ORIGINS):
        try:
            assert_same(kind.from_quota(quota), traffic(quota, origin))
        except compiled.UnfitError:
            too_large += 1
    assert too_large < len(QUOTAS)


@pytest.mark.slow
def test_decisions_are_the_same_if_each_request_costs_1(kind: type[Algorithm]) -> None:
    asked = traffic(QUOTA)
    assert_same(kind.from_quota(QUOTA), replace(asked, costs=np.ones(len(asked), np.int64)))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [ADMITTED, FIGURED], ids=" and ".join)
def test_decisions_are_the_same_for_a_part_of_the_columns(kind: type[Algorithm], fields: Sequence[str]) -> None:
    assert_same(kind.from_quota(QUOTA), traffic(QUOTA), fields)


def test_states_too_large_for_memory_are_replayed_in_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.partition.MAX_STATE_INTEGERS", 40)
    assert_same(create("sliding-log", QUOTA).algorithm, traffic(QUOTA))
    assert_same(create("sliding-log", QUOTA).algorithm, traffic(QUOTA), FIGURED)


def test_a_key_has_no_more_state_than_it_can_use() -> None:
    asked = replace(traffic(QUOTA, clients=4), keys=np.array([0, 1, 2, 5]))
    once = replace(asked, clients=np.array([0, 1, 1, 3]), times=np.arange(4), costs=np.array([1, 2, 3, 900]))
    log = create("sliding-log", QUOTA).algorithm
    assert states.widths(log, 14, once, allocate_columns(once, FIGURED)).tolist() == [5, 9, 4, 4, 4, 14]
    assert {*states.widths(log, 14, once, allocate_columns(once, Decision._fields)).tolist()} == {14}
    assert {*states.widths(create("gcra", QUOTA).algorithm, 1, once, allocate_columns(once, FIGURED)).tolist()} == {1}


def test_the_total_cost_of_a_key_may_exceed_64_bits() -> None:
    asked = traffic(QUOTA, clients=2)
    costs = np.where(asked.costs > QUOTA.burst, 2**61, asked.costs)
    assert_same(create("sliding-log", QUOTA).algorithm, replace(asked, costs=costs), FIGURED)


# --- choice of the engine


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record which engine decides."""
    used: list[str] = []

    def record(name: str, decide: Callable[..., None]) -> Callable[..., None]:
        def decided(*arguments: object) -> None:
            used.append(name)
            decide(*arguments)

        return decided

    for module in (compiled, python_engine):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "decide", record(name, module.decide))
    return used


@pytest.mark.parametrize(("requests", "engine"), [(2_999, "python_engine"), (3_000, "compiled")])
def test_the_compiled_engine_is_used_from_a_number_of_requests_on(
    requests: int, engine: str, engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_REQUESTS", 3_000)
    replay(create("gcra", QUOTA), traffic(QUOTA, requests=requests), FIGURED)
    assert engines == [engine]


@pytest.mark.parametrize("caller", [sweep.sweep, comparison.compare], ids=["sweep", "comparison"])
def test_without_the_compiler_one_warning_estimates_the_time(
    caller: Callable[..., object], engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.replay.find_spec", lambda name: None)
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_REQUESTS", 3_000)
    policies = [create("gcra", QUOTA)] * (2 if caller is sweep.sweep else 1)  # a comparison adds the exact log
    asked = traffic(QUOTA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caller(policies, asked)
    monkeypatch.setattr("ratelab.lab.replay.MIN_ADVISED_DECISIONS", 6_000)
    with pytest.warns(SlowWarning, match=r"6,000 decisions.*pip install '\.\[fast\]'") as warned:
        caller(policies, asked)
    assert len(warned) == 1
    assert {*engines} == {"python_engine"}


def test_integers_too_large_are_decided_in_plain_python(engines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_REQUESTS", 0)
    asked = traffic(QUOTA, origin=1_700_000_000 * 10**9)
    with pytest.warns(SlowWarning, match=r"gcra is replayed in plain Python.*2\*\*63"):
        found = replay(create("gcra", QUOTA), asked)
    assert found.rows.tolist() == replay(create("token-bucket", QUOTA), asked).rows.tolist()
    assert engines == ["compiled", "python_engine", "compiled"]
