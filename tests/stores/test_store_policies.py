"""Several policies in one call of a store: they decide as in memory, in all fields, all or nothing."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import combinations_with_replacement
from random import Random
from typing import Any

import pytest
from durations import LONG
from lua_scripts import CLOCK_KEY, Change, Model, only_on_valkey
from test_store_promises import use_scripts_with
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE, count_calls, send_command

from ratelab import Decision, InputError, Policy
from ratelab.algorithms.composite import combine, list_decisions
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

START_US = 1_795_453_109_478_631
"""Microseconds since 1970: sixteen digits."""

MAX_LAG_US = 1_000_000

PENALTY = {"after": 2, "within": "3s", "for": "2s", "growth": 2, "at_most": "8s"}

POLICIES = [
    Policy.create("token-bucket", "2/s", 5, name="bucket"),
    Policy.create("leaky-bucket", "3/s", 4, name="queue"),
    Policy.create("fixed-window", "6/4s", name="window"),
    Policy.create("sliding-log", "7/5s", name="log"),
    Policy.create("sliding-counter", "5/3s", name="counter"),
    Policy.create("gcra", "1/s", 6, name="cells"),
    Policy.create("fixed-window", "3/2s", name="shadow", shadow=True),
    Policy.create("fixed-window", "9/day", name="calendar", timezone="Europe/Berlin"),
    Policy.create("gcra", "2/s", 3, name="penalty", penalty=PENALTY),
]

PAIRS = [(one, other) for one, other in combinations_with_replacement(POLICIES, 2) if one is not other]
LISTS = [
    POLICIES[:4],
    POLICIES[3:7],
    [POLICIES[6], POLICIES[3], POLICIES[0]],
    [POLICIES[6], Policy.create("sliding-log", "2/s", name="shadow log", shadow=True)],
]


def name_list(policies: Sequence[Policy]) -> str:
    return "+".join(policy.name for policy in policies)


class Models:
    """The kernels of policies in microseconds, each with the state of one key, composed as in memory."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        self._policies = policies
        self._models = [Model(policy) for policy in policies]

    def hit_each(self, clock: int, costs: Sequence[int]) -> tuple[Decision, tuple[Decision, ...]]:
        looks = [model.look(clock, cost) for model, cost in zip(self._models, costs, strict=True)]
        denied = any(not row[0] for row, policy in zip(looks, self._policies, strict=True) if not policy.shadow)
        rows = []
        for model, cost, policy, row in zip(self._models, costs, self._policies, looks, strict=True):
            if denied and row[0] and not policy.shadow:
                rows.append((*model.hit(clock, 0)[:4], 0))
            else:
                rows.append(model.hit(clock, cost)[:5])
        answers = [*zip(self._policies, rows, strict=True)]
        return Decision(*combine(answers)), list_decisions(answers)


def draw_steps(random: Random, count: int) -> Iterator[tuple[int, int]]:
    """Draw times, at the same instant, at the edges of windows and back in time, and costs."""
    clock = START_US
    for _ in range(count):
        back = random.random() < 0.05
        steps = (
            (-1, -700_000, -MAX_LAG_US - 1, -90_000_000) if back else (0, 0, 1, 333_333, 500_000, 999_999, 5_000_000)
        )
        clock += random.choice(steps)
        yield clock, random.choice((0, 1, 1, 1, 2, 3, 8, 10**18))


@contextmanager
def scripted(url: str, policies: Sequence[Policy], *changes: Change) -> Iterator[tuple[ValkeyLimiter, Valkey]]:
    """Yield a limiter whose scripts read a clock that the client sets, in an empty store."""
    with Valkey.from_url(url) as client, use_scripts_with(*changes):
        client.flushdb()
        with ValkeyLimiter(url, policies, name="api", deadline=AMPLE_DEADLINE) as limiter:
            yield limiter, client


def check_list(url: str, policies: Sequence[Policy], count: int, *changes: Change) -> None:
    """Decide the same hits in the store and by the kernels; report the first difference."""
    random, models = Random(name_list(policies)), Models(policies)
    with scripted(url, policies, *changes) as (limiter, client):
        for number, (clock, cost) in enumerate(draw_steps(random, count)):
            costs = {policy.name: cost for policy in policies}
            if random.random() < 0.3:
                costs[random.choice(policies).name] = random.randrange(4)
            given = cost if len({*costs.values()}) == 1 else costs
            client.set(CLOCK_KEY, clock)
            assert limiter.hit_each("alice", given) == models.hit_each(clock, [*costs.values()]), f"hit {number}"


def check_lists(url: str, *changes: Change) -> None:
    for policies in [*PAIRS, *LISTS]:
        check_list(url, policies, 150, *changes)


@pytest.mark.parametrize("count", [60, pytest.param(400, marks=pytest.mark.slow)])
@pytest.mark.parametrize("policies", [*PAIRS, *LISTS], ids=name_list)
def test_a_list_decides_in_a_store_as_its_kernels(policies: Sequence[Policy], count: int, store: ValkeyServer) -> None:
    check_list(store.url, policies, count)


