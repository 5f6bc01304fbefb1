"""Tickets in a store: a cost is reserved, settled exactly once, and safe when replies are lost."""

from __future__ import annotations

import asyncio
import time
import warnings
from collections.abc import Sequence
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from durations import LONG
from flaky_proxy import run_flaky_proxy
from lua_scripts import CLOCK_KEY, Change, Model, only_on_valkey
from test_store_promises import use_scripts_with
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE

from ratelab import Decision, InputError, Policy
from ratelab.errors import ConfigurationWarning, StoreError
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.valkey.ticket_script import LATE, Reserved, TicketSessions

ALGORITHMS = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")

LISTS = [
    *([Policy.create(name, f"20/{LONG}", name="only")] for name in ALGORITHMS),
    [Policy.create(name, f"20/{LONG}", name=name) for name in ALGORITHMS],
]


def name_list(policies: Sequence[Policy]) -> str:
    return "+".join(policy.algorithm.name for policy in policies)


every_list = pytest.mark.parametrize("policies", LISTS, ids=name_list)


def make(store: ValkeyServer, policies: Sequence[Policy]) -> ValkeyLimiter:
    return ValkeyLimiter(store.url, policies, name="api", deadline=AMPLE_DEADLINE)


def remaining(limiter: ValkeyLimiter, key: str = "alice") -> set[int]:
    return {decision.remaining for decision in limiter.hit_each(key, 0)[1]}


@every_list
def test_a_ticket_settles_at_the_actual_cost(policies: Sequence[Policy], store: ValkeyServer) -> None:
    with make(store, policies) as limiter:
        ticket = limiter.reserve("alice", 8)
        assert (ticket.allowed, remaining(limiter)) == (True, {12})
        assert ticket.settle(3)
        assert remaining(limiter) == {17}
        assert not ticket.settle(0)
        assert not ticket.cancel()
        assert remaining(limiter) == {17}
        other = limiter.reserve("alice", 5)
        assert other.cancel()
        assert remaining(limiter) == {17}


@every_list
def test_a_higher_cost_than_remains_is_a_debt(policies: Sequence[Policy], store: ValkeyServer) -> None:
    with make(store, policies) as limiter:
        assert limiter.reserve("alice", 15).settle(26)
        look, denied = limiter.hit("alice", 0), limiter.hit("alice")
        assert (look.allowed, look.remaining, look.retry_after_ns) == (True, 0, 0)
        assert (denied.allowed, denied.remaining, denied.delay_ns) == (False, 0, 0)
        assert not limiter.reserve("alice").allowed
        limiter.refund("alice", 100)
        assert remaining(limiter) == {20}


def test_each_policy_settles_at_its_cost(store: ValkeyServer) -> None:
    policies = [
        Policy.create("token-bucket", "100/day", name="requests"),
        Policy.create("fixed-window", f"1000/{LONG}", name="tokens", cost="tokens"),
        Policy.create("sliding-log", "5/day", name="trial", shadow=True),
        Policy.create("gcra", "50/day", name="all clients", key="all"),
    ]
    with make(store, policies) as limiter:
        ticket = limiter.reserve({"requests": "alice", "tokens": "acme", "trial": "alice"}, {"tokens": 400, "trial": 9})
        assert (ticket.allowed, ticket.decision.shadow) == (True, ("trial",))
        assert ticket.settle({"tokens": 150})
        assert [one.remaining for one in limiter.hit_each("alice", 0)[1]] == [99, 1000, 5, 50]
        assert [one.remaining for one in limiter.hit_each("acme", 0)[1]] == [100, 850, 5, 50]
        assert limiter.reserve("alice", 3).cancel()
        assert [one.remaining for one in limiter.hit_each("alice", 0)[1]] == [99, 1000, 5, 50]
        denied = limiter.reserve("alice", 51)
        assert (denied.allowed, denied.decision.bound_by) == (False, "all clients")
        assert not denied.settle({})
        assert [one.remaining for one in limiter.hit_each("alice", 0)[1]] == [99, 1000, 5, 50]


def test_tickets_work_in_tasks(store: ValkeyServer) -> None:
    async def run() -> None:
        limiter = AsyncValkeyLimiter(store.url, LISTS[-1], name="api", deadline=AMPLE_DEADLINE)
        tickets = await asyncio.gather(*(limiter.reserve("alice", 4) for _ in range(6)))
        assert [ticket.allowed for ticket in tickets] == [True] * 5 + [False]
        assert await asyncio.gather(*(ticket.settle(3) for ticket in tickets)) == [True] * 5 + [False]
        assert (await limiter.hit("alice", 0)).remaining == 5
        async with await limiter.reserve("alice", 5) as ticket:
            assert await ticket.cancel()
        await limiter.refund("alice", 2)
        assert (await limiter.hit("alice", 0)).remaining == 7
        limiter.close()

    asyncio.run(run())


