"""A resilient limiter that blocks, in threads: one probe at a time, exact counters, forks and interrupts."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress
from functools import partial
from itertools import count
from threading import Event, Thread
from typing import NoReturn
from warnings import catch_warnings

import pytest
from failing_stores import SECOND, BlockingStore, FlakyStore, limiter_with_store_down, limiters_that_block
from test_memory_forks import Pause
from test_memory_interrupts import Interrupted, Interrupter, in_new_thread
from test_memory_threads import THREADS, in_threads
from test_resilient_reports import captured_log

from ratelab import Decision, ManualClock, create
from ratelab.limiter import Costs, Keys
from ratelab.stores.blocking_resilient import BlockingResilientLimiter


class SlowStore(FlakyStore):
    """A store that decides, or fails, once the test sets `reply`."""

    def __init__(self) -> None:
        super().__init__(create("token-bucket", "1/day", 1000))
        self.called, self.reply = Event(), Event()

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        self.called.set()
        self.reply.wait()
        return await super().hit(key, cost)


def test_while_a_thread_probes_the_others_are_decided_without_the_store() -> None:
    store, clock = SlowStore(), ManualClock()
    store.reply.set()
    with limiters_that_block(True):
        limiter = limiter_with_store_down(store, clock=clock)
    store.recover()
    store.reply.clear()
    store.called.clear()
    clock.advance(SECOND)
    probing = Thread(target=limiter.hit, args=("alice",))
    probing.start()
    store.called.wait()
    decisions = in_threads(lambda: limiter.hit("bob"))
    assert (len(decisions), limiter.health.up) == (THREADS, False)
    store.reply.set()
    probing.join()
    assert (limiter.health.up, store.calls) == (True, [("alice", 1)])
    limiter.hit("bob")
    assert store.calls == [("alice", 1), ("bob", 1)]


@pytest.mark.parametrize("on_store_error", ["local", "open"])
def test_threads_count_and_log_an_outage_exactly(on_store_error: str) -> None:
    store, hits = FlakyStore(create("token-bucket", "1/day", 100)), 200
    store.fail()
    limiter = BlockingResilientLimiter(BlockingStore(store), on_store_error)
    with captured_log() as records:
        allowed = sum(in_threads(lambda: sum(limiter.hit("alice").allowed for _ in range(hits))))
    assert allowed == (100 if on_store_error == "local" else THREADS * hits)
    health = limiter.health
    assert (health.up, health.errors, health.fallback_decisions) == (
        False,
        {"timeout": len(store.calls)},
        THREADS * hits,
    )
    assert [record.getMessage().split(";")[0] for record in records] == [
        "the store is down (timeout: no answer in 100 ms)"
    ]


def test_the_fallback_is_charged_exactly_for_threads_that_the_store_admits() -> None:
    store = FlakyStore(create("token-bucket", "1/day", 100))
    limiter = BlockingResilientLimiter(BlockingStore(store))
    assert sum(in_threads(lambda: sum(limiter.hit("alice").allowed for _ in range(10)))) == 8 * 10
    store.fail()
    assert limiter.hit("alice", 0).remaining == 20


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_forked_while_a_thread_records_a_failure_decides_at_once() -> None:
    clock, store = Pause(), FlakyStore()
    limiter = BlockingResilientLimiter(BlockingStore(store), clock=clock)
    store.fail()
    clock.busy = Thread(target=limiter.hit, args=("alice",))
    clock.busy.start()
    clock.stopped.wait()  # within the lock
    child = os.fork()
    if child == 0:  # pragma: no cover
        signal.alarm(30)  # ends the child if a hit waits
        for _ in range(4):
            limiter.hit("alice")
        os._exit(0 if not limiter.health.up else 1)
    clock.resume.set()
    clock.busy.join()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert limiter.health.up


@pytest.mark.slow
@in_new_thread
def test_an_interrupted_probe_permits_another() -> None:
    def interrupt() -> NoReturn:
        raise Interrupted

    for moment in count(step=2):
        store, clock = FlakyStore(), ManualClock()
        with limiters_that_block(True):
            limiter = limiter_with_store_down(store, clock=clock)
        clock.advance(SECOND)
        interrupter = Interrupter(moment, interrupt)
        # without warnings of coroutines that were interrupted before they started
        with catch_warnings(action="ignore"), suppress(Interrupted):
            interrupter.run(partial(limiter.hit, "alice"))
        store.recover()
        store.calls.clear()
        clock.advance(SECOND)
        limiter.hit("bob")
        assert store.calls == [("bob", 1)], moment
        assert limiter.health.up
        if not interrupter.acted:
            break
    assert moment > 100
