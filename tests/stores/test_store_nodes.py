"""Nodes of a cluster that fail or migrate slots: only their keys are concerned, and no hit is charged twice."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from invalid_stores import stopped
from serve_process import wait_until
from store_setups import Cluster, run_cluster
from valkey_servers import LARGE_BURST, make_async_limiter, make_limiter, send_command

from ratelab.errors import StoreError
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.circuit_breaker import MAX_FAILURES
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.valkey.session import SLOT_COUNT, SlotMap

pytestmark = pytest.mark.slow

KEYS = [f"client {number}" for number in range(60)]


@pytest.fixture(scope="module", params=["valkey", "redis", "redis-6.2"])
def running_cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    with run_cluster(3, request.param) as cluster:
        yield cluster


SCRIPT = make_limiter("valkey://nowhere")._script


def slot_of(key: str) -> int:
    return SlotMap(cluster=True).slot(SCRIPT.place(key, 0)[0])


def keys_of(cluster: Cluster, node: ValkeyServer) -> list[str]:
    return [key for key in KEYS if cluster.first_owner(slot_of(key)) is node]


def test_each_node_decides_for_its_keys(cluster: Cluster) -> None:
    with make_limiter(cluster.url) as limiter:
        assert [limiter.hit(key).remaining for key in KEYS * 2] == [LARGE_BURST - 1] * 60 + [LARGE_BURST - 2] * 60
    counts = [send_command(node.url, "DBSIZE") for node in cluster.nodes]
    assert (sum(counts), min(counts) > 0) == (60, True)


def test_a_node_of_a_cluster_needs_a_url_that_mentions_it(cluster: Cluster) -> None:
    plain = cluster.first_owner(slot_of("alice")).url
    with make_limiter(plain) as limiter:
        assert limiter.hit("alice").allowed  # a single key is decided, on its own node
        with pytest.raises(StoreError, match="the server is a node of a cluster: add cluster=true to the URL") as error:
            limiter.probe()
    assert error.value.kind == "misconfigured"
    with make_limiter(f"{plain}/1") as limiter, pytest.raises(StoreError) as error:
        limiter.hit("alice")
    assert error.value.kind == "misconfigured"
    with make_limiter(cluster.url) as limiter:
        limiter.probe()


# --- migrating slots


def keys_in_one_slot() -> list[str]:
    """Return three keys of one slot, which a batch decides together."""
    found: dict[int, list[str]] = {}
    number = 0
    while True:
        key = f"migrant {number}"
        number += 1
        keys = found.setdefault(slot_of(key), [])
        keys.append(key)
        if len(keys) == 3:
            return keys


MIGRANTS = keys_in_one_slot()


def migrate_key(cluster: Cluster, key: str, source: ValkeyServer, target: ValkeyServer) -> None:
    store_key = SCRIPT.place(key, 0)[0].decode()
    host, _, port = target.url.rpartition("/")[2].partition(":")
    send_command(source.url, "MIGRATE", host, int(port), store_key, 0, 5000)


def test_threads_follow_keys_of_a_slot_that_migrates(cluster: Cluster) -> None:
    slot = slot_of(MIGRANTS[0])
    source = cluster.first_owner(slot)
    target = next(node for node in cluster.nodes if node is not source)
    stays, moves, new = MIGRANTS
    with make_limiter(cluster.url) as limiter:
        assert [limiter.hit(key).remaining for key in (stays, moves)] == [LARGE_BURST - 1] * 2
        with cluster.migrating(slot, target):
            migrate_key(cluster, moves, source, target)
            for hits in (2, 3):
                assert [limiter.hit(key).remaining for key in (stays, moves)] == [LARGE_BURST - hits] * 2
                assert limiter.hit(new).remaining == LARGE_BURST - hits + 1
        assert send_command(target.url, "DBSIZE") == 2
        send_command(target.url, "FLUSHALL")


def test_a_batch_of_a_slot_that_migrates_is_decided_key_by_key(cluster: Cluster) -> None:
    slot = slot_of(MIGRANTS[0])
    source = cluster.first_owner(slot)
    target = next(node for node in cluster.nodes if node is not source)

    async def hit_together(limiter: AsyncValkeyLimiter) -> list[int]:
        return [decision.remaining for decision in await asyncio.gather(*map(limiter.hit, MIGRANTS * 2))]

    async def hit_before_and_during() -> None:
        async with make_async_limiter(cluster.url) as limiter:
            assert await hit_together(limiter) == [LARGE_BURST - 1] * 3 + [LARGE_BURST - 2] * 3
            with cluster.migrating(slot, target):
                migrate_key(cluster, MIGRANTS[1], source, target)
                send_command(source.url, "DEL", limiter._script.place(MIGRANTS[2], 0)[0].decode())
                for hits in (2, 4):
                    first, second = (
                        [LARGE_BURST - hits - 1 - more] * 2 + [LARGE_BURST - hits + 1 - more] for more in (0, 1)
                    )
                    assert await hit_together(limiter) == first + second
            send_command(target.url, "FLUSHALL")

    asyncio.run(hit_before_and_during())


def test_a_migration_opens_no_circuit(cluster: Cluster) -> None:
    slot = slot_of(MIGRANTS[0])
    target = next(node for node in cluster.nodes if node is not cluster.first_owner(slot))

    async def hit_during() -> ResilientLimiter:
        async with make_async_limiter(cluster.url) as store:
            limiter = ResilientLimiter(store)
            with cluster.migrating(slot, target):
                for _ in range(5):
                    await asyncio.gather(*map(limiter.hit, [*KEYS, *MIGRANTS]))
            return limiter

    assert asyncio.run(hit_during()).health == (True, {}, 0)
    send_command(target.url, "FLUSHALL")


# --- many keys before the map of slots is known


def test_the_map_of_slots_is_looked_up_once_for_hits_at_the_same_time(cluster: Cluster) -> None:
    async def hit_together() -> None:
        async with make_async_limiter(cluster.url) as limiter:
            await asyncio.gather(*(limiter.hit(f"first {number}") for number in range(500)))

    for node in cluster.nodes:
        send_command(node.url, "CONFIG", "RESETSTAT")
    asyncio.run(hit_together())
    statistics = [send_command(node.url, "INFO", "commandstats") for node in cluster.nodes]
    calls = sum(
        facts.get("cmdstat_cluster|slots", facts.get("cmdstat_cluster", {})).get("calls", 0) for facts in statistics
    )
    assert calls == 1


# --- nodes that are down


only_with_valkey = pytest.mark.parametrize("running_cluster", ["valkey"], indirect=True)


@pytest.fixture
def mortal() -> Iterator[Cluster]:
    with run_cluster(3) as cluster:
        yield cluster


def test_clients_of_healthy_nodes_are_decided_by_the_store(mortal: Cluster) -> None:
    failing = mortal.nodes[0]  # which is that of the URL
    lost = keys_of(mortal, failing)
    kept = [key for key in KEYS if key not in lost]

    async def hit_all() -> None:
        async with make_async_limiter(mortal.url, deadline=4) as store:
            limiter = ResilientLimiter(store)
            for stop in (signal.SIGSTOP, signal.SIGKILL):
                before = limiter.health.fallback_decisions
                await asyncio.gather(*map(limiter.hit, KEYS))
                assert limiter.health[::2] == (True, before)
                os.kill(failing.pid, stop)
                for _ in range(MAX_FAILURES):
                    await asyncio.gather(*map(limiter.hit, lost))
                assert not limiter.health.up
                before = limiter.health.fallback_decisions
                for _ in range(20):
                    await asyncio.gather(*map(limiter.hit, kept))
                    await limiter.probe()
                assert limiter.health.fallback_decisions == before
                await limiter.hit(lost[0])
                assert limiter.health.fallback_decisions == before + 1
                if stop is signal.SIGSTOP:
                    os.kill(failing.pid, signal.SIGCONT)
                    await recover(limiter)

    asyncio.run(hit_all())


async def recover(limiter: ResilientLimiter) -> None:
    for _ in range(200):
        await limiter.probe()
        if limiter.health.up:
            return
        await asyncio.sleep(0.1)
    pytest.fail("the store is not used again")


def test_threads_of_clients_of_healthy_nodes_are_decided_by_the_store(mortal: Cluster) -> None:
    with make_limiter(mortal.url) as store:
        failing = mortal.nodes[0]
        lost = keys_of(mortal, failing)
        kept = [key for key in KEYS if key not in lost]
        limiter = BlockingResilientLimiter(store)
        for key in KEYS:
            limiter.hit(key)
        assert (limiter.health.up, limiter.health.fallback_decisions) == (True, 0)
        os.kill(failing.pid, signal.SIGKILL)
        for _ in range(4):
            limiter.hit(lost[0])
        assert not limiter.health.up
        before = limiter.health.fallback_decisions
        for key in kept:
            limiter.hit(key)
        assert limiter.health.fallback_decisions == before
        limiter.hit(lost[0])
        assert limiter.health.fallback_decisions == before + 1


@only_with_valkey
def test_threads_on_a_node_that_hangs_leave_connections_to_others(cluster: Cluster) -> None:
    failing = cluster.nodes[1]
    lost = keys_of(cluster, failing)
    kept = [key for key in KEYS if key not in lost]
    with ThreadPoolExecutor(32) as pool, make_limiter(cluster.url, deadline=4) as limiter:

        def decide(key: str) -> str:
            try:
                return str(limiter.hit(key).allowed)
            except StoreError as error:
                return error.kind

        assert {*pool.map(decide, KEYS)} == {"True"}
        with stopped(failing):
            failures = [pool.submit(decide, key) for key in (lost * 3)[:20]]
            assert {*pool.map(decide, kept * 5)} == {"True"}
            assert {failure.result() for failure in failures} <= {"timeout", "overload"}
        wait_until(lambda: decide(lost[0]) == "True")


def test_slots_cover_the_cluster(cluster: Cluster) -> None:
    with make_limiter(cluster.url) as limiter:
        limiter.probe()
        nodes = limiter._slots.nodes
        assert len(nodes) == 3
        for address in nodes:
            limiter.probe(address)
        assert {limiter._slots.owner(slot) for slot in range(SLOT_COUNT)} == {*nodes}
