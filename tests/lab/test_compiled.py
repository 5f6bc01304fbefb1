"""Compiled replay decides as plain Python does, bit for bit, or says why plain Python must do it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from engine_comparison import QUOTA, assert_same, traffic

from ratelab import Algorithm, create
from ratelab.algorithms import find
from ratelab.errors import SlowWarning
from ratelab.lab import comparison, compiled, python_engine, sweep
from ratelab.lab.compiled import states
from ratelab.lab.conformance import ORIGINS, QUOTAS
from ratelab.lab.decisions import ADMITTED, FIGURED, allocate_columns
from ratelab.lab.replay import replay, replay_columns
from ratelab.limiter import Decision


def test_every_algorithm_decides_alike_on_every_quota(kind: type[Algorithm]) -> None:
    too_large = 0
    for quota, origin in product(QUOTAS, ORIGINS):
        try:
            assert_same(kind.from_quota(quota), traffic(quota, origin))
        except compiled.UnfitError:
            too_large += 1
    assert too_large < len(QUOTAS)


@pytest.mark.slow
def test_so_it_does_where_each_request_costs_1(kind: type[Algorithm]) -> None:
    asked = traffic(QUOTA)
    assert_same(kind.from_quota(QUOTA), replace(asked, costs=np.ones(len(asked), np.int64)))


@pytest.mark.slow
@pytest.mark.parametrize("fields", [ADMITTED, FIGURED], ids=" and ".join)
def test_so_it_does_for_who_only_asks_for_some_columns(kind: type[Algorithm], fields: Sequence[str]) -> None:
    assert_same(kind.from_quota(QUOTA), traffic(QUOTA), fields)


def test_states_that_need_much_room_are_kept_a_part_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.partition.LARGEST_TABLE", 40)
    assert_same(create("sliding-log", QUOTA), traffic(QUOTA))
    assert_same(create("sliding-log", QUOTA), traffic(QUOTA), FIGURED)


def test_a_key_has_no_more_room_than_it_can_use() -> None:
    asked = replace(traffic(QUOTA, clients=4), keys=np.array([0, 1, 2, 5]))
    once = replace(asked, clients=np.array([0, 1, 1, 3]), times=np.arange(4), costs=np.array([1, 2, 3, 900]))
    log = create("sliding-log", QUOTA)
    assert states.widths(log, 14, once, allocate_columns(once, FIGURED)).tolist() == [5, 9, 4, 4, 4, 14]
    assert {*states.widths(log, 14, once, allocate_columns(once, Decision._fields)).tolist()} == {14}
    assert {*states.widths(create("gcra", QUOTA), 1, once, allocate_columns(once, FIGURED)).tolist()} == {1}


def test_what_is_asked_for_may_add_up_to_more_than_64_bits_hold() -> None:
    asked = traffic(QUOTA, clients=2)
    costs = np.where(asked.costs > QUOTA.burst, 2**61, asked.costs)
    assert_same(create("sliding-log", QUOTA), replace(asked, costs=costs), FIGURED)


# --- when it is used


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note which engine decides."""
    used: list[str] = []

    def noting(name: str, decide: Callable[..., None]) -> Callable[..., None]:
        def decided(*arguments: object) -> None:
            used.append(name)
            decide(*arguments)

        return decided

    for module in (compiled, python_engine):
        name = module.__name__.rpartition(".")[2]
        monkeypatch.setattr(module, "decide", noting(name, module.decide))
    return used


@pytest.mark.parametrize(("requests", "engine"), [(2_999, "python_engine"), (3_000, "compiled")])
def test_it_is_used_by_itself_once_that_pays(
    requests: int, engine: str, engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_REQUESTS", 3_000)
    replay_columns(create("gcra", QUOTA), traffic(QUOTA, requests=requests))
    assert engines == [engine]


@pytest.mark.parametrize("asking", [sweep.sweep, comparison.compare], ids=["sweep", "comparison"])
def test_whoever_has_no_compiler_is_told_once_what_it_would_save(
    asking: Callable[..., object], engines: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ratelab.lab.compiled.find_spec", lambda name: None)
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_REQUESTS", 3_000)
    gcra, asked = find("gcra"), traffic(QUOTA)
    given = ([(QUOTA, gcra.from_quota(QUOTA))] * 2, asked) if asking is sweep.sweep else (QUOTA, asked, [gcra])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        asking(*given)
    monkeypatch.setattr("ratelab.lab.replay.MIN_ADVISED_DECISIONS", 6_000)
    with pytest.warns(SlowWarning, match=r"6,000 decisions.*pip install '\.\[fast\]'") as told:
        asking(*given)
    assert len(told) == 1
    assert {*engines} == {"python_engine"}


def test_numbers_too_large_are_decided_all_the_same(engines: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.replay.MIN_COMPILED_REQUESTS", 0)
    asked = traffic(QUOTA, origin=1_700_000_000 * 10**9)
    with pytest.warns(SlowWarning, match=r"gcra is replayed in plain Python.*2\*\*63"):
        found = replay(create("gcra", QUOTA), asked)
    assert found.tolist() == replay(create("token-bucket", QUOTA), asked).tolist()
    assert engines == ["compiled", "python_engine", "compiled"]
