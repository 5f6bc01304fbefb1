"""However a network loses or holds up replies, a request is charged at most once and ends as documented."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from flaky_proxy import LATE, network
from valkey_servers import AMPLE, PLENTY, charged, plenty, plenty_async

from ratelab import Decision
from ratelab.errors import StoreError
from ratelab.stores.valkey.server import ValkeyServer

DEADLINE = 0.05
TASKS = 8

Outcomes = list[Decision | StoreError]
Crowd = Callable[[str, int, float], Outcomes]


def threads(url: str, count: int, deadline: float) -> Outcomes:
    """Call from threads that share a limiter."""
    limiter = plenty(url, deadline)

    def call(_: int) -> Decision | StoreError:
        try:
            return limiter.hit("alice")
        except StoreError as error:
            return error

    with ThreadPoolExecutor(TASKS) as pool:
        outcomes = list(pool.map(call, range(count)))
    limiter.close()
    return outcomes


def tasks(url: str, count: int, deadline: float) -> Outcomes:
    """Call from tasks, of which some share a limiter, and with it a connection."""

    async def call_all() -> Outcomes:
        limiters = [plenty_async(url, deadline) for _ in range(TASKS // 2)]
        outcomes: Outcomes = []

        async def call(number: int) -> None:
            for _ in range(count // TASKS):
                try:
                    outcomes.append(await limiters[number % len(limiters)].hit("alice"))
                except StoreError as error:
                    outcomes.append(error)

        await asyncio.gather(*map(call, range(TASKS)))
        for limiter in limiters:
            limiter.close()
        return outcomes

    return asyncio.run(call_all())


CROWDS = pytest.mark.parametrize("crowd", [threads, tasks])


def is_charged_once(
    store: ValkeyServer,
    crowd: Crowd,
    faults: tuple[str, ...],
    count: int = 64,
    seed: int = 1,
    deadline: float = DEADLINE,
) -> Outcomes:
    assert charged(store.url) == 0  # and the server knows the script
    with network(store.url, then=faults, seed=seed) as (url, _):
        outcomes = crowd(url, count, deadline)
    told = [outcome for outcome in outcomes if isinstance(outcome, Decision)]
    assert len(outcomes) == count
    assert len(told) <= charged(store.url) <= count
    assert all(decision.allowed for decision in told)
    assert len({decision.remaining for decision in told}) == len(told), "two calls were told of one charge"
    return outcomes


def kinds(outcomes: Outcomes) -> set[str]:
    return {outcome.kind for outcome in outcomes if isinstance(outcome, StoreError)}


@CROWDS
@pytest.mark.parametrize(
    ("fault", "means"),
    [("drop", "unreachable"), ("half", "unreachable"), ("reset", "unreachable"), ("stall", "timeout")],
)
def test_a_reply_that_is_lost_is_a_store_error_and_not_asked_for_again(
    store: ValkeyServer, crowd: Crowd, fault: str, means: str
) -> None:
    outcomes = is_charged_once(store, crowd, (fault,), deadline=DEADLINE if means == "timeout" else AMPLE)
    assert kinds(outcomes) == {means}
    assert not any(isinstance(outcome, Decision) for outcome in outcomes)


@CROWDS
def test_a_reply_in_single_bytes_is_a_reply(store: ValkeyServer, crowd: Crowd) -> None:
    assert kinds(is_charged_once(store, crowd, ("pass", "pass", "split"), deadline=AMPLE)) == set()


@CROWDS
@pytest.mark.parametrize("seed", [1, 2])
def test_all_at_random_charge_nobody_twice(store: ValkeyServer, crowd: Crowd, seed: int) -> None:
    faults = ("pass", "pass", "pass", "drop", "half", "stall", "reset", "split", "delay")
    outcomes = is_charged_once(store, crowd, faults, 200, seed)
    assert kinds(outcomes) == {"unreachable", "timeout"}
    assert any(isinstance(outcome, Decision) for outcome in outcomes)


def test_a_reply_that_comes_late_answers_nobody_else(store: ValkeyServer) -> None:
    assert charged(store.url) == 0
    with network(store.url, "pass", "late") as (url, _):
        limiter = plenty(url, deadline=LATE * 2 / 3)
        limiter.hit("bob", 100)
        with pytest.raises(StoreError):
            limiter.hit("alice")
        assert limiter.hit("bob", 0).remaining == PLENTY - 100
        limiter.close()
