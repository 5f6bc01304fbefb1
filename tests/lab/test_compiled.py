"""Compiled replay: the same decisions as plain Python, or a reason to use plain Python."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from engine_comparison import QUOTA, assert_same, draw_traffic

from ratelab import Algorithm, create
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import SlowWarning
from ratelab.lab import comparison, compiled, sweep
from ratelab.lab import replay as replay_module
from ratelab.lab.compiled import states
from ratelab.lab.conformance import ORIGINS, QUOTAS
from ratelab.lab.decisions import ADMISSION_FIELDS, FIGURE_FIELDS
from ratelab.lab.replay import allocate_columns, replay
from ratelab.limiter import ROW_FIELDS
from ratelab.quota import NS_PER_S, Quota

pytestmark = pytest.mark.slow


def test_decisions_are_those_of_plain_python_for_any_quota(kind: type[Algorithm]) -> None:
    too_large = 0
    # Each short log is compiled for itself; that of a burst of 1 stands for them.
    quotas = [quota for quota in QUOTAS if kind is not SlidingLog or quota.burst not in (2, 3)]
    for quota, origin in product(quotas, ORIGINS):
        try:
            assert_same(kind.from_quota(quota), draw_traffic(quota, origin))
        except compiled.UnfitError:
            too_large += 1
    assert too_large < len(QUOTAS)


def test_decisions_are_the_same_if_each_request_costs_1(kind: type[Algorithm]) -> None:
    drawn = draw_traffic(QUOTA)
    assert_same(kind.from_quota(QUOTA), replace(drawn, costs=np.ones(len(drawn), np.int64)))


def test_decisions_are_the_same_if_some_columns_are_requested(kind: type[Algorithm]) -> None:
    assert_same(kind.from_quota(QUOTA), draw_traffic(QUOTA), FIGURE_FIELDS)


@pytest.mark.parametrize("name", ["leaky-bucket", "sliding-log"])
def test_admissions_are_the_same_if_nothing_else_is_requested(name: str) -> None:
    assert_same(create(name, QUOTA).algorithm, draw_traffic(QUOTA), ADMISSION_FIELDS)


def test_keys_whose_states_exceed_memory_are_replayed_in_partitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.partition.MAX_STATE_INTEGERS", 40)
    assert_same(create("sliding-log", QUOTA).algorithm, draw_traffic(QUOTA))
    assert_same(create("sliding-log", QUOTA).algorithm, draw_traffic(QUOTA), FIGURE_FIELDS)


def test_a_state_is_truncated_to_the_integers_that_its_key_can_reach() -> None:
    drawn = replace(draw_traffic(QUOTA, clients=4), keys=np.array([0, 1, 2, 5]))
    few = replace(drawn, clients=np.array([0, 1, 1, 3]), times=np.arange(4), costs=np.array([1, 2, 3, 900]))
    log, gcra = (create(name, QUOTA).algorithm for name in ("sliding-log", "gcra"))
    figured, complete = (allocate_columns(few, fields) for fields in (FIGURE_FIELDS, ROW_FIELDS))
    assert states.state_widths(log, 14, few, figured).tolist() == [5, 9, 4, 4, 4, 14]
    assert {*states.state_widths(log, 14, few, complete).tolist()} == {14}
    assert {*states.state_widths(gcra, 1, few, figured).tolist()} == {1}


def test_the_total_cost_of_a_key_may_exceed_64_bits() -> None:
    drawn = draw_traffic(QUOTA, clients=2)
    costs = np.where(drawn.costs > QUOTA.burst, 2**61, drawn.costs)
    assert_same(create("sliding-log", QUOTA).algorithm, replace(drawn, costs=costs), FIGURE_FIELDS)


# --- choice of the engine


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Record the name of each engine that is used."""
    used: list[str] = []

    def record(name: str, decide: Callable[..., None]) -> Callable[..., None]:
        def recording(*arguments: object) -> None:
            used.append(name)
            decide(*arguments)

        return recording

    monkeypatch.setattr(compiled, "decide", record("compiled", compiled.decide))
    monkeypatch.setattr(replay_module, "decide_in_python", record("python", replay_module.decide_in_python))
    return used


@pytest.mark.parametrize(
    ("requests", "replays", "engine"),
    [(2_999, 1, "python"), (3_000, 1, "compiled"), (999, 3, "python"), (1_000, 3, "compiled")],
)
def test_many_decisions_are_made_by_the_compiled_engine(
    requests: int, replays: int, engine: str, engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_DECISIONS", 3_000)
    replay(create("gcra", QUOTA), draw_traffic(QUOTA, requests=requests), FIGURE_FIELDS, replays=replays)
    assert engines == [engine]


def test_a_sweep_of_many_quotas_is_compiled_whatever_the_number_of_requests(
    engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_DECISIONS", 3_000)
    policies = [create("gcra", Quota(burst, NS_PER_S, burst)) for burst in range(1, 31)]
    sweep.sweep(policies, draw_traffic(QUOTA, requests=100))
    assert engines == ["compiled"] * 30


@pytest.mark.parametrize("caller", [sweep.sweep, comparison.compare], ids=["sweep", "comparison"])
def test_without_the_compiler_one_warning_estimates_the_time(
    caller: Callable[..., object], engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.replay.find_spec", lambda name: None)
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_DECISIONS", 3_000)
    policies = [create("gcra", QUOTA)] * (2 if caller is sweep.sweep else 1)  # a comparison adds the exact log
    drawn = draw_traffic(QUOTA)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        caller(policies, drawn)
    monkeypatch.setattr("ratelab.lab.replay.MIN_ADVISED_DECISIONS", 6_000)
    with pytest.warns(SlowWarning, match=r"6,000 decisions.*pip install '\.\[fast\]'") as warned:
        caller(policies, drawn)
    assert len(warned) == 1
    assert {*engines} == {"python"}


def test_integers_above_64_bits_are_left_to_plain_python(engines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_DECISIONS", 0)
    drawn = draw_traffic(QUOTA, origin=1_700_000_000 * 10**9)
    with pytest.warns(SlowWarning, match=r"gcra is replayed in plain Python.*2\*\*63"):
        outcome = replay(create("gcra", QUOTA), drawn)
    assert outcome.rows.tolist() == replay(create("token-bucket", QUOTA), drawn).rows.tolist()
    assert engines == ["compiled", "python", "compiled"]
