"""The memory limiter is exact in threads and tasks, and survives interrupts."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Event, Thread, current_thread, main_thread
from types import FrameType
from typing import TypeVar

import pytest
from durations import DAY

from ratelab import Algorithm, ManualClock, MemoryLimiter, Quota, State, create
from ratelab.algorithms import build_policy
from ratelab.algorithms.token_bucket import TokenBucket

THREADS = 8
Result = TypeVar("Result")


class SlowBucket(TokenBucket):
    """A bucket that gives other threads time between reading its state and writing it."""

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        copy = list(state)
        for _ in range(100):
            pass
        row = super().step(copy, now, cost)
        state[:] = copy
        return row


def in_threads(work: Callable[[], Result]) -> list[Result]:
    """Call `work` in threads that start together and switch as often as possible; return the results."""
    interval, start = sys.getswitchinterval(), Barrier(THREADS)

    def run() -> Result:
        start.wait()
        return work()

    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(THREADS) as pool:
            return [future.result() for future in [pool.submit(run) for _ in range(THREADS)]]
    finally:
        sys.setswitchinterval(interval)


def allowed_in_threads(limited: MemoryLimiter, hits: int) -> int:
    """Return how many hits of one key are allowed if every thread makes `hits`."""
    return sum(in_threads(lambda: sum(limited.hit("hot").allowed for _ in range(hits))))


def test_threads_on_one_key_get_exactly_its_quota(limiter: type[MemoryLimiter]) -> None:
    for _ in range(5):
        assert allowed_in_threads(limiter(build_policy(SlowBucket, Quota.parse("2000/day"))), 1000) == 2000


def test_threads_within_the_quota_are_never_denied(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(build_policy(SlowBucket, Quota(THREADS * 1000, DAY)))
    assert allowed_in_threads(limited, 1000) == THREADS * 1000
    assert not limited.hit("hot").allowed


def test_threads_on_new_keys_get_exactly_the_quota_of_each(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(build_policy(SlowBucket, Quota.parse("3/day")))
    keys = [f"key {n}" for n in range(2000)]
    allowed = in_threads(lambda: [key for key in keys if limited.hit(key).allowed])
    assert Counter(key for keys in allowed for key in keys) == dict.fromkeys(keys, 3)
    assert limited.stats == (len(keys), 0, 0)


def test_every_algorithm_is_exact_in_threads(kind: type[Algorithm]) -> None:
    policy = build_policy(kind, Quota.parse("500/day"))
    state = policy.start(0)
    expected = sum(policy.step(state, 0, 1)[0] for _ in range(THREADS * 500))
    assert allowed_in_threads(MemoryLimiter(policy, ManualClock()), 500) == expected


def test_a_thousand_tasks_get_exactly_the_quota() -> None:
    limited = MemoryLimiter(create("token-bucket", "100/day"))

    async def request() -> bool:
        await asyncio.sleep(0)
        return limited.hit("hot").allowed

    async def request_all() -> list[bool]:
        return await asyncio.gather(*(request() for _ in range(1000)))

    assert sum(asyncio.run(request_all())) == 100


def test_an_interrupt_ends_the_wait_for_another_thread() -> None:
    """New keys are started one at a time, so the second one waits until the clock has been read for the first."""
    reading, finish = Event(), Event()

    def clock() -> int:
        if current_thread() is not main_thread():
            reading.set()
            finish.wait()
        return 0

    def interrupt(_: int, frame: FrameType | None) -> None:
        if not finish.is_set():
            finish.set()
            raise KeyboardInterrupt

    def hit_until_alarm() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)  # again for a lock that is acquired just after a signal
        limited.hit("bob")

    limited = MemoryLimiter(create("token-bucket", "100/s"), clock)
    other = Thread(target=limited.hit, args=("alice",))
    previous = signal.signal(signal.SIGALRM, interrupt)
    try:
        other.start()
        reading.wait()
        with pytest.raises(KeyboardInterrupt):
            hit_until_alarm()
    finally:
        finish.set()
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
        other.join()
    assert limited.hit("bob").remaining == 99


def test_an_interrupt_never_leaves_the_lock_held() -> None:
    """Raise from a signal handler, as Ctrl-C does, during hits; another thread must still get a decision."""
    limited = MemoryLimiter(create("token-bucket", "100/s"))
    interrupts = 200

    def interrupt(_: int, frame: FrameType | None) -> None:
        nonlocal interrupts
        while frame is not None:  # only during a hit: the test itself must not be interrupted
            if frame.f_code is MemoryLimiter.hit.__code__:
                interrupts -= 1
                raise KeyboardInterrupt
            frame = frame.f_back

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while interrupts > 0:
            try:
                while True:
                    limited.hit("alice")
            except KeyboardInterrupt:
                continue
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    other = Thread(target=limited.hit, args=("alice",), daemon=True)
    other.start()
    other.join(timeout=60)
    assert not other.is_alive()
