"""Judge of limiters on a store: the built-in ones, and ones that fail open, charge twice or race."""

from __future__ import annotations

from pathlib import Path

import pytest
import store_limiters

from ratelab.judge import BUILT_IN_TARGETS, PROMISES, Promise, judge
from ratelab.judge.store_server import NoStore, find_faketime

pytestmark = pytest.mark.slow

FILE = Path(store_limiters.__file__)
SHIPPED = FILE.with_name("judged_limiters.py")


@pytest.fixture(autouse=True)
def _needs_faketime() -> None:
    try:
        find_faketime()
    except NoStore as reason:
        pytest.skip(str(reason))


def judge_one(factory: str, promise: str, on_store: bool = False) -> Promise:
    (found,) = judge(f"{FILE}:{factory}", [promise], on_store=on_store).promises
    return found


@pytest.mark.parametrize("algorithm", BUILT_IN_TARGETS)
def test_a_built_in_algorithm_keeps_its_promises_on_a_store(algorithm: str) -> None:
    promises = [*PROMISES] if algorithm == "token-bucket" else ["wait", "clock", "threads"]
    judgement = judge(algorithm, promises, on_store=True)
    assert [(promise.name, promise.reason) for promise in judgement.promises if not promise.kept] == []


@pytest.mark.parametrize("factory", ["store_resends", "store_fails_open", "bound_of_expired", "clock_of_script"])
def test_a_mistake_in_the_shipped_store_breaks_its_promise(factory: str) -> None:
    promise = factory.partition("_")[0]
    judgement = judge(f"{SHIPPED}:{factory}", [promise], on_store=promise != "store")
    assert [each.kept for each in judgement.promises] == [False]


def test_the_resilient_limiter_keeps_the_promise_of_a_store() -> None:
    assert judge(f"{SHIPPED}:right_store", ["store"]).promises[0].kept is True


@pytest.mark.parametrize("factory", ["store_window", "declared_open", "denying_window"])
def test_a_right_limiter_on_a_store_is_not_condemned(factory: str) -> None:
    assert judge_one(factory, "store").kept is True


@pytest.mark.parametrize(
    ("factory", "reason"),
    [
        ("resending_window", "1 hits took 2 of the quota: one was charged twice after its reply was lost"),
        ("failing_open", "admitted 30 of 30 hits of an exhausted client while the store was down"),
    ],
)
def test_a_mistake_breaks_the_promise_of_a_store(factory: str, reason: str) -> None:
    found = judge_one(factory, "store")
    assert (found.kept, found.reason) == (False, reason)
    assert found.timeline[-1]["note"]


@pytest.mark.parametrize(
    ("factory", "promise"),
    [("refreshing_window", "due"), ("refreshing_window", "retrying"), ("racing_store", "threads")],
)
def test_the_other_promises_are_checked_on_a_store(factory: str, promise: str) -> None:
    assert judge_one(factory, promise, on_store=True).kept is False
    assert judge_one("store_window", promise, on_store=True).kept is True
