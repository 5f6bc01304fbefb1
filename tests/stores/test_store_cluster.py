"""Clusters: each key is decided by its node, and found again after it has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple
from unittest.mock import patch

import pytest
from serve_process import wait_until
from valkey_mutants import MOVED
from valkey_servers import (
    LARGE_BURST,
    count_calls,
    free_port,
    make_async_limiter,
    make_limiter,
    run_valkey,
    send_command,
)

from ratelab.errors import StoreError
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.valkey.session import SLOT_COUNT, SlotMap

MIDDLE = SLOT_COUNT // 2
KEYS = [f"client {number}" for number in range(40)]


class Pair(NamedTuple):
    """Two nodes; at first, each has half of the slots."""

    first: ValkeyServer
    second: ValkeyServer

    def move(self, slots: Iterable[int], to: ValkeyServer) -> None:
        """Assign slots to a node, on both nodes; all keys are lost."""
        (owner,) = (server for server in self if server is not to)
        name = send_command(to.url, "CLUSTER", "MYID").decode()
        for server in (to, owner):
            send_command(server.url, "FLUSHALL")
            for slot in slots:
                send_command(server.url, "CLUSTER", "SETSLOT", slot, "NODE", name)


class Clusters(NamedTuple):
    """A cluster of one node, and one of two."""

    single: ValkeyServer
    pair: Pair


def start_node(stack: ExitStack, bus: int) -> ValkeyServer:
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-require-full-coverage", "no")
    return stack.enter_context(run_valkey(*options, port=free_port()))


def is_ready(server: ValkeyServer, nodes: int) -> bool:
    info = send_command(server.url, "CLUSTER", "INFO").decode()
    facts = ("cluster_state:ok", f"cluster_slots_assigned:{SLOT_COUNT}", f"cluster_known_nodes:{nodes}")
    return all(f"{fact}\r" in info for fact in facts)


@pytest.fixture(scope="module")
def clusters() -> Iterator[Clusters]:
    """Start both clusters together, since a cluster takes a while to become ready."""
    with ExitStack() as stack:
        bus = free_port()
        single, pair = start_node(stack, free_port()), Pair(start_node(stack, free_port()), start_node(stack, bus))
        send_command(single.url, "CLUSTER", "ADDSLOTSRANGE", 0, SLOT_COUNT - 1)
        send_command(pair.first.url, "CLUSTER", "ADDSLOTSRANGE", 0, MIDDLE - 1)
        send_command(pair.second.url, "CLUSTER", "ADDSLOTSRANGE", MIDDLE, SLOT_COUNT - 1)
        send_command(pair.first.url, "CLUSTER", "MEET", "127.0.0.1", pair.second.url.rpartition(":")[2], bus)
        wait_until(lambda: is_ready(single, 1) and all(is_ready(server, 2) for server in pair))
        yield Clusters(single, pair)


@pytest.fixture
def single(clusters: Clusters) -> ValkeyServer:
    send_command(clusters.single.url, "FLUSHALL")
    return clusters.single


@pytest.fixture
def pair(clusters: Clusters) -> Pair:
    for server in clusters.pair:
        send_command(server.url, "FLUSHALL")
    return clusters.pair


def slot_of(server: ValkeyServer, key: str) -> int:
    """Return the slot of a client's key, according to a node."""
    slot: int = send_command(server.url, "CLUSTER", "KEYSLOT", make_limiter(server.url)._script.key(key).decode())
    return slot


def cluster_url(server: ValkeyServer) -> str:
    return f"{server.url}?cluster=true"


async def hit_together(url: str, keys: list[str]) -> list[int]:
    limiter = make_async_limiter(url, deadline=1)
    try:
        return [decision.remaining for decision in await asyncio.gather(*map(limiter.hit, keys))]
    finally:
        limiter.close()


def test_slots_are_those_of_the_server(single: ValkeyServer) -> None:
    script = make_limiter(single.url)._script
    assert [SlotMap(cluster=True).slot(script.key(key)) for key in KEYS] == [slot_of(single, key) for key in KEYS]


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


def test_keys_that_move_are_found_again_and_charged_once(pair: Pair) -> None:
    limiter = make_limiter(cluster_url(pair.first))
    assert {limiter.hit(key).remaining for key in KEYS} == {LARGE_BURST - 1}
    assert all(send_command(server.url, "DBSIZE") > 0 for server in pair)

    async def hit_before_and_after() -> list[list[int]]:
        limiter_async = make_async_limiter(cluster_url(pair.first))
        remaining = [[(await limiter_async.hit(key)).remaining for key in KEYS]]
        pair.move({slot_of(pair.first, key) for key in KEYS}, to=pair.second)
        remaining.append([decision.remaining for decision in await asyncio.gather(*map(limiter_async.hit, KEYS))])
        limiter_async.close()
        return remaining

    assert asyncio.run(hit_before_and_after()) == [[LARGE_BURST - 2] * 40, [LARGE_BURST - 1] * 40]
    assert {limiter.hit(key).remaining for key in KEYS} == {LARGE_BURST - 2}
    assert [send_command(server.url, "DBSIZE") for server in pair] == [0, 40]
    limiter.close()


def test_a_mutant_that_does_not_follow_keys_is_caught(pair: Pair) -> None:
    with ExitStack() as patches:
        for mutant in MOVED:
            patches.enter_context(patch.object(mutant.owner, mutant.attribute, mutant.replacement))
        limiter = make_limiter(cluster_url(pair.first), deadline=1)
        limiter.hit("alice")
        slot = slot_of(pair.first, "alice")
        pair.move([slot], to=pair.second if slot < MIDDLE else pair.first)
        with pytest.raises(StoreError, match="MOVED"):
            limiter.hit("alice")
        limiter.close()


def test_the_other_nodes_decide_when_the_node_of_the_url_dies(pair: Pair) -> None:
    limiter = make_limiter(cluster_url(pair.first), deadline=1)
    keys = [f"other {number}" for number in range(20)]
    lost, kept = ([key for key in keys if (slot_of(pair.first, key) < MIDDLE) is first] for first in (True, False))
    for key in keys:
        limiter.hit(key)
    pair.first.stop()
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