MUTANTS: dict[str, Change] = {
    "a denied hit charges the others": ("elseif again then", "elseif false then"),
    "a shadow policy denies": ("if not policy.shadow then", "if true then"),
    "the wait of a queue is kept by a denied hit": ("cost, delay = 0, 0", "cost = 0"),
    "a denied hit keeps its rows": ("rows[#rows] = nil", "rows[1] = rows[1]"),
    "the slots of others are lost": ("elseif values[place] then", "elseif false then"),
    "a step back is not written": ("or stepped or counted then\n          full", "or counted then\n          full"),
    "a counted denial is not written": ("or counted then\n          full", "then\n          full"),
    "cost 0 is charged": ("if allowed and cost ~= 0 or", "if allowed or"),
}


@pytest.mark.slow
@only_on_valkey
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_the_script_of_a_list_is_caught(mutant: str, store: ValkeyServer) -> None:
    with pytest.raises(AssertionError, match="hit"):
        check_lists(store.url, MUTANTS[mutant])


# --- keys and costs of each policy


SECOND_AND_DAY = [
    Policy.create("token-bucket", "10/h", 10, name="second"),
    Policy.create("sliding-log", "20/day", name="day"),
    Policy.create("gcra", "8/day", name="global", key="all"),
]


def remaining(limiter: ValkeyLimiter, key: str) -> list[int]:
    return [decision.remaining for decision in limiter.hit_each(key, 0)[1]]


def test_a_policy_for_all_clients_counts_them_together(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, SECOND_AND_DAY, name="api", deadline=AMPLE_DEADLINE) as limiter:
        assert all(limiter.hit(client, 2).allowed for client in ("alice", "bob", "carol", "dave"))
        denied = limiter.hit("erin")
        assert (denied.allowed, denied.bound_by, denied.remaining) == (False, "global", 0)
        assert remaining(limiter, "erin") == [10, 20, 0]
        assert remaining(limiter, "alice") == [8, 18, 0]


def test_each_policy_has_the_key_and_the_cost_that_a_mapping_names(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, SECOND_AND_DAY, name="api", deadline=AMPLE_DEADLINE) as limiter:
        keys = {"second": "alice", "day": "acme"}
        _, each = limiter.hit_each(keys, {"second": 2, "day": 5})
        assert [decision.remaining for decision in each] == [8, 15]
        assert limiter.hit_each({"day": "acme"}, 16)[0].bound_by == "day"
        assert remaining(limiter, "alice") == [8, 20, 8]
        assert remaining(limiter, "acme") == [10, 15, 8]
        limiter.hit({"global": "any text"})
        assert remaining(limiter, "alice") == [8, 20, 7]


def test_a_policy_that_is_not_asked_keeps_its_state(store: ValkeyServer) -> None:
    policies = [
        Policy.create("fixed-window", f"5/{LONG}", name="day"),
        Policy.create("gcra", "50000/s", 5, name="burst"),
    ]
    with ValkeyLimiter(store.url, policies, name="api", deadline=AMPLE_DEADLINE) as limiter:
        limiter.hit("alice", 3)
        for _ in range(20):
            limiter.hit({"burst": "alice"})
        assert limiter.hit({"day": "alice"}, 0).remaining == 2


def test_the_key_of_a_client_lives_as_long_as_its_slowest_policy(store: ValkeyServer) -> None:
    policies = [Policy.create("gcra", "1/day", name="day"), Policy.create("token-bucket", "60/h", name="hour")]
    with Valkey.from_url(store.url) as client, ValkeyLimiter(store.url, policies, deadline=AMPLE_DEADLINE) as limiter:
        limiter.hit("alice")
        limiter.hit({"hour": "alice"})
        (key,) = client.keys("rl:*:day.hour:*")
        assert 86_000_000 < client.pttl(key) <= 86_400_001
        limiter.hit({"hour": "bob"})
        assert min(map(client.pttl, client.keys("rl:*:day.hour:*"))) <= 60_001


def test_a_reset_leaves_the_counter_of_all_clients_alone(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, SECOND_AND_DAY, name="api", deadline=AMPLE_DEADLINE) as limiter:
        limiter.hit("alice", 3)
        limiter.hit("bob", 2)
        limiter.reset("alice")
        assert remaining(limiter, "alice") == [10, 20, 3]
        assert remaining(limiter, "bob") == [8, 18, 3]
        limiter.reset({"global": "all"})
        limiter.reset({"day": "bob"})
        assert remaining(limiter, "bob") == [8, 20, 8]


