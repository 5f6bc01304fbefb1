"""Limiters that share connections: several limits on one store, over one connection or one pool."""

from __future__ import annotations

import asyncio
import gc
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from durations import LONG
from serve_process import wait_until
from store_setups import Cluster
from valkey_servers import AMPLE_DEADLINE, LARGE_BURST, make_async_limiter, make_limiter, send_command

from ratelab import InputError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

SERVERS = ["valkey"]
LIMITS = ["gcra", "token-bucket", "fixed-window"]


def share(first: ValkeyLimiter) -> list[ValkeyLimiter]:
    """Return `first`, and limiters of several policies that use its connections."""
    return [first, *(ValkeyLimiter(first, name, f"9/{LONG}", deadline=AMPLE_DEADLINE, name=name) for name in LIMITS)]


def share_async(first: AsyncValkeyLimiter) -> list[AsyncValkeyLimiter]:
    return [
        first,
        *(AsyncValkeyLimiter(first, name, f"9/{LONG}", deadline=AMPLE_DEADLINE, name=name) for name in LIMITS),
    ]


def count_clients(store: ValkeyServer) -> int:
    """Return the number of connections to a server, without the one that asks."""
    return int(send_command(store.url, "INFO", "clients")["connected_clients"]) - 1


async def hit_all(limiters: Sequence[AsyncValkeyLimiter]) -> list[int]:
    return [one.remaining for one in await asyncio.gather(*(limiter.hit("alice") for limiter in limiters))]


def test_tasks_use_one_connection_for_all_limits(store: ValkeyServer) -> None:
    async def run() -> None:
        limiters = share_async(make_async_limiter(store.url))
        assert await hit_all(limiters * 2) == [LARGE_BURST - 1, 8, 8, 8, LARGE_BURST - 2, 7, 7, 7]
        assert count_clients(store) == 1
        check_that_the_last_one_closes(store, limiters)

    wait_until(lambda: count_clients(store) == 0)
    asyncio.run(run())


def check_that_the_last_one_closes(store: ValkeyServer, limiters: Sequence[Any]) -> None:
    for limiter in limiters:
        assert count_clients(store) == 1
        limiter.close()


def test_threads_use_one_pool_for_all_limits(store: ValkeyServer) -> None:
    wait_until(lambda: count_clients(store) == 0)
    first = ValkeyLimiter(store.url, "token-bucket", "1/day", LARGE_BURST, AMPLE_DEADLINE, connections=2)
    limiters = share(first)
    with ThreadPoolExecutor(16) as pool:
        hits = [limiter for limiter in limiters for _ in range(9)]
        remaining = [decision.remaining for decision in pool.map(lambda limiter: limiter.hit("alice"), hits)]
    assert [min(remaining[start : start + 9]) for start in (0, 9, 18, 27)] == [LARGE_BURST - 9, 0, 0, 0]
    assert 1 <= count_clients(store) <= 2
    for limiter in limiters[:-1]:
        limiter.close()
        assert limiters[-1].hit("alice", 0).remaining == 0
    assert 1 <= count_clients(store) <= 2
    limiters[-1].close()
    wait_until(lambda: count_clients(store) == 0)


def check_that_a_closed_limiter_leaves_the_others_alone(store: ValkeyServer) -> None:
    async def run() -> None:
        first, *others = share_async(make_async_limiter(store.url))
        hits = [asyncio.ensure_future(limiter.hit("alice")) for limiter in others]
        while not first.connections._opened:
            await asyncio.sleep(0)
        first.close()
        assert [(await hit).remaining for hit in hits] == [8, 8, 8]
        for limiter in others:
            limiter.close()

    asyncio.run(run())


def test_a_closed_limiter_leaves_the_others_alone(store: ValkeyServer) -> None:
    check_that_a_closed_limiter_leaves_the_others_alone(store)


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_limiters_work_together_in_the_next_event_loop(store: ValkeyServer) -> None:
    limiters = share_async(make_async_limiter(store.url))
    for number in range(1, 5):
        in_order = limiters[:: 1 if number % 2 else -1]  # either the first or another one is first in the new loop
        remaining = asyncio.run(hit_all(in_order))
        assert sorted(remaining) == [*[9 - number] * 3, LARGE_BURST - number]
    for limiter in limiters:
        limiter.close()
    gc.collect()  # connections of the earlier loops


def test_a_limiter_that_is_collected_does_not_keep_connections_open(store: ValkeyServer) -> None:
    wait_until(lambda: count_clients(store) == 0)
    first = make_limiter(store.url)
    share(first)[1].hit("alice")
    gc.collect()
    assert count_clients(store) == 1
    first.close()
    wait_until(lambda: count_clients(store) == 0)


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_limiters_of_a_forked_child_share_their_own_connection(store: ValkeyServer) -> None:
    limiters = share(make_limiter(store.url))
    assert [limiter.hit("alice").remaining for limiter in limiters] == [LARGE_BURST - 1, 8, 8, 8]
    child = os.fork()
    if not child:
        remaining = [limiter.hit("alice").remaining for limiter in limiters]
        os._exit(0 if remaining == [LARGE_BURST - 2, 7, 7, 7] else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert [limiter.hit("alice").remaining for limiter in limiters] == [LARGE_BURST - 3, 6, 6, 6]
    for limiter in limiters:
        limiter.close()


@pytest.mark.slow
def test_limiters_on_a_cluster_share_what_they_know_of_it(cluster: Cluster) -> None:
    limiters = share(make_limiter(cluster.url))
    for number in range(20):
        expected = [LARGE_BURST - 1, 8, 8, 8]
        assert [limiter.hit(f"client {number}").remaining for limiter in limiters] == expected
    assert len({*(id(limiter._slots) for limiter in limiters)}) == 1
    for limiter in limiters:
        limiter.close()


@pytest.mark.parametrize("other", [7, None, b"valkey://host"])
@pytest.mark.parametrize("limiter", [ValkeyLimiter, AsyncValkeyLimiter])
def test_other_objects_are_rejected(limiter: Any, other: object) -> None:
    with pytest.raises(InputError, match="store must be a URL, or a limiter of the same class, got"):
        limiter(other, "gcra", "2/s")
    wrong = (AsyncValkeyLimiter if limiter is ValkeyLimiter else ValkeyLimiter)("valkey://host", "gcra", "2/s")
    with pytest.raises(InputError, match="store must be a URL, or a limiter of the same class, got"):
        limiter(wrong, "gcra", "2/s")
