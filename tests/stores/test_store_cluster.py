"""On a cluster each key is asked of the node that keeps it, and looked for once where it has moved."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import NamedTuple
from unittest.mock import patch

import pytest
from serve_process import wait_until
from valkey_mutants import MOVED
from valkey_servers import PLENTY, ask, calls, free_port, plenty, plenty_async, running

from ratelab.errors import StoreError
from ratelab.stores.valkey.server import ValkeyServer

SLOTS = 16_384
MIDDLE = SLOTS // 2
KEYS = [f"client {number}" for number in range(40)]


def _node(stack: ExitStack, bus: int) -> ValkeyServer:
    options = ("--cluster-enabled", "yes", "--cluster-port", str(bus), "--cluster-require-full-coverage", "no")
    return stack.enter_context(running(*options, port=free_port()))


def _knows(server: ValkeyServer, nodes: int) -> bool:
    told = ask(server.url, "CLUSTER", "INFO").decode()
    facts = ("cluster_state:ok", f"cluster_slots_assigned:{SLOTS}", f"cluster_known_nodes:{nodes}")
    return all(f"{fact}\r" in told for fact in facts)


class Pair(NamedTuple):
    """Two nodes, of which each keeps half of the slots to begin with."""

    first: ValkeyServer
    second: ValkeyServer

    def move(self, slots: Iterable[int], to: ValkeyServer) -> None:
        """Have a node keep slots, in the eyes of both; what is kept in them is lost."""
        (owner,) = (server for server in self if server is not to)
        name = ask(to.url, "CLUSTER", "MYID").decode()
        for server in (to, owner):
            ask(server.url, "FLUSHALL")
            for slot in slots:
                ask(server.url, "CLUSTER", "SETSLOT", slot, "NODE", name)


class Clusters(NamedTuple):
    """What the tests ask."""

    alone: ValkeyServer
    pair: Pair


@pytest.fixture(scope="module")
def clusters() -> Iterator[Clusters]:
    """Start both together, for a cluster waits a while before it decides anything."""
    with ExitStack() as stack:
        bus = free_port()
        alone, pair = _node(stack, free_port()), Pair(_node(stack, free_port()), _node(stack, bus))
        ask(alone.url, "CLUSTER", "ADDSLOTSRANGE", 0, SLOTS - 1)
        ask(pair.first.url, "CLUSTER", "ADDSLOTSRANGE", 0, MIDDLE - 1)
        ask(pair.second.url, "CLUSTER", "ADDSLOTSRANGE", MIDDLE, SLOTS - 1)
        ask(pair.first.url, "CLUSTER", "MEET", "127.0.0.1", pair.second.url.rpartition(":")[2], bus)
        wait_until(lambda: _knows(alone, 1) and all(_knows(server, 2) for server in pair))
        yield Clusters(alone, pair)


@pytest.fixture
def alone(clusters: Clusters) -> ValkeyServer:
    ask(clusters.alone.url, "FLUSHALL")
    return clusters.alone


@pytest.fixture
def pair(clusters: Clusters) -> Pair:
    for server in clusters.pair:
        ask(server.url, "FLUSHALL")
    return clusters.pair


def slot_of(server: ValkeyServer, key: str) -> int:
    found: int = ask(server.url, "CLUSTER", "KEYSLOT", plenty(server.url)._script.key(key).decode())
    return found


def test_a_node_alone_that_does_not_know_its_name_decides_in_threads_and_tasks(alone: ValkeyServer) -> None:
    limiter = plenty(f"{alone.url}?cluster=true")
    assert [limiter.hit(key).remaining for key in KEYS] == [PLENTY - 1] * len(KEYS)
    limiter.close()
    assert asyncio.run(_hits(f"{alone.url}?cluster=true", KEYS + KEYS)) == [PLENTY - 2] * 40 + [PLENTY - 3] * 40


async def _hits(url: str, keys: list[str]) -> list[int]:
    limiter = plenty_async(url, deadline=1)
    try:
        return [decision.remaining for decision in await asyncio.gather(*map(limiter.hit, keys))]
    finally:
        limiter.close()


def test_hits_of_one_slot_are_one_call(alone: ValkeyServer) -> None:
    asyncio.run(_hits(f"{alone.url}?cluster=true", ["somebody"]))
    ask(alone.url, "CONFIG", "RESETSTAT")
    assert asyncio.run(_hits(f"{alone.url}?cluster=true", ["alice", "bob"] * 20)) == [
        PLENTY - 1 - number // 2 for number in range(40)
    ]
    assert calls(alone.url, "evalsha") == 2


def test_keys_that_move_are_found_again_and_charged_once(pair: Pair) -> None:
    url = f"{pair.first.url}?cluster=true"
    limiter = plenty(url, deadline=1)
    assert {limiter.hit(key).remaining for key in KEYS} == {PLENTY - 1}
    assert all(ask(server.url, "DBSIZE") > 0 for server in pair)

    async def before_and_after() -> list[list[int]]:
        limiter_async = plenty_async(url, deadline=1)
        left = [[(await limiter_async.hit(key)).remaining for key in KEYS]]
        pair.move({slot_of(pair.first, key) for key in KEYS}, to=pair.second)
        left.append([decision.remaining for decision in await asyncio.gather(*map(limiter_async.hit, KEYS))])
        limiter_async.close()
        return left

    assert asyncio.run(before_and_after()) == [[PLENTY - 2] * 40, [PLENTY - 1] * 40]
    assert {limiter.hit(key).remaining for key in KEYS} == {PLENTY - 2}
    assert [ask(server.url, "DBSIZE") for server in pair] == [0, 40]
    limiter.close()


def test_a_mistake_is_noticed_where_keys_have_moved(pair: Pair) -> None:
    with ExitStack() as made:
        for mutant in MOVED:
            made.enter_context(patch.object(mutant.owner, mutant.attribute, mutant.made))
        limiter = plenty(f"{pair.first.url}?cluster=true", deadline=1)
        limiter.hit("alice")
        slot = slot_of(pair.first, "alice")
        pair.move([slot], to=pair.second if slot < MIDDLE else pair.first)
        with pytest.raises(StoreError, match="MOVED"):
            limiter.hit("alice")
        limiter.close()


def test_the_node_that_the_url_names_may_die_and_the_others_are_asked(pair: Pair) -> None:
    limiter, keys = plenty(f"{pair.first.url}?cluster=true", deadline=1), [f"other {number}" for number in range(20)]
    here, there = ([key for key in keys if (slot_of(pair.first, key) < MIDDLE) is first] for first in (True, False))
    for key in keys:
        limiter.hit(key)
    pair.first.stop()
    for key in here[:2]:
        with pytest.raises(StoreError):
            limiter.hit(key)

    def decides(key: str) -> bool:
        try:
            return limiter.hit(key).allowed
        except StoreError:
            return False

    wait_until(lambda: decides(there[0]))
    assert all(decides(key) for key in there)
    limiter.close()