def test_a_settlement_is_completed_when_its_task_is_cancelled(store: ValkeyServer) -> None:
    """A client that disconnects cancels the task that answers it."""

    async def run(shared: AsyncValkeyLimiter, limiter: AsyncValkeyLimiter | ResilientLimiter) -> int:
        for turns in (1, 2):
            ticket = await limiter.reserve("alice", 8)
            settling = asyncio.ensure_future(ticket.settle(3))
            for _ in range(turns):
                await asyncio.sleep(0)
            settling.cancel()
            with pytest.raises(asyncio.CancelledError):
                await settling
            while others := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(others)
            assert not await ticket.settle(0)
        return (await shared.hit("alice", 0)).remaining

    async def run_both() -> list[int]:
        limiters = [
            AsyncValkeyLimiter(store.url, "gcra", f"20/{LONG}", deadline=AMPLE_DEADLINE, name=f"tickets {n}")
            for n in range(2)
        ]
        left = [await run(limiters[0], limiters[0]), await run(limiters[1], ResilientLimiter(limiters[1]))]
        for limiter in limiters:
            limiter.close()
        return left

    assert asyncio.run(run_both()) == [14, 14]


@pytest.mark.parametrize("deadline", [0, -1, "5", None, float("nan")])
def test_an_invalid_deadline_is_rejected_and_nothing_is_sent(deadline: Any) -> None:
    with pytest.raises(InputError, match="deadline must be a number of seconds above 0"):
        ValkeyLimiter("unix:///nowhere", LISTS[-1]).reserve("alice", deadline=deadline)


def test_a_reserved_cost_is_final_after_the_deadline(store: ValkeyServer) -> None:
    with make(store, LISTS[-1]) as limiter:
        ticket = limiter.reserve("alice", 8, deadline=1e-6)
        assert not ticket.settle(1)
        assert remaining(limiter) == {12}


def test_the_store_ends_a_ticket_by_its_clock(store: ValkeyServer) -> None:
    with make(store, LISTS[-1]) as limiter:
        ticket = limiter.reserve("alice", 8)
        reserved = Reserved(ticket.decision, [], (1,) * len(ALGORITHMS), began_us=1)
        session = TicketSessions(limiter._script, limiter._slots, "alice").settle({}, reserved, deadline=1)
        assert limiter._run(session, time.monotonic() + AMPLE_DEADLINE) == [LATE]
        assert remaining(limiter) == {12}


def test_a_ticket_in_the_store_lives_as_long_as_its_deadline(store: ValkeyServer) -> None:
    with Valkey.from_url(store.url) as client, make(store, LISTS[-1]) as limiter:
        limiter.reserve("alice", 8, deadline=60).settle(1)
        (key,) = client.keys("rl:*:ticket:*")
        assert 50_000 < client.pttl(key) <= 60_000


# --- charges without a decision


CHARGED = [
    Policy.create("token-bucket", "2/s", 5, name="bucket"),
    Policy.create("leaky-bucket", "3/s", 4, name="queue"),
    Policy.create("fixed-window", "6/4s", name="window"),
    Policy.create("sliding-log", "7/5s", name="log"),
    Policy.create("sliding-counter", "5/3s", name="counter"),
    Policy.create("gcra", "1/s", 6, name="cells"),
    Policy.create("fixed-window", "9/day", name="calendar", timezone="Europe/Berlin"),
    Policy.create("gcra", "1/s", 4, name="penalty", penalty={"after": 2, "within": "3s", "for": "2s", "growth": 2}),
]


def check_charges(url: str, policies: Sequence[Policy], count: int, *changes: Change) -> None:
    """Hit, settle and refund in the store and by the kernels; report the first difference."""
    random = Random(f"charges {name_list(policies)}")
    models = [Model(policy) for policy in policies]
    clock, tickets = 1_795_453_109_478_631, []
    with Valkey.from_url(url) as client, use_scripts_with(*changes):
        client.flushdb()
        with ValkeyLimiter(url, policies, name="api", deadline=AMPLE_DEADLINE) as limiter:
            for number in range(count):
                clock += random.choice((0, 0, 1, 333_333, 999_999, 2_000_000, 9_000_000))
                client.set(CLOCK_KEY, clock)
                cost, work = random.choice((1, 1, 2, 3)), random.random()
                if work < 0.4:
                    ticket = limiter.reserve("alice", cost, deadline=10**6)
                    allowed = all(model.look(clock, cost).allowed for model in models)
                    assert ticket.allowed == allowed, f"reservation {number}"
                    for model in models:
                        if allowed or not model.look(clock, cost).allowed:  # a penalty counts its denials
                            model.hit(clock, cost)
                    if allowed:
                        tickets.append((ticket, cost, clock))
                elif work < 0.7 and tickets:
                    ticket, reserved, at = tickets.pop(random.randrange(len(tickets)))
                    actual = random.choice((0, 1, 2, reserved, 9))
                    assert ticket.settle(actual), f"settlement {number}"
                    for model in models:
                        model.charge(clock, actual - reserved, at)
                elif work < 0.8:
                    limiter.refund("alice", cost)
                    for model in models:
                        model.charge(clock, -cost, None)
                expected = [model.look(clock, 0) for model in models]
                decided = limiter.hit_each("alice", 0)[1]
                assert [each.row for each in decided] == [look_of(each) for each in expected], f"look {number}"


