"""Several policies next to other programs and limiters, while a store is down, and on clusters."""

from __future__ import annotations

import asyncio

import pytest
from asgi import call
from durations import LONG
from limited_apps import Handler
from store_setups import Cluster
from test_store_policies import SECOND_AND_DAY, remaining
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE, count_calls, send_command

from ratelab import InputError, Policy
from ratelab.errors import ConfigurationWarning
from ratelab.http import RateLimitMiddleware
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

# --- stores


def test_a_probe_writes_and_charges_no_client(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, SECOND_AND_DAY, name="api", deadline=AMPLE_DEADLINE) as limiter:
        limiter.hit("alice")
        send_command(store.url, "CONFIG", "RESETSTAT")
        limiter.probe()
        assert count_calls(store.url, "set") > 4
        assert remaining(limiter, "alice") == [9, 19, 7]


@pytest.mark.parametrize("foreign", ["text", "x" * 80, "\0" * 80, "1 2 3"], ids=["text", "x", "zeros", "numbers"])
def test_a_key_of_another_program_counts_as_new(foreign: str, store: ValkeyServer) -> None:
    policies = [Policy.create("gcra", "3/h", name="a"), Policy.create("fixed-window", f"4/{LONG}", name="b")]
    with Valkey.from_url(store.url) as client, ValkeyLimiter(store.url, policies, deadline=AMPLE_DEADLINE) as limiter:
        limiter.hit("alice", 2)
        (key,) = client.keys("rl:*:a.b:*")
        client.set(key, foreign)
        assert limiter.hit("alice").remaining == 2
        client.delete(key)
        client.rpush(key, foreign)
        assert limiter.hit("alice").remaining == 2


def test_limiters_with_one_name_and_one_list_share_their_counters(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, SECOND_AND_DAY, name="api", deadline=AMPLE_DEADLINE) as limiter:
        limiter.hit("alice", 4)
        with pytest.warns(ConfigurationWarning, match="two limiters named 'api'"):
            other = ValkeyLimiter(limiter, SECOND_AND_DAY, name="api", deadline=AMPLE_DEADLINE)
        with other:
            assert remaining(other, "alice") == [6, 16, 4]
        with ValkeyLimiter(limiter, SECOND_AND_DAY[:2], name="api", deadline=AMPLE_DEADLINE) as fewer:
            assert remaining(fewer, "alice") == [10, 20]


def test_a_limiter_with_a_fallback_decides_by_every_policy_in_the_store(store: ValkeyServer) -> None:
    async def run() -> None:
        shared = AsyncValkeyLimiter(store.url, SECOND_AND_DAY[:2], name="api", deadline=AMPLE_DEADLINE)
        limiter = ResilientLimiter(shared)
        assert limiter.policies == tuple(SECOND_AND_DAY[:2])
        assert (await limiter.hit("alice", {"second": 9, "day": 2})).remaining == 1
        shared.close()

    asyncio.run(run())


def test_a_fallback_in_memory_enforces_every_policy() -> None:
    async def run() -> None:
        broken = ResilientLimiter(AsyncValkeyLimiter("unix:///nowhere", SECOND_AND_DAY[:2], deadline=0.1))
        outcomes = [(await broken.hit("alice", 4)).bound_by for _ in range(3)]
        assert outcomes == [None, None, "second"]

    asyncio.run(run())


SHADOWS = [
    Policy.create("gcra", "1/h", name="strict", shadow=True),
    Policy.create("sliding-log", "5/h", name="lax", key="all", shadow=True),
]


@pytest.mark.parametrize("fallback", ["local", "open", "closed"])
def test_shadow_policies_deny_nothing_while_their_store_is_down(fallback: str) -> None:
    async def run() -> None:
        limiter = ResilientLimiter(AsyncValkeyLimiter("unix:///nowhere", SHADOWS), fallback)
        decisions = [await limiter.hit("alice", 2) for _ in range(8)]
        assert all(decision.allowed for decision in decisions)
        assert (await limiter.reserve("alice", 9)).allowed

    asyncio.run(run())


