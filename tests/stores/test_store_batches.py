"""Hits that wait together go together, in order, each for itself; and what makes two hits meet in one key."""

from __future__ import annotations

import asyncio
import gc
import resource
import warnings
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest
from valkey_servers import AMPLE, PLENTY, ask, calls, charged, plenty, plenty_async

from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer


async def remaining_of(limiter: AsyncValkeyLimiter, *keys: str) -> list[int]:
    """Return what is left after a hit on each key, all in one turn."""
    try:
        return [decision.remaining for decision in await asyncio.gather(*map(limiter.hit, keys))]
    finally:
        limiter.close()


def test_hits_of_one_turn_are_one_call_and_keep_their_order(store: ValkeyServer) -> None:
    charged(store.url)
    ask(store.url, "CONFIG", "RESETSTAT")
    left = asyncio.run(remaining_of(plenty_async(store.url), *(["alice", "bob"] * 50)))
    assert left == [PLENTY - 1 - number // 2 for number in range(100)]
    assert calls(store.url, "evalsha") == 1


def test_more_hits_than_one_call_takes_are_several_calls_in_order(store: ValkeyServer) -> None:
    charged(store.url)
    ask(store.url, "CONFIG", "RESETSTAT")
    left = asyncio.run(remaining_of(plenty_async(store.url), *(["alice"] * 600)))
    assert left == [*range(PLENTY - 1, PLENTY - 601, -1)]
    assert calls(store.url, "evalsha") == 3


def test_a_server_that_has_lost_the_script_is_told_it_once(store: ValkeyServer) -> None:
    limiter = plenty(store.url)
    for _ in range(3):
        ask(store.url, "SCRIPT", "FLUSH")
        ask(store.url, "CONFIG", "RESETSTAT")
        limiter.hit("alice")
        limiter.hit("alice")
        assert (calls(store.url, "eval"), calls(store.url, "evalsha")) == (1, 2)  # of which one was not known
    limiter.close()
    assert charged(store.url) == 6


def test_a_turn_that_finds_the_script_lost_is_decided_all_the_same(store: ValkeyServer) -> None:
    assert asyncio.run(remaining_of(plenty_async(store.url), *(["alice"] * 5))) == [*range(PLENTY - 1, PLENTY - 6, -1)]
    assert (calls(store.url, "eval"), charged(store.url)) == (1, 5)


def test_a_hit_that_is_cancelled_before_its_turn_ends_is_not_charged(store: ValkeyServer) -> None:
    async def leave() -> int:
        limiter = plenty_async(store.url)
        leaving, staying = (asyncio.create_task(limiter.hit("alice")) for _ in range(2))
        asyncio.get_running_loop().call_soon(leaving.cancel)  # before what the hit has called soon
        decision = await staying
        with pytest.raises(asyncio.CancelledError):
            await leaving
        limiter.close()
        return decision.remaining

    assert asyncio.run(leave()) == PLENTY - 1
    assert charged(store.url) == 1


def test_a_hit_that_is_cancelled_later_takes_nothing_from_those_beside_it(store: ValkeyServer) -> None:
    async def leave() -> list[int]:
        limiter = plenty_async(store.url)
        hits = [asyncio.create_task(limiter.hit("alice")) for _ in range(50)]
        while not limiter._connections:
            await asyncio.sleep(0)
        for hit in hits[::2]:
            hit.cancel()
        left = [(await hit).remaining for hit in hits[1::2]]
        left += [(await limiter.hit("alice")).remaining]
        limiter.close()
        return left

    assert asyncio.run(leave()) == [*range(PLENTY - 2, PLENTY - 51, -2), PLENTY - 51]


# --- who shares a key


def test_a_thread_and_a_task_share_one_quota(store: ValkeyServer) -> None:
    limiter = plenty(store.url)
    assert limiter.hit("alice").remaining == PLENTY - 1
    assert asyncio.run(remaining_of(plenty_async(store.url), "alice", "bob")) == [PLENTY - 2, PLENTY - 1]
    assert limiter.hit("alice").remaining == PLENTY - 3
    limiter.close()


def test_another_algorithm_or_quota_shares_nothing(store: ValkeyServer) -> None:
    policies = [
        (algorithm, rate, burst)
        for algorithm in ("token-bucket", "gcra", "fixed-window")
        for rate in ("1/day", "2/day", "1/h")
        for burst in (5, 6)
    ]
    for algorithm, rate, burst in policies:
        limiter = ValkeyLimiter(store.url, algorithm, rate, burst, AMPLE)
        assert limiter.hit("alice").remaining == burst - 1
        limiter.close()
    assert ask(store.url, "DBSIZE") == len(policies)


def test_a_quota_said_in_other_words_is_the_same(store: ValkeyServer) -> None:
    for spent, rate in enumerate(("60/min", "1/s", "2/2s")):
        limiter = ValkeyLimiter(store.url, "token-bucket", rate, 1000, AMPLE)
        assert limiter.hit("alice", 300).remaining < 1000 - 300 * spent
        limiter.close()
    assert ask(store.url, "DBSIZE") == 1


# --- event loops


def test_a_limiter_goes_on_in_the_next_event_loop(store: ValkeyServer) -> None:
    limiter = plenty_async(store.url, deadline=1)

    async def hit() -> int:
        return (await limiter.hit("alice")).remaining

    async def leave_unanswered() -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(limiter.hit("alice"), 0)

    assert asyncio.run(hit()) == PLENTY - 1  # and nothing is closed
    asyncio.run(leave_unanswered())
    assert asyncio.run(remaining_of(limiter, "alice"))[0] in (PLENTY - 2, PLENTY - 3)
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()  # of the connections of the loops before, which only `close` would have closed


def test_a_limiter_says_that_it_cannot_serve_two_event_loops_at_once(store: ValkeyServer) -> None:
    limiter = plenty_async(store.url)

    async def elsewhere() -> None:
        await limiter.hit("alice")
        with pytest.raises(RuntimeError, match="in use in another event loop: create one limiter for each loop"):
            await asyncio.to_thread(asyncio.run, limiter.hit("alice"))
        assert (await limiter.hit("alice")).remaining == PLENTY - 2
        limiter.close()

    asyncio.run(elsewhere())


def test_a_process_with_many_open_files_decides(store: ValkeyServer, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(before[0], 2000), before[1]))
    limiter = plenty(store.url)
    with ExitStack() as files:
        for _ in range(1100):
            files.enter_context((tmp_path / "file").open("wb"))
        assert [limiter.hit("alice").remaining for _ in range(2)] == [PLENTY - 1, PLENTY - 2]
        limiter.close()
    resource.setrlimit(resource.RLIMIT_NOFILE, before)
