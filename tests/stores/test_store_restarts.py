"""A store that restarts or loses its keys grants at most a burst more, and limiters find it again."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Event, Thread

import pytest
from serve_process import wait_until
from valkey_servers import run_valkey, send_command

from ratelab.errors import StoreError
from ratelab.limiter import AsyncLimiter, Costs, Decision, Keys
from ratelab.stores.resilient import ResilientLimiter
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

pytestmark = pytest.mark.slow

BURST = 50
TASKS = 8
LOSSES = 4
MAX_OUTAGE_S = 30
"""Seconds within which the store decides again; two on a machine that is not busy."""


class Load:
    """Tasks in a thread that hit one key until they are stopped, and the outcomes."""

    def __init__(self, url: str, resilient: bool) -> None:
        self._url, self._resilient = url, resilient
        self._stopping = Event()
        self.outcomes: Counter[str] = Counter()
        """Hits that were allowed or denied, and `StoreError`s by kind."""
        self.unhandled: list[BaseException] = []
        self.decisions = 0
        """Decisions of the store itself."""

    def run(self) -> None:
        try:
            asyncio.run(self._run_tasks())
        except BaseException as error:
            self.unhandled.append(error)

    def stop(self) -> None:
        self._stopping.set()

    async def _run_tasks(self) -> None:
        store = AsyncValkeyLimiter(self._url, "token-bucket", "1/day", BURST)
        store_with_count = CountingStore(store, self)
        limiter: AsyncLimiter = ResilientLimiter(store_with_count, "local") if self._resilient else store_with_count
        asyncio.get_running_loop().set_exception_handler(lambda _, event: self.unhandled.append(event["exception"]))
        await asyncio.gather(*(self._hit(limiter) for _ in range(TASKS)))
        store.close()

    async def _hit(self, limiter: AsyncLimiter) -> None:
        while not self._stopping.is_set():
            try:
                outcome = "allowed" if (await limiter.hit("alice")).allowed else "denied"
            except StoreError as error:
                outcome = error.kind
            self.outcomes[outcome] += 1
            await asyncio.sleep(0.001)


class CountingStore:
    """Counts the decisions of the store itself."""

    def __init__(self, limiter: AsyncValkeyLimiter, load: Load) -> None:
        self.policy, self.policies = limiter.policy, limiter.policies
        self._limiter, self._load = limiter, load

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        decision = await self._limiter.hit(key, cost)
        self._load.decisions += 1
        return decision

    async def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
        decision = await self.hit(key, cost)
        return decision, (decision,)


@contextmanager
def apply_load(url: str, resilient: bool) -> Iterator[Load]:
    load = Load(url, resilient)
    thread = Thread(target=load.run)
    thread.start()
    try:
        wait_until(lambda: load.outcomes["denied"] > TASKS)
        yield load
    finally:
        load.stop()
        thread.join()


def restart(server: ValkeyServer) -> None:
    server.stop()
    server.start()


def lose_script(server: ValkeyServer) -> None:
    send_command(server.url, "SCRIPT", "FLUSH")


def lose_keys(server: ValkeyServer) -> None:
    send_command(server.url, "FLUSHALL")


bare_and_resilient = pytest.mark.parametrize("resilient", [False, True], ids=["bare", "resilient"])


@bare_and_resilient
@pytest.mark.parametrize(("lose", "bursts"), [(restart, LOSSES), (lose_script, 0), (lose_keys, LOSSES)])
def test_each_loss_grants_at_most_a_burst_and_the_store_is_back_in_time(
    lose: Callable[[ValkeyServer], None], bursts: int, resilient: bool
) -> None:
    with run_valkey() as server, apply_load(server.url, resilient) as load:
        for _ in range(LOSSES):
            lose(server)
            lost, before = time.monotonic(), load.decisions
            wait_until(lambda before=before: load.decisions > before + 2 * TASKS)  # type: ignore[misc]
            assert time.monotonic() - lost < MAX_OUTAGE_S
    local = BURST if resilient else 0
    assert load.unhandled == []
    unanswered = sum(load.outcomes.values()) - load.outcomes["allowed"] - load.outcomes["denied"]
    assert BURST - unanswered <= load.outcomes["allowed"] <= BURST + bursts * BURST + local
    assert load.outcomes.keys() <= {"allowed", "denied", *(() if resilient else ("unreachable", "timeout"))}
