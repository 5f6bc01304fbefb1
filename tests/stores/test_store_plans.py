"""Plans in a store: a key keeps the share of a quota that it has used, and no change grants anything."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from durations import LONG, find_quiet_zone
from lua_scripts import CLOCK_KEY, Change, only_on_valkey
from test_store_promises import use_scripts_with
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE

from ratelab import NEVER, Decision, InputError, ManualClock, MemoryLimiter, Policy
from ratelab.stores.tickets import Ticket
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

ALGORITHMS = ("token-bucket", "leaky-bucket", "fixed-window", "sliding-log", "sliding-counter", "gcra")
PENALIZED, CALENDAR = "gcra with a penalty", "calendar"
LISTS = [[name] for name in (*ALGORITHMS, PENALIZED, CALENDAR)]
LISTS += [[*ALGORITHMS[:4]], [*ALGORITHMS[2:], CALENDAR], [PENALIZED, "sliding-log", "gcra"]]
PENALTY = {"after": 2, "within": "3s", "for": "2s", "growth": 2, "at_most": "8s"}

WAITS_NS = (0, 0, 1_000, 333_333_000, 999_999_000, 2_000_000_000, 9_000_000_000, 20_000_000_000_000)
START_NS = 1_795_453_109_478_631_000


def make_policies(names: Sequence[str], unit: str = "s", zone: str = "America/New_York") -> list[Policy]:
    special = {
        CALENDAR: Policy.create("fixed-window", "7/day", name=CALENDAR, timezone=zone),
        PENALIZED: Policy.create("gcra", f"7/3{unit}", name=PENALIZED, penalty=PENALTY),
    }
    return [special.get(name) or Policy.create(name, f"7/3{unit}", name=name) for name in names]


def make_plans(names: Sequence[str], unit: str = "s") -> dict[str, Any]:
    plans: dict[str, dict[str, Any]] = {
        "premium": {**dict.fromkeys((*ALGORITHMS, PENALIZED), (f"20/3{unit}", 20)), CALENDAR: "20/day"},
        "trial": {**dict.fromkeys((*ALGORITHMS, PENALIZED), (f"1/2{unit}", 3)), CALENDAR: "3/day"},
    }
    return {plan: {name: changes[name] for name in names} for plan, changes in plans.items()}


def round_up(decision: Decision) -> Decision:
    """Round the times of a decision up to microseconds, the resolution of a store."""
    retry, reset, delay = (time if time == NEVER else -(-time // 1000) * 1000 for time in decision[2:5])
    return decision._replace(retry_after_ns=retry, reset_after_ns=reset, delay_ns=delay)


def check_plans(url: str, names: Sequence[str], count: int, *changes: Change) -> None:
    """Hit a key with changing plans in the store and in memory; report the first difference."""
    random, clock = Random(f"plans {names}"), ManualClock(START_NS)
    tickets: list[tuple[Ticket, Ticket]] = []
    policies, plans = make_policies(names), make_plans(names)
    memory = MemoryLimiter(policies, clock, plans=plans)
    with Valkey.from_url(url) as client, use_scripts_with(*changes):
        client.flushdb()
        with ValkeyLimiter(url, policies, name="api", deadline=AMPLE_DEADLINE, plans=plans) as limiter:
            plan = None
            for number in range(count):
                clock.advance(random.choice(WAITS_NS))
                client.set(CLOCK_KEY, clock() // 1000)
                if random.random() < 0.2:
                    plan = random.choice((None, "premium", "trial"))
                cost = random.choice((0, 1, 1, 2, 3, 8))
                stored, each = limiter.hit_each("alice", cost, plan)
                kept, each_kept = memory.hit_each("alice", cost, plan)
                assert [stored, *each] == [round_up(one) for one in (kept, *each_kept)], f"hit {number} with {plan}"
                if (
                    tickets and random.random() < 0.2 and all(one.reset_after_ns for one in each)
                ):  # else it has no quota
                    ticket, other = tickets.pop(random.randrange(len(tickets)))
                    actual = random.choice((0, 1, 5, 15))
                    assert ticket.settle(actual) == other.settle(actual), f"hit {number}"
                if random.random() < 0.1:
                    limiter.refund("alice", cost)
                    memory.refund("alice", cost)
                if random.random() < 0.2:
                    ticket, other = limiter.reserve("alice", cost, plan), memory.reserve("alice", cost, plan)
                    assert ticket.decision == round_up(other.decision), f"hit {number}"
                    tickets.append((ticket, other))


@pytest.mark.parametrize("count", [80, pytest.param(300, marks=pytest.mark.slow)])
@pytest.mark.parametrize("names", LISTS, ids="+".join)
def test_a_change_of_plan_converts_a_key_as_in_memory(names: list[str], count: int, store: ValkeyServer) -> None:
    check_plans(store.url, names, count)


MUTANTS: dict[str, Change] = {
    "a share is rounded down": ("ceil(used * BURSTS[i] / burst)", "floor(used * BURSTS[i] / burst)"),
    "the used cost is kept instead of its share": ("ceil(used * BURSTS[i] / burst)", "used"),
    "a converted key is not written": ("slots, converted\n", "slots, false\n"),
    "a debt is forgiven": ("if not allowed then used = max(", "if false then used = max("),
    "a refund converts the key first": ("if not i and not converts then", "if false then"),
    "a ticket is refunded in full": ("cost = -floor(-cost * kernel.burst / BURSTS[i])", "cost = cost"),
    "a penalty ends with its plan": ("read and not keeps_penalty then", "read then"),
    "a penalty counts as a used quota": ("keeps_penalty and LOOK_INSIDE or 0", "0"),
    "a state is read with the new quota": (
        "if i then\n      found[i] = slot",
        "if true then\n      found[i or 1] = slot",
    ),
}


def check_all_plans(url: str, *changes: Change) -> None:
    for names in reversed(LISTS):  # several policies first, which notice most changes
        check_plans(url, names, 300, *changes)


@pytest.mark.slow
@only_on_valkey
@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_mutant_of_a_conversion_is_caught(mutant: str, store: ValkeyServer) -> None:
    with pytest.raises(AssertionError, match="hit"):
        check_all_plans(store.url, MUTANTS[mutant])


# --- changes while limiters are in use


DAY = Policy.create("fixed-window", f"100/{LONG}", name="day")
SECOND = Policy.create("token-bucket", "10/h", name="second")


def make(store: ValkeyServer, *policies: Policy, **options: Any) -> ValkeyLimiter:
    return ValkeyLimiter(store.url, policies, name="api", deadline=AMPLE_DEADLINE, **options)


def remaining(limiter: ValkeyLimiter, key: str = "alice", plan: str | None = None) -> list[int]:
    return [decision.remaining for decision in limiter.hit_each(key, 0, plan)[1]]


def test_a_plan_changes_the_quota_of_a_client(store: ValkeyServer) -> None:
    plans = {"free": {}, "premium": {"day": (f"1000/{LONG}", None), "second": "50/h"}}
    with make(store, DAY, SECOND, plans=plans) as limiter:
        limiter.hit("alice", 5, "free")
        assert remaining(limiter, plan="free") == [95, 5]
        assert remaining(limiter, plan="premium") == [950, 25]
        assert limiter.hit("alice", 25, "premium").allowed
        assert remaining(limiter, plan="free") == [92, 0]
        assert remaining(limiter, "bob", "premium") == [1000, 50]


def test_a_plan_keeps_the_time_zone_of_a_policy(store: ValkeyServer) -> None:
    local = Policy.create("fixed-window", "100/day", name="day", timezone=find_quiet_zone())
    plans: dict[str, Any] = {"premium": {"day": "1000/day"}, "trial": {"day": ("10/day", None)}}
    memory = MemoryLimiter(local, plans=plans)
    with make(store, local, plans=plans) as limiter:
        for plan in (None, "premium", "trial", "premium"):
            decisions = [one.hit("alice", 3, plan) for one in (limiter, memory)]
            assert decisions[0].remaining == decisions[1].remaining
            assert abs(decisions[0].reset_after - decisions[1].reset_after) < 60
    with pytest.raises(InputError, match="a timezone needs a window of a day"):
        MemoryLimiter(local, plans={"premium": {"day": "1000/h"}})


def test_an_override_replaces_the_quota_of_any_plan(store: ValkeyServer) -> None:
    options: dict[str, Any] = {
        "plans": {"premium": {"day": f"1000/{LONG}"}},
        "overrides": {"acme": {"day": f"5000/{LONG}"}},
    }
    with make(store, DAY, SECOND, **options) as limiter:
        assert remaining(limiter, "acme", "premium") == [5000, 10]
        assert remaining(limiter, "alice", "premium") == [1000, 10]
        keys = {"day": "acme", "second": "alice"}
        assert [one.remaining for one in limiter.hit_each(keys, 2, "premium")[1]] == [4998, 8]
        assert remaining(limiter, "alice") == [100, 8]


def test_thousands_of_overrides_share_the_scripts_of_their_quotas() -> None:
    overrides = {f"client {number}": {"day": f"{1000 * (1 + number % 3)}/day"} for number in range(5_000)}
    limiter = ValkeyLimiter("unix:///nowhere", [DAY, SECOND], overrides=overrides)
    assert len({limiter._scripts.choose(key, None) for key in overrides}) == 3


def test_a_policy_for_all_clients_keeps_its_count_among_plans(store: ValkeyServer) -> None:
    everyone = Policy.create("sliding-log", "50/day", name="everyone", key="all")
    with make(store, SECOND, everyone, plans={"premium": {"second": "50/h"}}) as limiter:
        for number in range(10):
            limiter.hit(f"client {number}", 2, random_plan(number))
        assert remaining(limiter, "other") == [10, 30]


def random_plan(number: int) -> str | None:
    return "premium" if number % 3 else None


def test_an_update_keeps_the_share_that_is_used(store: ValkeyServer) -> None:
    with make(store, DAY, SECOND, plans={}) as limiter:
        limiter.hit("alice", 4)
        log = Policy.create("sliding-log", "20/h", name="second")
        limiter.update([log, DAY, Policy.create("gcra", "7/h", name="new")])
        assert [policy.name for policy in limiter.policies] == ["second", "day", "new"]
        assert remaining(limiter) == [12, 96, 7]
        limiter.hit("alice", 3)
        limiter.update([SECOND, Policy.create("leaky-bucket", f"50/{LONG}", name="day")])
        assert remaining(limiter) == [4, 46]
        limiter.update(plans={"premium": {"second": "100/h"}})
        assert remaining(limiter, plan="premium") == [40, 46]


def test_another_instance_reads_the_state_of_other_quotas(store: ValkeyServer) -> None:
    with make(store, DAY, SECOND, plans={}) as limiter:
        limiter.hit("alice", 4)
    with make(store, Policy.create("gcra", "30/h", name="second"), plans={}) as limiter:
        assert remaining(limiter) == [18]


def test_a_thousand_changes_of_a_plan_grant_nothing(store: ValkeyServer) -> None:
    names = ["sliding-log", "fixed-window", "gcra"]
    policies = [Policy.create(name, f"100/{LONG}", name=name) for name in names]
    plans = {"small": dict.fromkeys(names, f"30/{LONG}"), "large": dict.fromkeys(names, f"300/{LONG}")}
    random = Random(1)

    async def run() -> int:
        limiter = AsyncValkeyLimiter(store.url, policies, name="api", deadline=AMPLE_DEADLINE, plans=plans)
        share = 0.0
        for _ in range(25):
            chosen = [random.choice((None, "small", "large")) for _ in range(40)]
            decisions = await asyncio.gather(*(limiter.hit("alice", 1, plan) for plan in chosen))
            bursts = {None: 100, "small": 30, "large": 300}
            share += sum(1 / bursts[plan] for plan, one in zip(chosen, decisions, strict=True) if one.allowed)
        left = (await limiter.hit("alice", 0, "large")).remaining
        limiter.close()
        assert share <= 1
        return left

    assert asyncio.run(run()) < 10


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"plans": {"premium": {"dya": "5/day"}}}, "unknown policy 'dya' in plan 'premium'"),
        ({"overrides": {"acme": {"day": "5/dya"}}}, "dya"),
        ({"plans": {"premium": {"day": ("1000000/s", 10**8)}}}, "burst of policy 'day' must be below"),
    ],
)
def test_invalid_plans_are_rejected(options: dict[str, Any], error: str) -> None:
    for kind in (ValkeyLimiter, AsyncValkeyLimiter):
        with pytest.raises(InputError, match=error):
            kind("unix:///nowhere", [DAY, SECOND], **options)


def test_an_unknown_plan_and_an_update_without_plans_are_rejected() -> None:
    limiter = ValkeyLimiter("unix:///nowhere", [DAY, SECOND], plans={"free": {}})
    with pytest.raises(InputError, match="unknown plan 'premium': choose from free"):
        limiter.hit("alice", plan="premium")
    with pytest.raises(InputError, match="unknown policy 'dya' in plan 'free'"):
        limiter.update([SECOND], plans={"free": {"dya": "5/day"}})
    assert limiter.policies == (DAY, SECOND)
    fixed = ValkeyLimiter("unix:///nowhere", DAY)
    with pytest.raises(InputError, match="unknown plan 'premium': pass plans= to the limiter"):
        fixed.hit("alice", plan="premium")
    with pytest.raises(InputError, match="to change them"):
        fixed.update(plans={})


@pytest.mark.parametrize(
    "foreign", ["text", "day x\n\0" + "x" * 40, "\0", "x" * 80], ids=["text", "line", "zero", "long"]
)
def test_a_key_of_another_program_counts_as_new(foreign: str, store: ValkeyServer) -> None:
    log = Policy.create("sliding-log", "5/h", name="log")
    with Valkey.from_url(store.url) as client, make(store, DAY, log, plans={}) as limiter:
        limiter.hit("alice", 2)
        for key in client.keys("rl:*:api:*"):
            client.set(key, foreign)
        assert limiter.hit("alice").remaining == 4
        assert remaining(limiter) == [99, 4]


def test_keys_with_plans_expire(store: ValkeyServer) -> None:
    policies = [Policy.create("sliding-log", "5/min", name="log"), Policy.create("gcra", "5/s", name="gcra")]
    with Valkey.from_url(store.url) as client, make(store, *policies, plans={}) as limiter:
        limiter.hit("alice")
        limiter.hit({"gcra": "alice"})
        lives = {key: client.pttl(key) for key in client.keys("rl:*:api:*")}
        assert len(lives) == 2
        assert all(50_000 < life <= 60_001 for life in lives.values())
