"""A pace in a store that processes share."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import Any

import pytest
from virtual_loop import run_virtually
from waiting_runs import PATIENCE_S

from ratelab import InputError, ManualClock, MemoryLimiter, RateLimitExceeded, create
from ratelab.errors import StoreError
from ratelab.pacing import Pacer, read_advice
from ratelab.pacing.shared_state import SharedState, ValkeyPaceStore
from ratelab.quota import NS_PER_S

HOUR = {"RateLimit-Policy": '"a";q=20;w=72000', "RateLimit": '"a";r=19;t=72000'}
"""The header fields of a service that permits one request per hour."""


class DictStore:
    """A store in memory, which can fail."""

    def __init__(self) -> None:
        self.texts: dict[str, str] = {}
        self.down = False

    def exchange(self, key: str, expected: str, new: str) -> str:
        if self.down:
            raise StoreError("unreachable", "down")
        if self.texts.get(key, "") == expected:
            self.texts[key] = new
        return self.texts.get(key, "")

    def close(self) -> None:
        """Do nothing."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_changes_continue_after_a_store_of_the_user_has_failed_in_their_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(DictStore):
        failed = False

        def exchange(self, key: str, expected: str, new: str) -> str:
            if not self.failed:
                self.failed = True
                raise RuntimeError
            return super().exchange(key, expected, new)

    monkeypatch.setattr("ratelab.pacing.shared_state.in_event_loop", lambda: True)
    state, made = SharedState(ManualClock(), Broken(), "host"), threading.Event()
    state.learn(lambda pace, now: None)
    worker = state._worker
    if worker is not None:
        worker.join()
    state.learn(lambda pace, now: made.set())
    assert made.wait(PATIENCE_S)


def ask_at_once(monkeypatch: pytest.MonkeyPatch, seconds: float = 0) -> None:
    """Let no worker thread ask a store, since virtual time does not pass there; let the answer take some time."""

    async def call(work: Callable[[], Any]) -> Any:
        await asyncio.sleep(seconds)
        return work()

    monkeypatch.setattr("ratelab.pacing.pacer.call_in_thread", call)
    monkeypatch.setattr("ratelab.pacing.shared_state.in_event_loop", lambda: False)


@pytest.fixture
def no_worker_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_at_once(monkeypatch)


def test_a_slow_store_does_not_delay_requests() -> None:
    async def main(clock: Callable[[], int]) -> list[float]:
        pacer, times = Pacer(clock=clock, store=DictStore()), []
        (await pacer.acquire_async()).observe(200, {"RateLimit-Policy": '"a";q=30;w=60'})
        for _ in range(5):
            async with pacer.request():
                times.append(clock() / NS_PER_S)
        return times

    with pytest.MonkeyPatch.context() as patches:
        ask_at_once(patches, seconds=0.04)
        times = run_virtually(main)
    assert [later - earlier for earlier, later in pairwise(times)] == pytest.approx([2.0] * 4, abs=0.01)
    assert times[0] == pytest.approx(3.04, abs=0.01)


@pytest.mark.slow
@pytest.mark.usefixtures("no_worker_threads")
def test_two_pacers_with_one_store_share_a_quota() -> None:
    async def main(clock: Callable[[], int]) -> tuple[int, int]:
        limiter, store = MemoryLimiter(create("token-bucket", "10/s", 5), clock), DictStore()
        counts = [0, 0]

        async def work(pacer: Pacer) -> None:
            while clock() < 90 * NS_PER_S:
                async with pacer.request() as permit:
                    await asyncio.sleep(0.02)
                    decision = limiter.hit("client")
                    counts[not decision.allowed] += clock() >= 60 * NS_PER_S
                    await asyncio.sleep(0.02)
                    permit.observe(200 if decision.allowed else 429)

        pacers = [Pacer(clock=clock, store=store) for _ in range(2)]
        await asyncio.gather(*(work(pacer) for pacer in pacers for _ in range(15)))
        return counts[0], counts[1]

    admitted, denied = run_virtually(main)
    assert admitted >= 0.95 * 300
    assert denied <= 0.01 * admitted


@pytest.mark.usefixtures("no_worker_threads")
def test_a_denial_gives_back_the_times_that_were_taken_before_it() -> None:
    async def main(clock: Callable[[], int]) -> tuple[list[int], float]:
        pacer, sent = Pacer(clock=clock, store=DictStore()), []
        denied, learned = await pacer.acquire_async(), await pacer.acquire_async()
        learned.observe(200, {"RateLimit-Policy": '"a";q=2000;w=20', "RateLimit": '"a";r=1999;t=20'})

        async def send(number: int) -> None:
            await pacer.acquire_async()
            sent.append(number)
            times.append(clock())

        times: list[int] = []
        tasks = [asyncio.ensure_future(send(number)) for number in range(20)]
        await asyncio.sleep(0.035)
        start, already_sent = clock(), len(sent)
        denied.observe(429, {"Retry-After": "5"})
        await asyncio.gather(*tasks)
        return sent, (times[already_sent] - start) / NS_PER_S

    sent, waited = run_virtually(main)
    assert sent == [*range(20)]
    assert waited >= 5


