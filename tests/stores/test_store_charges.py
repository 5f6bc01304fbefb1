"""A request is charged at most once, however a network loses or delays replies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from unittest.mock import patch

import pytest
from flaky_proxy import run_flaky_proxy
from slow_parameters import mark_slow
from valkey_servers import AMPLE_DEADLINE, LARGE_BURST, charged_cost, make_async_limiter, make_limiter

from ratelab import Decision
from ratelab.errors import StoreError
from ratelab.stores.valkey.server import ValkeyServer

SERVERS = ["valkey"]
DEADLINE = 0.05
CALLERS = 8

Outcomes = list[Decision | StoreError]
Calls = Callable[[str, int, float], Outcomes]
"""Hits alice a number of times, with a deadline."""


def call_in_threads(url: str, count: int, deadline: float) -> Outcomes:
    """Make calls in threads that share a limiter."""
    limiter = make_limiter(url, deadline)

    def call(_: int) -> Decision | StoreError:
        try:
            return limiter.hit("alice")
        except StoreError as error:
            return error

    with ThreadPoolExecutor(CALLERS) as pool:
        outcomes = list(pool.map(call, range(count)))
    limiter.close()
    return outcomes


def call_in_tasks(url: str, count: int, deadline: float) -> Outcomes:
    """Make calls in tasks, two for each limiter and connection."""

    async def call_all() -> Outcomes:
        limiters = [make_async_limiter(url, deadline) for _ in range(CALLERS // 2)]
        outcomes: Outcomes = []

        async def call(number: int) -> None:
            for _ in range(count // CALLERS):
                try:
                    outcomes.append(await limiters[number % len(limiters)].hit("alice"))
                except StoreError as error:
                    outcomes.append(error)

        await asyncio.gather(*map(call, range(CALLERS)))
        for limiter in limiters:
            limiter.close()
        return outcomes

    return asyncio.run(call_all())


threads_and_tasks = pytest.mark.parametrize("calls", [call_in_threads, call_in_tasks])


def check_charges(
    store: ValkeyServer,
    calls: Calls,
    faults: tuple[str, ...],
    count: int = 64,
    seed: int = 1,
    deadline: float = DEADLINE,
) -> Outcomes:
    """Check that every decision has a charge, and no call has two; return the outcomes."""
    assert charged_cost(store.url) == 0
    with run_flaky_proxy(store.url, then=faults, seed=seed) as (url, _):
        outcomes = calls(url, count, deadline)
    decisions = [outcome for outcome in outcomes if isinstance(outcome, Decision)]
    assert len(outcomes) == count
    assert len(decisions) <= charged_cost(store.url) <= count
    assert all(decision.allowed for decision in decisions)
    assert len({decision.remaining for decision in decisions}) == len(decisions), "two calls got the same charge"
    return outcomes


def error_kinds(outcomes: Outcomes) -> set[str]:
    return {outcome.kind for outcome in outcomes if isinstance(outcome, StoreError)}


@threads_and_tasks
@pytest.mark.parametrize(
    ("fault", "error_kind"),
    [("drop", "unreachable"), ("half", "unreachable"), ("reset", "unreachable"), ("stall", "timeout")],
)
def test_a_lost_reply_is_an_error_and_its_command_is_not_resent(
    store: ValkeyServer, calls: Calls, fault: str, error_kind: str
) -> None:
    outcomes = check_charges(store, calls, (fault,), deadline=DEADLINE if error_kind == "timeout" else AMPLE_DEADLINE)
    assert error_kinds(outcomes) == {error_kind}
    assert not any(isinstance(outcome, Decision) for outcome in outcomes)


@threads_and_tasks
def test_a_reply_in_single_bytes_is_a_decision(store: ValkeyServer, calls: Calls) -> None:
    outcomes = check_charges(store, calls, ("pass", "pass", "split"), deadline=AMPLE_DEADLINE)
    assert error_kinds(outcomes) == set()


@pytest.mark.slow
@threads_and_tasks
@pytest.mark.parametrize("seed", mark_slow([1, 2], [1]))
def test_random_faults_charge_no_request_twice(store: ValkeyServer, calls: Calls, seed: int) -> None:
    faults = ("pass", "pass", "pass", "drop", "half", "stall", "reset", "split", "delay")
    outcomes = check_charges(store, calls, faults, 120, seed, deadline=4 * DEADLINE)
    assert error_kinds(outcomes) <= {"unreachable", "timeout"}
    assert any(isinstance(outcome, Decision) for outcome in outcomes)


def test_a_late_reply_answers_no_other_request(store: ValkeyServer) -> None:
    assert charged_cost(store.url) == 0
    with run_flaky_proxy(store.url, "pass", "late") as (url, _):
        limiter = make_limiter(url)
        limiter.hit("bob", 100)
        with patch.object(limiter, "_deadline", DEADLINE), pytest.raises(StoreError):
            limiter.hit("alice")
        assert limiter.hit("bob", 0).remaining == LARGE_BURST - 100
        limiter.close()
