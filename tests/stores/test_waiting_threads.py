"""Waiting in threads, in tasks of several event loops at once, and across interrupts and forks."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from test_memory_interrupts import Interrupted, Interrupter, in_new_thread
from waiting_runs import finish_in_threads, predict, wait_until

from ratelab import ALGORITHMS, Decision, ManualClock, MemoryLimiter, Policy, RateLimitExceeded
from ratelab.clock import default_clocks
from ratelab.stores import sleepers

S = 10**9

every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


@every_algorithm
def test_threads_are_admitted_in_order_at_the_instants_of_the_model(algorithm: str) -> None:
    policy, clock = Policy.create(algorithm, "3/s", 4), ManualClock(5)
    costs = [1, 4, 2, 1, 1, 3, 2, 1]
    ended = finish_in_threads(MemoryLimiter(policy, clock), clock, costs)
    assert sorted(ended) == [*enumerate(predict(policy, 5, costs))]
    assert [at for _, at in ended] == sorted(at for _, at in ended)


def test_many_threads_get_exactly_the_quota_in_their_order() -> None:
    policy, clock = Policy.create("token-bucket", "10/s", 5), ManualClock()
    ended = finish_in_threads(MemoryLimiter(policy, clock), clock, [1] * 60, timeout=4)
    admitted = [(number, at) for number, at in ended if at >= 0]
    assert sorted(admitted) == [(number, max(0, number - 4) * S // 10) for number in range(45)]
    assert len(ended) == 60


def test_threads_and_tasks_wait_in_one_line() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 1), clock)
    limiter.hit("alice")
    ended: list[tuple[int, int]] = []

    def wait_in_thread(number: int) -> None:
        limiter.wait("alice")
        ended.append((number, clock.now))

    def wait_in_task(number: int) -> None:
        async def main() -> None:
            await limiter.wait("alice")
            ended.append((number, clock.now))

        asyncio.run(main())

    threads = [threading.Thread(target=(wait_in_thread, wait_in_task)[n % 2], args=(n,)) for n in range(6)]
    for number, thread in enumerate(threads):
        thread.start()
        wait_until(lambda number=number: limiter.waiting.count == number + 1)  # type: ignore[misc]
    for number in range(6):
        wait_until(lambda number=number: clock.next_alarm == (number + 1) * S and len(ended) == number)  # type: ignore[misc]
        clock.advance(S)
    for thread in threads:
        thread.join()
    assert ended == [(number, (number + 1) * S) for number in range(6)]


def test_a_thread_sleeps_once_for_its_turn_and_once_for_its_quota(monkeypatch: pytest.MonkeyPatch) -> None:
    sleeps: list[float | None] = []
    original = sleepers.ThreadSleeper.sleep

    def sleep(self: sleepers.ThreadSleeper, seconds: float | None) -> None:
        sleeps.append(seconds)
        original(self, seconds)

    monkeypatch.setattr(sleepers.ThreadSleeper, "sleep", sleep)
    clock = ManualClock()
    finish_in_threads(MemoryLimiter(Policy.create("token-bucket", "1/s", 1), clock), clock, [1] * 10)
    assert len(sleeps) == 9 + 8


@pytest.mark.parametrize("algorithm", ["token-bucket", "leaky-bucket"])
def test_real_time_passes_once_for_each_request(algorithm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    slept: list[float | None] = []
    original = sleepers.ThreadSleeper.sleep

    def sleep(self: sleepers.ThreadSleeper, seconds: float | None) -> None:
        slept.append(seconds)
        original(self, seconds)

    monkeypatch.setattr(sleepers.ThreadSleeper, "sleep", sleep)
    limiter, start = MemoryLimiter(Policy.create(algorithm, "200/s", 2)), time.monotonic()
    decisions = [limiter.wait("alice") for _ in range(4)]
    assert all(isinstance(decision, Decision) and decision.allowed for decision in decisions)
    assert time.monotonic() - start >= 2 / 200
    assert len(slept) <= 4  # fewer if this thread is delayed between two requests
    assert all(seconds is not None and 0 < seconds <= 0.01 for seconds in slept)


@pytest.mark.skipif(sys.platform == "win32", reason="a lock is not interrupted there")
def test_an_interrupt_of_the_main_thread_gives_its_place_back() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 5), clock)
    limiter.hit("alice", 5)
    behind = threading.Thread(target=lambda: limiter.wait("alice", 1))
    rung = threading.Event()

    def ring(*_: object) -> None:
        if not rung.is_set():
            rung.set()
            raise KeyboardInterrupt

    def interrupt() -> None:
        wait_until(lambda: limiter.waiting.count == 1)
        behind.start()
        wait_until(lambda: limiter.waiting.count == 2)
        while not rung.wait(0.02):  # a thread that begins to sleep just after a signal handles it after the next
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)

    interrupter = threading.Thread(target=interrupt)
    previous = signal.signal(signal.SIGINT, ring)
    interrupter.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            limiter.wait("alice", 5)
        interrupter.join()
    finally:
        signal.signal(signal.SIGINT, previous)
    wait_until(lambda: clock.next_alarm == S)
    clock.advance(S)
    behind.join()
    assert limiter.hit("alice", 0).remaining == 0
    clock.advance(4 * S)
    assert limiter.hit("alice", 4).allowed


def refuse(limiter: MemoryLimiter) -> None:
    limiter.hit("alice", 2)
    with pytest.raises(RateLimitExceeded):
        limiter.wait("alice", 1, 0)


def admit(limiter: MemoryLimiter) -> None:
    limiter.wait("alice", 2)


@pytest.mark.slow
@pytest.mark.parametrize("call", [admit, refuse])
@in_new_thread
def test_an_exception_at_any_moment_leaves_no_request_in_line(call: Callable[[MemoryLimiter], None]) -> None:
    def interrupt() -> None:
        raise Interrupted

    for moment in count(step=3):  # every moment takes long, and neighbors find the same mistakes
        limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 2), ManualClock())
        interrupter = Interrupter(moment, interrupt)
        try:
            interrupter.run(lambda limiter=limiter: call(limiter))  # type: ignore[misc]
        except Interrupted:
            pass
        except RuntimeError as error:  # raised by contextlib, whose generator the exception ended
            if not isinstance(error.__context__, Interrupted):
                raise
        assert limiter.waiting.count == 0, moment
        if not interrupter.acted:
            break
        assert limiter.wait("bob", 1).allowed
    assert moment > 100


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_child_process_does_not_wait_for_requests_of_its_parent() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 1), clock)
    limiter.hit("alice")
    waiting = threading.Thread(target=lambda: limiter.wait("alice"))
    waiting.start()
    wait_until(lambda: clock.next_alarm is not None)
    child = os.fork()
    if not child:
        status = 1
        try:
            clock.advance(S)
            status = 0 if limiter.waiting.count == 0 and limiter.wait("alice", 1, 0).allowed else 2
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    clock.advance(S)
    waiting.join()


def test_limiters_without_a_clock_wait_by_the_default_alarms(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = ManualClock()
    monkeypatch.setattr(default_clocks, "steady", clock)
    monkeypatch.setattr(default_clocks, "alarms", clock)
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/day", 1))
    assert finish_in_threads(limiter, clock, [1, 1]) == [(0, 0), (1, 86_400 * S)]


def test_a_task_on_trio_waits_in_the_same_line() -> None:
    trio: Any = pytest.importorskip("trio")
    testing: Any = pytest.importorskip("trio.testing")
    clock = ManualClock()
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 1), clock)
    ended: list[tuple[str, int]] = []

    async def wait(name: str) -> None:
        await limiter.wait("alice")
        ended.append((name, clock.now))

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            for name in "abcd":
                nursery.start_soon(wait, name)
                await testing.wait_all_tasks_blocked()
            with trio.move_on_after(0):
                await limiter.wait("alice")
            for _ in range(3):
                clock.advance(S)
                await testing.wait_all_tasks_blocked(0.001)
            with pytest.raises(RateLimitExceeded):
                await limiter.wait("alice", 1, 0.5)

    trio.run(main)
    assert ended == [("a", 0), ("b", S), ("c", 2 * S), ("d", 3 * S)]
    assert limiter.waiting.count == 0
