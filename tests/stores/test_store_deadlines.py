"""Deadlines of store decisions, measured without depending on the speed of the machine.

Where a store stays silent, an event loop with simulated time shows when the error comes. Where it replies with an
error at once, the deadline is ample, so that a slow machine cannot turn that error into a timeout.
"""

from __future__ import annotations

import asyncio
import selectors
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from threading import get_ident
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

import pytest
from flaky_proxy import Network, network
from invalid_stores import BAD_STORES, BadStore, stopped
from valkey_servers import AMPLE, PLENTY, charged, plenty, plenty_async

from ratelab import Decision
from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter, sync_limiter
from ratelab.stores.valkey.server import ValkeyServer

DEADLINE = 0.05
LOOP_SLACK = 0.002
"""Seconds after a deadline until which a loop may read replies that have come."""

BEAT = 0.005
BLOCKING = ("connect", "recv", "recv_into", "send", "sendall")


class _JumpingSelector(selectors.DefaultSelector):
    """A selector that never waits: if nothing is ready, its clock jumps to the end of the wait."""

    now = 0.0

    def select(self, timeout: float | None = None) -> Any:
        ready = super().select(0)
        if not ready and timeout is None:
            return super().select()
        if not ready and timeout:
            self.now += timeout
        return ready


class SimulatedLoop(asyncio.SelectorEventLoop):
    """An event loop whose time passes only while nothing can be done."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now


def run_simulated(work: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine in a simulated loop."""
    with asyncio.Runner(loop_factory=SimulatedLoop) as runner:
        return runner.run(work)