def look_of(decision: Decision) -> tuple[Any, ...]:
    """Return a look, which is admitted even in debt."""
    return decision.row if decision.allowed else (True, 0, 0, decision.reset_after_ns, 0)


def check_all_charges(url: str, *changes: Change) -> None:
    for policies in [*([policy] for policy in CHARGED), CHARGED[:4], CHARGED[3:]]:
        with suppress(LookupError):  # for the other algorithms
            check_charges(url, policies, 250, *changes)


@pytest.mark.parametrize("count", [80, pytest.param(600, marks=pytest.mark.slow)])
@pytest.mark.parametrize("policies", [*([policy] for policy in CHARGED), CHARGED[:4], CHARGED[3:]], ids=name_list)
def test_a_store_charges_as_the_kernels(policies: Sequence[Policy], count: int, store: ValkeyServer) -> None:
    check_charges(store.url, policies, count)


MUTANTS: dict[str, Change] = {
    "a refund grants more than a window has": ("used = max(0, used + cost)", "used = used + cost"),
    "a refund of an older window counts": ("not at or floor(at / window) == floor(now / window)", "true"),
    "the current window is refunded first": ("elseif not passed then", "elseif false then"),
    "a refund removes the newest entries": ("local first, last = 0, count", "local first, last = 1, count"),
    "a debt is forgotten": ("'^(%d+) (%d+) (%-?%d+) ?(%d*)$'", "'^(%d+) (%d+) (%d+) ?(%d*)$'"),
    "a look in debt is denied": ("if not allowed and cost <= 0 then allowed", "if false then allowed"),
    "the time of a charge is ignored": ("time > 0 and time or nil", "nil"),
}


@pytest.mark.slow
@only_on_valkey
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_a_charge_is_caught(mutant: str, store: ValkeyServer) -> None:
    with pytest.raises(AssertionError, match=r"reservation|settlement|look"):
        check_all_charges(store.url, MUTANTS[mutant])


# --- lost replies


@every_list
def test_a_ticket_is_settled_once_however_often_its_reply_is_lost(
    policies: Sequence[Policy], store: ValkeyServer
) -> None:
    with (
        make(store, policies) as limiter,
        run_flaky_proxy(store.url, "pass", "drop", "half", "reset") as (url, _),
        ValkeyLimiter(url, policies, name="api", deadline=AMPLE_DEADLINE) as lossy,
    ):
        with warnings.catch_warnings(action="ignore", category=ConfigurationWarning):
            limiter.hit("alice", 2)
        limiter.reserve("bob", 1).settle(0)  # the server then has the scripts
        ticket = lossy.reserve("alice", 8)
        for _ in range(3):
            with pytest.raises(StoreError):
                ticket.settle(3)
            assert remaining(limiter) == {15}
        assert ticket.settle(3)
        assert not ticket.settle(0)
        assert remaining(limiter) == {15}


def test_nothing_is_charged_twice_and_at_most_one_ticket_lost_for_each_lost_reply(store: ValkeyServer) -> None:
    policies = [
        Policy.create("sliding-log", "1/day", 10_000, name="log"),
        Policy.create("token-bucket", "1/day", 10_000, name="bucket"),
    ]
    random, expected, lost = Random(5), 0, 0
    with (
        make(store, policies) as limiter,
        run_flaky_proxy(store.url, then=("pass", "pass", "drop", "half")) as (url, _),
        warnings.catch_warnings(action="ignore", category=ConfigurationWarning),
        ValkeyLimiter(url, policies, name="api", deadline=AMPLE_DEADLINE) as lossy,
    ):
        for _ in range(150):
            cost, actual = random.randrange(1, 9), random.randrange(16)
            try:
                ticket = lossy.reserve("alice", cost)
            except StoreError:
                lost += 8
                continue
            while True:
                try:
                    assert ticket.settle(actual)
                    break
                except StoreError:
                    continue
            expected += actual
        (used,) = {10_000 - one for one in remaining(limiter)}
        assert expected <= used <= expected + lost
        assert lost > 0
