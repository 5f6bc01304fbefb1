"""Looks at the keys of several policies in a store, and resets: no state is converted to another quota."""

from __future__ import annotations

import asyncio

import pytest
from durations import find_quiet_zone
from test_store_plans import DAY, LISTS, SECOND, make, make_plans, make_policies
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE

from ratelab import InputError, Policy
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer


def read_all(url: str) -> dict[bytes, object]:
    """Return every key of a client in the store."""
    with Valkey.from_url(url) as client:
        return {key: client.dump(key) for key in client.scan_iter("rl:{[0-9a-f]*") if b"probe" not in key}


@pytest.mark.parametrize("names", LISTS)
def test_a_look_has_the_quotas_of_the_last_hit_and_changes_nothing(names: list[str], store: ValkeyServer) -> None:
    unit = "00day"  # so that no quota is restored during the test
    policies, plans = make_policies(names, unit, find_quiet_zone()), make_plans(names, unit)
    with (
        make(store, *policies, plans=plans) as limiter,
        make(store, *(one.with_quota("9/day") for one in policies), plans={}) as later,
    ):
        limiter.hit("alice", 3, plan="premium")
        limiter.hit("alice", 2, plan="premium")
        before = read_all(store.url)
        looks = [limiter.look("alice"), limiter.look("alice", plan="trial"), later.look("alice")]
        assert read_all(store.url) == before
        expected = limiter.hit_each("alice", 0, plan="premium")[1]
        for look in looks:
            assert [*look] == names
            assert [one.remaining for one in look.values()] == [one.remaining for one in expected]
        assert [one.remaining for one in limiter.look("bob", plan="trial").values()] == [3] * len(names)


def test_a_scan_lists_each_client_with_the_policies_that_count_it(store: ValkeyServer) -> None:
    total = Policy.create("gcra", "50/h", name="total", key="all")
    with make(store, SECOND, DAY, total, plans={"premium": {"second": "30/h"}}) as limiter:
        limiter.hit({"second": "alice", "day": "192.0.2.1", "total": "all"}, 4, plan="premium")
        limiter.hit({"second": "bob", "day": "192.0.2.1"}, 2)
        before = read_all(store.url)
        listed = dict(limiter.scan())
        assert read_all(store.url) == before
        found = [{name: one.remaining for name, one in states.items()} for states in listed.values()]
        expected: list[dict[str, int]] = [{"second": 26}, {"second": 8}, {"day": 94}, {"total": 46}]
        assert sorted(map(str, found)) == sorted(map(str, expected))
        assert listed["all"]["total"].remaining == 46
        limiter.reset({"day": "192.0.2.1"})
        assert limiter.look({"day": "192.0.2.1"})["day"].remaining == DAY.quota.burst


def test_a_look_or_reset_of_one_policy_keeps_the_quotas_of_the_others(store: ValkeyServer) -> None:
    with make(store, SECOND, DAY, plans={"premium": {"second": "1000/h"}}) as limiter:
        limiter.hit("alice", 7, plan="premium")
        assert limiter.look({"day": "alice"})["day"].remaining == DAY.quota.burst - 7
        limiter.reset({"day": "alice"})
        assert {name: one.remaining for name, one in limiter.look("alice").items()} == {"second": 993, "day": 100}


def test_the_asynchronous_limiter_looks_and_resets_likewise(store: ValkeyServer) -> None:
    async def run() -> list[dict[str, int]]:
        plans = {"premium": {"second": "1000/h"}}
        async with AsyncValkeyLimiter(store.url, [SECOND, DAY], deadline=AMPLE_DEADLINE, plans=plans) as limiter:
            await limiter.hit("alice", 7, plan="premium")
            looks = [await limiter.look("alice")]
            await limiter.reset({"day": "alice"})
            looks.append(await ResilientLimiter(limiter).look("alice"))
            await limiter.reset("alice")
            looks.append(await limiter.look("alice"))
        return [{name: one.remaining for name, one in look.items()} for look in looks]

    expected = [{"second": 993, "day": 93}, {"second": 993, "day": 100}, {"second": 10, "day": 100}]
    assert asyncio.run(run()) == expected


def test_only_a_limiter_with_plans_lists_the_keys_of_several_policies(store: ValkeyServer) -> None:
    with make(store, SECOND, DAY) as limiter:
        with pytest.raises(InputError, match="keys of several policies are listed only for a limiter with plans"):
            next(limiter.scan())
        assert {name: one.remaining for name, one in limiter.look("alice").items()} == {
            "second": SECOND.quota.burst,
            "day": DAY.quota.burst,
        }