@contextmanager
def no_blocking_calls() -> Iterator[None]:
    """Fail this thread's calls that would hold up its event loop: sleeping, name lookups, blocking sockets."""
    loop_thread = get_ident()

    def guarded(function: Callable[..., Any], blocks: Callable[..., bool]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            assert get_ident() != loop_thread or not blocks(*arguments), f"{function} holds up the event loop"
            return function(*arguments, **named)

        return call

    with ExitStack() as patches:
        for owner, name in ((time, "sleep"), (socket, "getaddrinfo")):
            patches.enter_context(patch.object(owner, name, guarded(getattr(owner, name), lambda *_: True)))
        for name in BLOCKING:
            method = guarded(getattr(socket.socket, name), lambda opened, *_: opened.gettimeout() != 0)
            patches.enter_context(patch.object(socket.socket, name, method))
        yield


def outcome(call: Callable[[], Decision]) -> str:
    """Return the kind of the error that a call raises, empty for a decision."""
    try:
        call()
    except StoreError as error:
        return error.kind
    return ""


async def outcome_async(limiter: AsyncValkeyLimiter, deadline: float) -> str:
    """Return the same for a task, whose loop must not show a later time than the deadline."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await limiter.hit("alice")
        kind = ""
    except StoreError as error:
        kind = error.kind
    assert loop.time() - began <= deadline + LOOP_SLACK
    return kind


async def beat(beats: list[float]) -> None:
    """Note the loop's time at each beat, for as long as the loop runs."""
    while True:
        await asyncio.sleep(BEAT)
        beats.append(asyncio.get_running_loop().time())


def deadline_for(bad: BadStore) -> float:
    return DEADLINE if BAD_STORES[bad] == "timeout" else AMPLE


BAD = pytest.mark.parametrize("bad", BAD_STORES, ids=lambda bad: bad.__name__)


@BAD
def test_a_thread_is_told_in_time_why_there_is_no_decision(store: ValkeyServer, bad: BadStore) -> None:
    with bad(store) as url:
        limiter = plenty(url, deadline_for(bad))
        began = time.monotonic()
        assert [outcome(partial(limiter.hit, "alice")) for _ in range(2)] == [BAD_STORES[bad]] * 2
        assert time.monotonic() - began < AMPLE
        limiter.close()
    assert charged(store.url) <= 2


@BAD
def test_a_crowd_of_tasks_is_told_in_time_and_the_loop_goes_on(store: ValkeyServer, bad: BadStore) -> None:
    deadline = deadline_for(bad)

    async def crowd(url: str) -> list[str]:
        limiter = plenty_async(url, deadline)
        beats: list[float] = []
        heart = asyncio.create_task(beat(beats))
        outcomes: list[str] = []
        with no_blocking_calls():
            for _ in range(2):
                outcomes += await asyncio.gather(*(outcome_async(limiter, deadline) for _ in range(20)))
        heart.cancel()
        limiter.close()
        assert len(beats) >= 2 * (DEADLINE / BEAT - 1) or deadline == AMPLE
        return outcomes

    with bad(store) as url:
        run = run_simulated if deadline == DEADLINE else asyncio.run
        assert run(crowd(url)) == [BAD_STORES[bad]] * 40
    assert charged(store.url) <= 40


def test_a_thread_waits_for_a_connection_no_longer_than_its_deadline(store: ValkeyServer) -> None:
    clock = SimpleNamespace(now=0.0)

    def wait(seconds: float) -> None:
        clock.now += seconds

    with patch.object(sync_limiter, "time", SimpleNamespace(monotonic=lambda: clock.now)):
        limiter = plenty(store.url, DEADLINE)
        limiter._idle.clear()  # every connection is in use
        with patch.object(limiter._freed, "wait", wait), pytest.raises(StoreError, match="no connection") as raised:
            limiter.hit("alice")
    assert (raised.value.kind, clock.now) == ("timeout", DEADLINE)


def test_threads_that_wait_for_a_connection_are_all_told(store: ValkeyServer) -> None:
    with stopped(store) as url, ThreadPoolExecutor(64) as pool:
        limiter = plenty(url, DEADLINE)
        began = time.monotonic()
        assert list(pool.map(outcome, [partial(limiter.hit, "alice")] * 192)) == ["timeout"] * 192
        assert time.monotonic() - began < AMPLE
        limiter.close()


def test_each_hit_has_a_deadline_of_its_own(store: ValkeyServer) -> None:
    deadlines = (DEADLINE, 3 * DEADLINE)

    async def both(url: str) -> list[str]:
        limiters = [plenty_async(url, deadline) for deadline in deadlines]
        return await asyncio.gather(*map(outcome_async, limiters, deadlines))

    with stopped(store) as url:
        assert run_simulated(both(url)) == ["timeout"] * 2


def test_a_store_that_goes_on_is_asked_again_on_a_new_connection(store: ValkeyServer) -> None:
    limiter = plenty(store.url)
    limiter.hit("alice")
    with stopped(store), patch.object(limiter, "_deadline", DEADLINE):
        assert outcome(partial(limiter.hit, "alice")) == "timeout"
    assert charged(store.url) == PLENTY - limiter.hit("alice", 0).remaining
    limiter.close()


def test_those_who_leave_early_do_not_keep_a_dead_connection_in_use(store: ValkeyServer) -> None:
    async def impatient(url: str, carrier: Network) -> None:
        limiter = plenty_async(url, DEADLINE)
        for _ in range(40):
            with pytest.raises((TimeoutError, StoreError)):
                await asyncio.wait_for(limiter.hit("alice"), DEADLINE / 2)
            if carrier.connections > 1:
                break
        limiter.close()
        assert carrier.connections > 1

    with network(store.url, then=("stall",)) as (url, carrier):
        asyncio.run(impatient(url, carrier))


# --- crowds


def test_600_tasks_at_once_get_a_quota_of_100_exactly(store: ValkeyServer) -> None:
    async def crowd() -> list[Decision]:
        limiter = AsyncValkeyLimiter(store.url, "token-bucket", "1/day", 100, AMPLE)
        decisions = await asyncio.gather(*(limiter.hit("alice") for _ in range(600)))
        limiter.close()
        return decisions

    assert [decision.allowed for decision in asyncio.run(crowd())] == [True] * 100 + [False] * 500


def test_600_calls_of_64_threads_over_16_connections_get_a_quota_of_100_exactly(store: ValkeyServer) -> None:
    with ValkeyLimiter(store.url, "token-bucket", "1/day", 100, AMPLE) as limiter, ThreadPoolExecutor(64) as pool:
        decisions = list(pool.map(lambda _: limiter.hit("alice"), range(600)))
    assert sum(decision.allowed for decision in decisions) == 100