def test_a_single_policy_of_a_list_keeps_its_fields(store: ValkeyServer) -> None:
    one = Policy.create("gcra", "2/h", name="login")
    with ValkeyLimiter(store.url, one, deadline=AMPLE_DEADLINE) as limiter:
        assert (limiter.name, limiter.policy, limiter.policies) == ("login", one, (one,))
        limiter.hit({"login": "alice"}, {"login": 2})
        denied, each = limiter.hit_each("alice")
        assert (denied.bound_by, each) == ("login", (denied,))
    everyone = Policy.create("gcra", "2/h", name="everyone", key="all")
    with ValkeyLimiter(store.url, everyone, deadline=AMPLE_DEADLINE) as limiter:
        assert [limiter.hit(client).allowed for client in ("alice", "bob", "carol")] == [True, True, False]
    silent = Policy.create("gcra", "1/h", name="silent", shadow=True)
    with ValkeyLimiter(store.url, silent, deadline=AMPLE_DEADLINE) as limiter:
        assert [limiter.hit("alice").shadow for _ in range(3)] == [(), ("silent",), ("silent",)]


INVALID: dict[str, tuple[Any, Any]] = {
    "unknown policy 'dya' in key": ({"dya": "alice"}, 1),
    "unknown policy 'dya' in cost": ("alice", {"dya": 1}),
    "key must be text, got 1": ({"day": 1}, 1),
    "key must be text, got {}": ({}, 1),
    "cost must be a whole number >= 0, got -1": ("alice", {"day": -1}),
    "cost must be a whole number >= 0, got True": ("alice", True),
}


@pytest.mark.parametrize("error", INVALID)
def test_an_invalid_key_or_cost_is_rejected_before_anything_is_sent(error: str) -> None:
    key, cost = INVALID[error]
    with pytest.raises(InputError, match=re.escape(error)):
        ValkeyLimiter("unix:///nowhere", SECOND_AND_DAY, name="api").hit(key, cost)


# --- quotas


def test_the_numbers_of_each_policy_are_checked() -> None:
    exact, inexact = Policy.create("gcra", "2/s", name="a"), Policy.create("sliding-counter", "1000/day", 90_000)
    with pytest.raises(InputError, match="sliding-counter with 1000/day, burst 90000 needs numbers"):
        ValkeyLimiter("unix:///nowhere", [exact, inexact])


def test_a_policy_that_takes_a_lifetime_to_replenish_is_rejected_in_a_list() -> None:
    slow = Policy.create("fixed-window", "1/40000day", name="slow")
    with pytest.raises(InputError, match=r"policy 'slow' takes .* to replenish"):
        ValkeyLimiter("unix:///nowhere", [slow, Policy.create("gcra", "2/s")])


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        (([],), "policies must hold at least one Policy"),
        (([Policy.create("gcra", "2/s"), Policy.create("gcra", "3/s")],), "policies must have different names"),
        ((Policy.create("gcra", "2/s"), "2/s"), "rate and burst must be left out"),
        (("gcra",), "missing rate of 'gcra'"),
        ((3,), "policies must be a Policy or a list of them"),
    ],
)
def test_invalid_policies_are_rejected(arguments: tuple[Any, ...], error: str) -> None:
    for kind in (ValkeyLimiter, AsyncValkeyLimiter):
        with pytest.raises(InputError, match=error):
            kind("unix:///nowhere", *arguments)


# --- batches


def test_hits_of_one_iteration_on_several_policies_are_one_call_in_order(store: ValkeyServer) -> None:
    async def run() -> list[Decision]:
        limiter = AsyncValkeyLimiter(store.url, SECOND_AND_DAY, name="api", deadline=AMPLE_DEADLINE)
        await limiter.hit("zoe", 0)
        send_command(store.url, "CONFIG", "RESETSTAT")
        hits = [
            limiter.hit("alice"),
            limiter.hit({"day": "acme"}, {"day": 3}),
            limiter.hit("bob", 5),
            limiter.hit("alice", 3),
        ]
        decisions = await asyncio.gather(*hits)
        assert count_calls(store.url, "evalsha") == 1
        limiter.close()
        return decisions

    first, acme, bob, second = asyncio.run(run())
    assert [decision.remaining for decision in (first, acme, bob)] == [7, 17, 2]
    assert (second.allowed, second.bound_by, second.remaining) == (False, "global", 2)


def test_a_batch_decides_as_single_hits_do(store: ValkeyServer) -> None:
    random = Random(7)
    hits = [(random.choice(("alice", "bob", "carol")), random.choice((0, 1, 2))) for _ in range(40)]

    async def run() -> list[tuple[Decision, tuple[Decision, ...]]]:
        limiter = AsyncValkeyLimiter(store.url, POLICIES, name="batch", deadline=AMPLE_DEADLINE)
        decisions = await asyncio.gather(*(limiter.hit_each(*hit) for hit in hits))
        limiter.close()
        return decisions

    with use_scripts_with(), Valkey.from_url(store.url) as client:
        client.set(CLOCK_KEY, START_US)
        batched = asyncio.run(run())
        with ValkeyLimiter(store.url, POLICIES, name="single", deadline=AMPLE_DEADLINE) as limiter:
            assert [limiter.hit_each(*hit) for hit in hits] == batched