def test_two_processes_never_take_the_same_time() -> None:
    store, clock = DictStore(), ManualClock(NS_PER_S)
    states = [SharedState(clock, store, "host") for _ in range(2)]
    states[0].change(lambda pace, _: pace.observe(pace.send(0, waited=True), 0, read_advice(200, HOUR)))
    for state in states:
        state.learn(lambda pace, _: pace.abandon())
    times = [state.change(lambda pace, now: pace.send(pace.ready_at(now), waited=True).at) for state in states]
    assert times[1] - times[0] >= NS_PER_S


def test_lessons_from_the_time_without_a_store_reach_it() -> None:
    store, clock = DictStore(), ManualClock(NS_PER_S)
    state = SharedState(clock, store, "host")
    state.change(lambda pace, now: pace.send(now, waited=True))
    assert '"in_flight":1' in store.texts["host"]
    store.down = True
    state.learn(lambda pace, _: pace.abandon())
    store.down = False
    clock.now += 5 * NS_PER_S
    state.change(lambda *_: None)
    assert '"in_flight":0' in store.texts["host"]


def test_a_store_that_was_emptied_gets_the_pace_of_its_clients() -> None:
    store = DictStore()
    state = SharedState(ManualClock(NS_PER_S), store, "host")
    learned = state.change(lambda pace, now: pace.send(now, waited=True).at)
    store.texts.clear()
    assert state.change(lambda pace, _: pace.last_sent) == learned


def test_a_process_starts_at_the_pace_that_another_has_learned() -> None:
    store = DictStore()
    with Pacer(store=store).request("host") as permit:
        permit.observe(200, HOUR)
    with pytest.raises(RateLimitExceeded, match="retry after"):
        Pacer(store=store, timeout=0.5).acquire("host")
    Pacer(store=store, timeout=0.5).acquire("other")
    Pacer(timeout=0.5).acquire("host")


def test_a_pacer_whose_store_is_down_paces_alone() -> None:
    store, now = DictStore(), [NS_PER_S]
    store.down = True
    pacer = Pacer(store=store, timeout=0.5, clock=lambda: now[0])
    with pacer.request() as permit:
        permit.observe(200, HOUR)
    with pytest.raises(RateLimitExceeded, match="retry after"):
        pacer.acquire()
    store.down = False
    now[0] += 5 * 3600 * NS_PER_S
    pacer.acquire().observe(200, HOUR)
    assert store.texts


def test_a_text_of_another_version_is_replaced() -> None:
    store = DictStore()
    store.texts[""] = "from the future"
    with Pacer(store=store).request() as permit:
        permit.observe(200, HOUR)
    assert store.texts[""].startswith("{")


def test_observing_in_an_event_loop_does_not_wait_for_the_store() -> None:
    store = DictStore()

    async def main() -> None:
        pacer = Pacer(store=store)
        async with pacer.request() as permit:
            permit.observe(200, HOUR)
        with pytest.raises(RateLimitExceeded, match="retry after"):
            await pacer.acquire_async(timeout=0.1)

    asyncio.run(main())
    assert '"in_flight":0' in store.texts[""]


PROGRAM = """
import sys
from ratelab.pacing import Pacer
from ratelab.pacing.shared_state import ValkeyPaceStore
ValkeyPaceStore.__init__.__defaults__ = 30, 4  # seconds, which a busy machine does not exceed, and connections
with Pacer(store=sys.argv[1], timeout=0.5) as pacer:
    with pacer.request("host") as permit:
        permit.observe(200, {"RateLimit-Policy": '"a";q=2;w=7200', "RateLimit": '"a";r=1;t=7200'})
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no server")
def test_processes_share_a_pace_in_valkey(store: Any) -> None:
    first = subprocess.run([sys.executable, "-c", PROGRAM, store.url], capture_output=True, text=True, timeout=300)
    assert (first.returncode, first.stderr) == (0, "")
    second = subprocess.run([sys.executable, "-c", PROGRAM, store.url], capture_output=True, text=True, timeout=300)
    assert "RateLimitExceeded: rate limit exceeded: retry after" in second.stderr


def test_the_log_reports_once_that_a_store_is_down_and_back(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Pools:
        replies: Iterator[bytes | Exception] = iter([ConnectionRefusedError("no"), ConnectionRefusedError("no"), b"{}"])

        def find(self, slot: None) -> Any:
            return self

        def exchange(self, *arguments: object) -> bytes:
            reply = next(self.replies)
            if isinstance(reply, Exception):
                raise reply
            return reply

    store = ValkeyPaceStore("valkey://127.0.0.1:1", "pacer")
    monkeypatch.setattr(store, "_pools", Pools())
    for key in ("a", "b"):
        with pytest.raises(StoreError):
            store.exchange(key, "", "{}")
    assert store.exchange("a", "", "{}") == "{}"
    assert caplog.messages == [
        "the store of a pacer is down (unreachable: no); meanwhile, each process has a pace of its own",
        "the store of a pacer is back; its processes share a pace",
    ]


def test_a_cluster_is_refused() -> None:
    with pytest.raises(InputError, match="a pacer cannot keep its state in a cluster"):
        Pacer(store="valkey://127.0.0.1:1?cluster=true")
