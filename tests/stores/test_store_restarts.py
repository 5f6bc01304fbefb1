"""A store that dies, comes back or forgets costs at most a burst, raises nothing, and is found again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from serve_process import wait_until
from valkey_servers import ask, running

from ratelab.errors import StoreError
from ratelab.limiter import AsyncLimiter, Decision
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

pytestmark = pytest.mark.slow

BURST = 50
TASKS = 8
LOSSES = 10
PROMISED = 30
"""Seconds in which the shared state is asked again; two of them on a machine that is not busy."""


class Load:
    """Tasks in a thread of their own that hit one key without end, and what came of it."""

    def __init__(self, url: str, resilient: bool) -> None:
        self._url, self._resilient = url, resilient
        self._ended = Event()
        self.outcomes: Counter[str] = Counter()
        """Hits that were allowed, denied and answered by a `StoreError`."""
        self.unhandled: list[BaseException] = []
        self.shared = 0
        """Decisions of the store itself."""

    def run(self) -> None:
        try:
            asyncio.run(self._hit_all())
        except BaseException as error:
            self.unhandled.append(error)

    def stop(self) -> None:
        self._ended.set()

    async def _hit_all(self) -> None:
        store = AsyncValkeyLimiter(self._url, "token-bucket", "1/day", BURST)
        counting = _Counting(store, self)
        limiter: AsyncLimiter = ResilientLimiter(counting, "local") if self._resilient else counting
        asyncio.get_running_loop().set_exception_handler(lambda _, told: self.unhandled.append(told["exception"]))
        await asyncio.gather(*(self._hit(limiter) for _ in range(TASKS)))
        store.close()

    async def _hit(self, limiter: AsyncLimiter) -> None:
        while not self._ended.is_set():
            try:
                outcome = "allowed" if (await limiter.hit("alice")).allowed else "denied"
            except StoreError as error:
                outcome = error.kind
            self.outcomes[outcome] += 1
            await asyncio.sleep(0.001)


class _Counting:
    """Counts what the store itself decides."""

    def __init__(self, limiter: AsyncValkeyLimiter, load: Load) -> None:
        self.policy = limiter.policy
        self._limiter, self._load = limiter, load

    async def hit(self, key: str, cost: int = 1) -> Decision:
        decision = await self._limiter.hit(key, cost)
        self._load.shared += 1
        return decision


@contextmanager
def under_load(url: str, resilient: bool) -> Iterator[Load]:
    load = Load(url, resilient)
    thread = Thread(target=load.run)
    thread.start()
    try:
        wait_until(lambda: load.outcomes["denied"] > TASKS)
        yield load
    finally:
        load.stop()
        thread.join()


def kill_and_start_again(server: ValkeyServer) -> None:
    server.stop()
    server.start()


def lose_the_script(server: ValkeyServer) -> None:
    ask(server.url, "SCRIPT", "FLUSH")


def lose_the_keys(server: ValkeyServer) -> None:
    ask(server.url, "FLUSHALL")


BEHIND = pytest.mark.parametrize("resilient", [False, True], ids=["bare", "resilient"])


@BEHIND
@pytest.mark.parametrize(
    ("lose", "bursts"), [(kill_and_start_again, LOSSES), (lose_the_script, 0), (lose_the_keys, LOSSES)]
)
def test_each_loss_costs_a_burst_and_the_store_is_back_in_time(
    lose: Callable[[ValkeyServer], None], bursts: int, resilient: bool
) -> None:
    with running() as server, under_load(server.url, resilient) as load:
        for _ in range(LOSSES):
            lose(server)
            lost, before = time.monotonic(), load.shared
            wait_until(lambda before=before: load.shared > before + 2 * TASKS)  # type: ignore[misc]
            assert time.monotonic() - lost < PROMISED
    local = BURST if resilient else 0
    assert load.unhandled == []
    assert BURST <= load.outcomes["allowed"] <= BURST + bursts * BURST + local
    assert load.outcomes.keys() <= {"allowed", "denied", *(() if resilient else ("unreachable", "timeout"))}
