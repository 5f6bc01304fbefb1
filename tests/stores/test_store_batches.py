"""Batches of asyncio hits, lost scripts, keys of policies, and event loops."""

from __future__ import annotations

import asyncio
import gc
import resource
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from valkey_servers import (
    AMPLE_DEADLINE,
    LARGE_BURST,
    charged_cost,
    count_calls,
    make_async_limiter,
    make_limiter,
    send_command,
)

from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer


async def hit_together(limiter: AsyncValkeyLimiter, *keys: str) -> list[int]:
    """Hit all keys in one iteration of the loop; return `remaining` of each."""
    try:
        return [decision.remaining for decision in await asyncio.gather(*map(limiter.hit, keys))]
    finally:
        limiter.close()


def test_hits_of_one_iteration_are_one_call_in_order(store: ValkeyServer) -> None:
    charged_cost(store.url)
    send_command(store.url, "CONFIG", "RESETSTAT")
    remaining = asyncio.run(hit_together(make_async_limiter(store.url), *(["alice", "bob"] * 50)))
    assert remaining == [LARGE_BURST - 1 - number // 2 for number in range(100)]
    assert count_calls(store.url, "evalsha") == 1


def test_a_large_batch_is_several_calls_in_order(store: ValkeyServer) -> None:
    charged_cost(store.url)
    send_command(store.url, "CONFIG", "RESETSTAT")
    remaining = asyncio.run(hit_together(make_async_limiter(store.url), *(["alice"] * 600)))
    assert remaining == [*range(LARGE_BURST - 1, LARGE_BURST - 601, -1)]
    assert count_calls(store.url, "evalsha") == 3


def test_a_reset_is_in_order_with_the_hits_of_its_iteration(store: ValkeyServer) -> None:
    async def reset_between() -> list[int]:
        async with make_async_limiter(store.url) as limiter:
            calls = [limiter.hit("alice", 7), limiter.hit("bob"), limiter.reset("alice"), limiter.hit("alice")]
            outcomes = await asyncio.gather(*calls, limiter.hit("bob", 0))
            return [outcome.remaining for outcome in outcomes if outcome is not None]

    assert asyncio.run(reset_between()) == [LARGE_BURST - cost for cost in (7, 1, 1, 1)]


def test_a_server_that_has_lost_the_script_receives_it_once(store: ValkeyServer) -> None:
    limiter = make_limiter(store.url)
    for _ in range(3):
        send_command(store.url, "SCRIPT", "FLUSH")
        send_command(store.url, "CONFIG", "RESETSTAT")
        limiter.hit("alice")
        limiter.hit("alice")
        # the first EVALSHA fails
        assert (count_calls(store.url, "eval"), count_calls(store.url, "evalsha")) == (1, 2)
    limiter.close()
    assert charged_cost(store.url) == 6


def test_a_batch_is_decided_although_the_script_is_lost(store: ValkeyServer) -> None:
    remaining = asyncio.run(hit_together(make_async_limiter(store.url), *(["alice"] * 5)))
    assert remaining == [*range(LARGE_BURST - 1, LARGE_BURST - 6, -1)]
    assert (count_calls(store.url, "eval"), charged_cost(store.url)) == (1, 5)


def test_a_hit_cancelled_within_its_iteration_is_not_charged(store: ValkeyServer) -> None:
    async def cancel() -> int:
        limiter = make_async_limiter(store.url)
        cancelled, other = (asyncio.create_task(limiter.hit("alice")) for _ in range(2))
        asyncio.get_running_loop().call_soon(cancelled.cancel)  # before the batch is sent
        decision = await other
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        limiter.close()
        return decision.remaining

    assert asyncio.run(cancel()) == LARGE_BURST - 1
    assert charged_cost(store.url) == 1


def test_a_hit_cancelled_later_leaves_the_rest_of_its_batch_alone(store: ValkeyServer) -> None:
    async def cancel() -> list[int]:
        limiter = make_async_limiter(store.url)
        hits = [asyncio.create_task(limiter.hit("alice")) for _ in range(50)]
        while not limiter.connections._opened:
            await asyncio.sleep(0)
        for hit in hits[::2]:
            hit.cancel()
        remaining = [(await hit).remaining for hit in hits[1::2]]
        remaining += [(await limiter.hit("alice")).remaining]
        limiter.close()
        return remaining

    assert asyncio.run(cancel()) == [*range(LARGE_BURST - 2, LARGE_BURST - 51, -2), LARGE_BURST - 51]


# --- keys of policies


def test_threads_and_tasks_share_one_quota(store: ValkeyServer) -> None:
    limiter = make_limiter(store.url)
    assert limiter.hit("alice").remaining == LARGE_BURST - 1
    remaining = asyncio.run(hit_together(make_async_limiter(store.url), "alice", "bob"))
    assert remaining == [LARGE_BURST - 2, LARGE_BURST - 1]
    assert limiter.hit("alice").remaining == LARGE_BURST - 3
    limiter.close()


def test_different_algorithms_and_quotas_share_nothing(store: ValkeyServer) -> None:
    policies = [
        (algorithm, rate, burst)
        for algorithm in ("token-bucket", "gcra", "fixed-window")
        for rate in ("1/day", "2/day", "1/h")
        for burst in (5, 6)
    ]
    for algorithm, rate, burst in policies:
        with ValkeyLimiter(store.url, algorithm, rate, burst, AMPLE_DEADLINE) as limiter:
            assert limiter.hit("alice").remaining == burst - 1
    assert send_command(store.url, "DBSIZE") == len(policies)


def test_equal_quotas_share_their_keys_however_they_are_written(store: ValkeyServer) -> None:
    for spent, rate in enumerate(("60/min", "1/s", "2/2s")):
        with ValkeyLimiter(store.url, "token-bucket", rate, 1000, AMPLE_DEADLINE) as limiter:
            assert limiter.hit("alice", 300).remaining < 1000 - 300 * spent
    assert send_command(store.url, "DBSIZE") == 1


# --- event loops


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_a_limiter_works_in_the_next_event_loop(store: ValkeyServer) -> None:
    limiter = make_async_limiter(store.url)

    async def hit() -> int:
        return (await limiter.hit("alice")).remaining

    async def abandon_hit() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(limiter.hit("alice"), 0)

    assert asyncio.run(hit()) == LARGE_BURST - 1  # and nothing is closed
    asyncio.run(abandon_hit())
    assert asyncio.run(hit_together(limiter, "alice"))[0] in (LARGE_BURST - 2, LARGE_BURST - 3)
    gc.collect()  # connections of the earlier loops, which only `close` would have closed


def test_a_limiter_rejects_a_second_event_loop_at_the_same_time(store: ValkeyServer) -> None:
    limiter = make_async_limiter(store.url)

    async def use_elsewhere() -> None:
        await limiter.hit("alice")
        with pytest.raises(RuntimeError, match="in use in another event loop: create one limiter for each loop"):
            await asyncio.to_thread(asyncio.run, limiter.hit("alice"))
        assert (await limiter.hit("alice")).remaining == LARGE_BURST - 2
        limiter.close()

    asyncio.run(use_elsewhere())


def test_a_limiter_works_in_a_process_with_many_open_files(store: ValkeyServer, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2000), before[1]))
    limiter = make_limiter(store.url)
    with ExitStack() as files:
        for _ in range(1100):
            files.enter_context((tmp_path / "file").open("wb"))
        assert [limiter.hit("alice").remaining for _ in range(2)] == [LARGE_BURST - 1, LARGE_BURST - 2]
        limiter.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
