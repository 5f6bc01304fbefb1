"""Eight processes that share a quota are granted it exactly once, by every algorithm."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from multiprocessing.pool import Pool
from struct import pack, unpack
from typing import Any
from unittest.mock import patch

import pytest
from lua_scripts import SCRIPTED
from valkey import Valkey

from ratelab import ALGORITHMS, Decision, Policy, Quota, create
from ratelab.stores.valkey import ValkeyLimiter
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.server import ValkeyServer

PROCESSES, HITS, BURST = 8, 200, 100

RATE = "100/365day"
"""So slow that nothing is restored during a test, and no window ends."""


@pytest.fixture(scope="module")
def processes() -> Iterator[Pool]:
    context = multiprocessing.get_context("spawn")
    with context.Pool(PROCESSES, initializer=set_barrier, initargs=(context.Barrier(PROCESSES),)) as pool:
        yield pool


def set_barrier(barrier: Any) -> None:
    globals()["barrier"] = barrier


def hit(url: str, name: str, key: str) -> list[bytes]:
    """Hit a key at the same time as the other processes; return the replies."""
    replies: list[bytes] = []
    decode = Script.decode

    def decode_and_keep(script: Script, reply: bytes) -> list[Decision]:
        replies.append(reply)
        return decode(script, reply)

    with patch.object(Script, "decode", decode_and_keep), ValkeyLimiter(url, name, RATE, BURST, deadline=30) as limiter:
        globals()["barrier"].wait(120)
        for _ in range(HITS):
            limiter.hit(key)
    return replies


def hit_with_race(url: str, name: str, key: str) -> list[bytes]:
    """Do the same with a limiter that reads a key's state, decides, and writes it back."""
    script = Script(create(name, RATE, BURST))
    kernel = ALGORITHMS[name].from_quota(Quota.parse(RATE, BURST))
    replies = []
    with Valkey.from_url(url) as client:
        globals()["barrier"].wait(120)
        for _ in range(HITS):
            stored: Any = client.get(script.key(key))
            state = [*map(int, stored.split())] if stored else kernel.start(0)
            allowed, *others = kernel.step(state, 0, 1)
            client.set(script.key(key), " ".join(map(str, state)))
            replies.append(pack(">7q", 0, 0, allowed, *others))
    return replies


def histories(processes: Pool, store: ValkeyServer, name: str, key: str, work: Any = hit) -> list[list[int]]:
    """Return the integers of every reply, in the order of the server's time."""
    replies = processes.starmap(work, [(store.url, name, key)] * PROCESSES, chunksize=1)
    return sorted([*unpack(">7q", reply)] for each in replies for reply in each)


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTED)
def test_eight_processes_are_granted_the_quota_once(name: str, processes: Pool, store: ValkeyServer) -> None:
    history = histories(processes, store, name, "alice")
    assert len(history) == PROCESSES * HITS
    assert sum(allowed for _, _, allowed, *_ in history) == BURST
    check_against_kernel(name, history)


def check_against_kernel(name: str, history: list[list[int]]) -> None:
    """Check the server's decisions with the Python kernel at the server's times."""
    quota = Quota.parse(RATE, BURST)
    kernel = ALGORITHMS[name].from_quota(Quota(quota.limit * 1000, quota.period, quota.burst))
    seconds, microseconds, *_ = history[0]
    state = kernel.start(seconds * 10**6 + microseconds)
    for seconds, microseconds, *decided in history:
        allowed, *others = kernel.step(state, seconds * 10**6 + microseconds, 1)
        assert [int(allowed), *others] == decided


@pytest.mark.slow
def test_a_limiter_with_a_race_is_caught(processes: Pool, store: ValkeyServer) -> None:
    history = histories(processes, store, "token-bucket", "racy", hit_with_race)
    assert sum(allowed for _, _, allowed, *_ in history) > BURST


# --- several policies


def create_pair(name: str) -> list[Policy]:
    return [
        Policy.create(name, RATE, BURST, name="small"),
        Policy.create("sliding-log", RATE, 3 * BURST, name="large"),
    ]


def hit_policies(url: str, name: str, key: str) -> list[tuple[bool, str | None]]:
    """Hit two policies at the same time as the other processes; return whether each hit was allowed, and what bound it.

    Some hits reserve two units and settle at one.
    """
    outcomes = []
    with ValkeyLimiter(url, create_pair(name), deadline=30, name="shared") as limiter:
        globals()["barrier"].wait(120)
        for number in range(HITS):
            if number % 4 == 3:
                ticket = limiter.reserve(key, 2)
                ticket.settle(1)
                outcomes.append((ticket.allowed, ticket.decision.bound_by))
            else:
                decision = limiter.hit(key)
                outcomes.append((decision.allowed, decision.bound_by))
    return outcomes


@pytest.mark.slow
@pytest.mark.parametrize("name", SCRIPTED)
def test_eight_processes_are_granted_the_smaller_of_two_quotas(name: str, processes: Pool, store: ValkeyServer) -> None:
    each = processes.starmap(hit_policies, [(store.url, name, "alice")] * PROCESSES, chunksize=1)
    outcomes = [outcome for one in each for outcome in one]
    assert len(outcomes) == PROCESSES * HITS
    assert sum(allowed for allowed, _ in outcomes) == BURST
    assert {bound_by for _, bound_by in outcomes} == {None, "small"}
    with ValkeyLimiter(store.url, create_pair(name), deadline=30, name="shared") as limiter:
        assert [one.remaining for one in limiter.hit_each("alice", 0)[1]] == [0, 2 * BURST]