def test_a_service_with_shadow_policies_answers_while_their_store_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELAB_KEY_SECRET", "a secret of this test")
    app = RateLimitMiddleware(Handler(), AsyncValkeyLimiter("unix:///nowhere", SHADOWS), key=lambda _: "alice")
    assert [call(app).status for _ in range(5)] == [200] * 5


# --- clusters


REASON = "on a cluster, one script cannot decide"


def test_policies_with_different_keys_are_rejected_on_a_cluster() -> None:
    url = "valkey://127.0.0.1:1?cluster=true"
    for kind in (ValkeyLimiter, AsyncValkeyLimiter):
        with pytest.raises(InputError, match=REASON):
            kind(url, SECOND_AND_DAY)
        with pytest.raises(InputError, match=REASON):
            kind(url, [SECOND_AND_DAY[0], Policy.create("gcra", "5/s", name="address", key="ip")])
    with pytest.raises(InputError, match=REASON):
        ValkeyLimiter(url, SECOND_AND_DAY[:2]).hit({"second": "alice", "day": "acme"})


@pytest.mark.slow
def test_a_cluster_decides_policies_of_one_key_together(cluster: Cluster) -> None:
    with ValkeyLimiter(cluster.url, SECOND_AND_DAY[:2], name="api", deadline=AMPLE_DEADLINE) as limiter:
        for number in range(20):
            limiter.hit(f"client {number}", 3)
            assert remaining(limiter, f"client {number}") == [7, 17]
        limiter.probe()


@pytest.mark.slow
def test_two_steps_on_a_cluster_exceed_neither_quota(cluster: Cluster) -> None:
    async def decide(clients: AsyncValkeyLimiter, everyone: AsyncValkeyLimiter, client: str) -> bool:
        ticket = await clients.reserve(client)
        if not ticket.allowed:
            return False
        if (await everyone.hit("all")).allowed:
            return True
        assert await ticket.cancel()
        return False

    async def run(url: str) -> None:
        clients = AsyncValkeyLimiter(url, "sliding-log", "10/day", name="client", deadline=AMPLE_DEADLINE)
        everyone = AsyncValkeyLimiter(clients, "gcra", "25/day", name="everyone", deadline=AMPLE_DEADLINE)
        names = [f"client {number % 4}" for number in range(60)]
        outcomes = await asyncio.gather(*(decide(clients, everyone, name) for name in names))
        assert sum(outcomes) == 25
        for name in {*names}:
            admitted = sum(allowed for allowed, other in zip(outcomes, names, strict=True) if other == name)
            assert (await clients.hit(name, 0)).remaining == 10 - admitted
        clients.close()
        everyone.close()

    asyncio.run(run(cluster.url))


@pytest.mark.slow
def test_plans_and_tickets_work_on_a_cluster(cluster: Cluster) -> None:
    plans = {"large": {"second": "100/h", "day": "200/day"}}
    with ValkeyLimiter(cluster.url, SECOND_AND_DAY[:2], name="api", deadline=AMPLE_DEADLINE, plans=plans) as limiter:
        for number in range(10):
            ticket = limiter.reserve(f"client {number}", 5)
            assert ticket.settle(2)
            large = limiter.hit_each(f"client {number}", 0, "large")[1]
            assert [one.remaining for one in large] == [80, 180]
            limiter.refund(f"client {number}", 10)
            assert remaining(limiter, f"client {number}") == [9, 19]
            limiter.reset(f"client {number}")
            assert remaining(limiter, f"client {number}") == [10, 20]


@pytest.mark.slow
def test_policies_of_one_key_follow_it_through_a_migration(cluster: Cluster) -> None:
    policies = [Policy.create("token-bucket", "10/h", name="second"), Policy.create("gcra", "20/day", name="day")]
    with ValkeyLimiter(cluster.url, policies, name="api", deadline=AMPLE_DEADLINE) as limiter:
        limiter.hit("alice", 3)
        slot = limiter._slots.slot(limiter._script.place("new", 0)[0])
        owner = cluster.first_owner(slot)
        with cluster.migrating(slot, next(node for node in cluster.nodes if node is not owner)):
            assert limiter.hit("new", 4).remaining == 6
            assert limiter.hit("new", 4).remaining == 2
