"""Deadlines of store decisions, measured without depending on the speed of the machine.

For a store that stays silent, an event loop with simulated time shows when the error comes. For one that replies with
an error at once, the deadline is ample, so that a slow machine cannot turn that error into a timeout.
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
from flaky_proxy import Proxy, run_flaky_proxy
from invalid_stores import INVALID_STORES, InvalidStore, stopped
from valkey_servers import AMPLE_DEADLINE, LARGE_BURST, charged_cost, make_async_limiter, make_limiter

from ratelab import Decision
from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, connection_pool, sync_limiter
from ratelab.stores.valkey.server import ValkeyServer

SERVERS = ["valkey"]
DEADLINE = 0.05
LOOP_SLACK_S = 0.002
"""Seconds after a deadline during which a loop may read replies that have arrived."""

BEAT_S = 0.005
BLOCKING_METHODS = ("connect", "recv", "recv_into", "send", "sendall")


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
        for name in BLOCKING_METHODS:
            method = guarded(getattr(socket.socket, name), lambda opened, *_: opened.gettimeout() != 0)
            patches.enter_context(patch.object(socket.socket, name, method))
        yield


def error_kind(call: Callable[[], Decision]) -> str:
    """Return the kind of the error that a call raises, empty for a decision."""
    try:
        call()
    except StoreError as error:
        return error.kind
    return ""


async def async_error_kind(limiter: AsyncValkeyLimiter, deadline: float) -> str:
    """Return the same for a hit in a task; check that the loop's time does not exceed the deadline."""
    loop = asyncio.get_running_loop()
    began = loop.time()
    try:
        await limiter.hit("alice")
        kind = ""
    except StoreError as error:
        kind = error.kind
    assert loop.time() - began <= deadline + LOOP_SLACK_S
    return kind


async def beat(beats: list[float]) -> None:
    """Append the loop's time at each beat, until cancelled."""
    while True:
        await asyncio.sleep(BEAT_S)
        beats.append(asyncio.get_running_loop().time())


def deadline_for(invalid: InvalidStore) -> float:
    return DEADLINE if INVALID_STORES[invalid] == "timeout" else AMPLE_DEADLINE


every_invalid_store = pytest.mark.parametrize("invalid", INVALID_STORES, ids=lambda invalid: invalid.__name__)


@every_invalid_store
def test_a_thread_gets_an_error_of_the_right_kind_in_time(store: ValkeyServer, invalid: InvalidStore) -> None:
    with invalid(store) as url:
        limiter = make_limiter(url, deadline_for(invalid))
        began = time.monotonic()
        assert [error_kind(partial(limiter.hit, "alice")) for _ in range(2)] == [INVALID_STORES[invalid]] * 2
        assert time.monotonic() - began < AMPLE_DEADLINE
        limiter.close()
    assert charged_cost(store.url) <= 2


@every_invalid_store
def test_tasks_get_errors_in_time_and_their_loop_is_not_blocked(store: ValkeyServer, invalid: InvalidStore) -> None:
    deadline = deadline_for(invalid)

    async def hit_together(url: str) -> list[str]:
        limiter = make_async_limiter(url, deadline)
        beats: list[float] = []
        heart = asyncio.create_task(beat(beats))
        kinds: list[str] = []
        with no_blocking_calls():
            for _ in range(2):
                kinds += await asyncio.gather(*(async_error_kind(limiter, deadline) for _ in range(20)))
        heart.cancel()
        limiter.close()
        assert len(beats) >= 2 * (DEADLINE / BEAT_S - 1) or deadline == AMPLE_DEADLINE
        return kinds

    with invalid(store) as url:
        run = run_simulated if deadline == DEADLINE else asyncio.run
        assert run(hit_together(url)) == [INVALID_STORES[invalid]] * 40
    assert charged_cost(store.url) <= 40


def test_a_thread_waits_for_a_connection_while_time_is_left(store: ValkeyServer) -> None:
    waits: list[float] = []

    class BusyLock:
        def acquire(self, timeout: float = 0) -> None:
            waits.append(timeout)

    time_stands_still = SimpleNamespace(monotonic=lambda: 100.0)
    with (
        patch.object(sync_limiter, "time", time_stands_still),
        patch.object(connection_pool, "time", time_stands_still),
    ):
        limiter = make_limiter(store.url, DEADLINE)
        limiter.pools._size = 0  # every connection is in use
        with patch.object(connection_pool, "Lock", BusyLock), pytest.raises(StoreError, match="not charged") as raised:
            limiter.hit("alice")
    assert (raised.value.kind, waits) == ("overload", [0, pytest.approx(DEADLINE * 3 / 4)])


def test_all_threads_that_wait_for_a_connection_get_an_error(store: ValkeyServer) -> None:
    with stopped(store) as url, ThreadPoolExecutor(64) as pool:
        limiter = make_limiter(url, DEADLINE)
        began = time.monotonic()
        kinds = list(pool.map(error_kind, [partial(limiter.hit, "alice")] * 192))
        assert {*kinds} == {"timeout", "overload"}
        assert time.monotonic() - began < AMPLE_DEADLINE
        limiter.close()


def test_each_hit_has_a_separate_deadline(store: ValkeyServer) -> None:
    deadlines = (DEADLINE, 3 * DEADLINE)

    async def hit_both(url: str) -> list[str]:
        limiters = [make_async_limiter(url, deadline) for deadline in deadlines]
        return await asyncio.gather(*map(async_error_kind, limiters, deadlines))

    with stopped(store) as url:
        assert run_simulated(hit_both(url)) == ["timeout"] * 2


def test_after_a_timeout_the_next_hit_uses_a_new_connection(store: ValkeyServer) -> None:
    limiter = make_limiter(store.url)
    limiter.hit("alice")
    with stopped(store), patch.object(limiter, "_deadline", DEADLINE):
        assert error_kind(partial(limiter.hit, "alice")) == "timeout"
    assert charged_cost(store.url) == LARGE_BURST - limiter.hit("alice", 0).remaining
    limiter.close()


def test_cancelled_hits_do_not_keep_a_dead_connection_in_use(store: ValkeyServer) -> None:
    async def hit_and_cancel(url: str, proxy: Proxy) -> None:
        limiter = make_async_limiter(url, DEADLINE)
        for _ in range(40):
            with pytest.raises((TimeoutError, StoreError)):
                await asyncio.wait_for(limiter.hit("alice"), DEADLINE / 2)
            if proxy.connections > 1:
                break
        limiter.close()
        assert proxy.connections > 1

    with run_flaky_proxy(store.url, then=("stall",)) as (url, proxy):
        asyncio.run(hit_and_cancel(url, proxy))
