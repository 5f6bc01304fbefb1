"""Clusters: each key is decided by its node, and found again after it has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack
from typing import NamedTuple
from unittest.mock import patch

import pytest
from serve_process import wait_until
from store_setups import Cluster, run_cluster
from valkey_mutants import MOVED
from valkey_servers import (
    AMPLE_DEADLINE,
    LARGE_BURST,
    count_calls,
    make_async_limiter,
    make_limiter,
    send_command,
)

from ratelab import Policy
from ratelab.errors import StoreError
from ratelab.stores.valkey import ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.valkey.session import SLOT_COUNT, SlotMap

pytestmark = pytest.mark.slow

MIDDLE = SLOT_COUNT // 2
KEYS = [f"client {number}" for number in range(40)]


class Clusters(NamedTuple):
    """A cluster of one node, and one of two."""

    single: ValkeyServer
    pair: Cluster


@pytest.fixture(scope="module")
def clusters() -> Iterator[Clusters]:
    with run_cluster(1) as single, run_cluster(2) as pair:
        yield Clusters(single.nodes[0], pair)


@pytest.fixture
def single(clusters: Clusters) -> ValkeyServer:
    send_command(clusters.single.url, "FLUSHALL")
    return clusters.single


@pytest.fixture
def pair(clusters: Clusters) -> Cluster:
    for server in clusters.pair.nodes:
        send_command(server.url, "FLUSHALL")
    return clusters.pair


def slot_of(server: ValkeyServer, key: str) -> int:
    """Return the slot of a client's key, according to a node."""
    slot: int = send_command(
        server.url, "CLUSTER", "KEYSLOT", make_limiter(server.url)._script.place(key, 0)[0].decode()
    )
    return slot


def cluster_url(server: ValkeyServer) -> str:
    return f"{server.url}?cluster=true"


async def hit_together(url: str, keys: list[str]) -> list[int]:
    limiter = make_async_limiter(url)
    try:
        return [decision.remaining for decision in await asyncio.gather(*map(limiter.hit, keys))]
    finally:
        limiter.close()


def test_slots_are_those_of_the_server(single: ValkeyServer) -> None:
    script = make_limiter(single.url)._script
    assert [SlotMap(cluster=True).slot(script.place(key, 0)[0]) for key in KEYS] == [
        slot_of(single, key) for key in KEYS
    ]


def test_a_single_node_without_a_known_address_decides_in_threads_and_tasks(single: ValkeyServer) -> None:
    limiter = make_limiter(cluster_url(single))
    assert [limiter.hit(key).remaining for key in KEYS] == [LARGE_BURST - 1] * 40
    limiter.close()
    remaining = asyncio.run(hit_together(cluster_url(single), KEYS + KEYS))
    assert remaining == [LARGE_BURST - 2] * 40 + [LARGE_BURST - 3] * 40


def test_hits_of_one_slot_are_one_call(single: ValkeyServer) -> None:
    asyncio.run(hit_together(cluster_url(single), ["other"]))
    send_command(single.url, "CONFIG", "RESETSTAT")
    remaining = asyncio.run(hit_together(cluster_url(single), ["alice", "bob"] * 20))
    assert remaining == [LARGE_BURST - 1 - number // 2 for number in range(40)]
    assert count_calls(single.url, "evalsha") == 2


def test_a_scan_lists_the_clients_of_every_node(pair: Cluster) -> None:
    with ValkeyLimiter(pair.url, "gcra", "2/day", deadline=AMPLE_DEADLINE) as limiter:
        for number in range(50):
            limiter.hit(f"client {number}")
        listed = dict(limiter.scan())
    assert len(listed) == 50
    assert {states["gcra"].remaining for states in listed.values()} == {1}


def test_a_scan_lists_the_policies_of_clients_on_every_node(pair: Cluster) -> None:
    policies = [Policy.create("gcra", "2/day", name="few"), Policy.create("sliding-log", "9/day", name="many")]
    with ValkeyLimiter(pair.url, policies, deadline=AMPLE_DEADLINE, plans={"more": {"few": "4/day"}}) as limiter:
        for number in range(50):
            limiter.hit(f"client {number}", plan="more" if number % 2 else None)
        listed = dict(limiter.scan())
        look = limiter.look("client 1")
    assert sorted(states["few"].remaining for states in listed.values()) == [1] * 25 + [3] * 25
    assert {states["many"].remaining for states in listed.values()} == {8}
    assert [decision.remaining for decision in look.values()] == [3, 8]


def test_keys_that_move_are_found_again_and_charged_once(pair: Cluster) -> None:
    limiter = make_limiter(cluster_url(pair.nodes[0]))
    assert {limiter.hit(key).remaining for key in KEYS} == {LARGE_BURST - 1}
    assert all(send_command(server.url, "DBSIZE") > 0 for server in pair.nodes)

    async def hit_before_and_after() -> list[list[int]]:
        limiter_async = make_async_limiter(cluster_url(pair.nodes[0]))
        remaining = [[(await limiter_async.hit(key)).remaining for key in KEYS]]
        pair.move({slot_of(pair.nodes[0], key) for key in KEYS}, to=pair.nodes[1])
        remaining.append([decision.remaining for decision in await asyncio.gather(*map(limiter_async.hit, KEYS))])
        limiter_async.close()
        return remaining

    assert asyncio.run(hit_before_and_after()) == [[LARGE_BURST - 2] * 40, [LARGE_BURST - 1] * 40]
    assert {limiter.hit(key).remaining for key in KEYS} == {LARGE_BURST - 2}
    assert [send_command(server.url, "DBSIZE") for server in pair.nodes] == [0, 40]
    limiter.close()


def test_a_mutant_that_does_not_follow_keys_is_caught(pair: Cluster) -> None:
    with ExitStack() as patches:
        for mutant in MOVED:
            patches.enter_context(patch.object(mutant.owner, mutant.attribute, mutant.replacement))
        limiter = make_limiter(cluster_url(pair.nodes[0]))
        limiter.hit("alice")
        slot = slot_of(pair.nodes[0], "alice")
        pair.move([slot], to=pair.nodes[1] if slot < MIDDLE else pair.nodes[0])
        with pytest.raises(StoreError, match="MOVED"):
            limiter.hit("alice")
        limiter.close()


def test_the_other_nodes_decide_when_the_node_of_the_url_dies(pair: Cluster) -> None:
    limiter = make_limiter(cluster_url(pair.nodes[0]))
    keys = [f"other {number}" for number in range(20)]
    lost, kept = ([key for key in keys if (slot_of(pair.nodes[0], key) < MIDDLE) is first] for first in (True, False))
    for key in keys:
        limiter.hit(key)
    pair.nodes[0].stop()
    for key in lost[:2]:
        with pytest.raises(StoreError):
            limiter.hit(key)

    def decides(key: str) -> bool:
        try:
            return limiter.hit(key).allowed
        except StoreError:
            return False

    wait_until(lambda: decides(kept[0]))
    assert all(decides(key) for key in kept)
    limiter.close()
