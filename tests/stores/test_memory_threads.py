"""The limiter in memory is exact under threads and tasks."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier, Thread
from types import FrameType
from typing import TypeVar

from contracts import DAY

from ratelab import Algorithm, ManualClock, MemoryLimiter, Quota, State, create
from ratelab.algorithms import build_policy
from ratelab.algorithms.token_bucket import TokenBucket

THREADS = 8
Result = TypeVar("Result")


class Dawdler(TokenBucket):
    """A bucket that gives other threads all the time in the world between reading its state and writing it."""

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        mine = list(state)
        for _ in range(100):
            pass
        decided = super().step(mine, now, cost)
        state[:] = mine
        return decided


def in_threads(work: Callable[[], Result]) -> list[Result]:
    """Do `work` in several threads that start together and switch as often as the interpreter lets them."""
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
    """Count what one key is allowed when every thread hits it so often."""
    return sum(in_threads(lambda: sum(limited.hit("hot").allowed for _ in range(hits))))


def test_threads_on_one_key_get_exactly_its_quota(limiter: type[MemoryLimiter]) -> None:
    for _ in range(5):
        assert allowed_in_threads(limiter(build_policy(Dawdler, Quota.parse("2000/day"))), 1000) == 2000


def test_threads_that_want_no_more_than_the_quota_are_never_denied(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(build_policy(Dawdler, Quota(THREADS * 1000, DAY)))
    assert allowed_in_threads(limited, 1000) == THREADS * 1000
    assert not limited.hit("hot").allowed


def test_threads_that_touch_new_keys_together_share_each_keys_quota(limiter: type[MemoryLimiter]) -> None:
    limited = limiter(build_policy(Dawdler, Quota.parse("3/day")))
    keys = [f"key {n}" for n in range(2000)]
    allowed = in_threads(lambda: [key for key in keys if limited.hit(key).allowed])
    assert Counter(key for of_one in allowed for key in of_one) == dict.fromkeys(keys, 3)
    assert limited.stats == (len(keys), 0, 0)


def test_every_algorithm_is_exact_under_threads(kind: type[Algorithm]) -> None:
    limited = MemoryLimiter(build_policy(kind, Quota.parse("500/day")), ManualClock())
    assert allowed_in_threads(limited, 500) == 500


def test_a_thousand_tasks_get_exactly_the_quota() -> None:
    limited = MemoryLimiter(create("token-bucket", "100/day"))

    async def request() -> bool:
        await asyncio.sleep(0)
        return limited.hit("hot").allowed

    async def all_of_them() -> list[bool]:
        return await asyncio.gather(*(request() for _ in range(1000)))

    assert sum(asyncio.run(all_of_them())) == 100


def test_an_interrupt_never_leaves_the_lock_held() -> None:
    """Raise from a signal handler, as Ctrl-C does, in the midst of hits; another thread must still get through."""
    limited = MemoryLimiter(create("token-bucket", "100/s"))
    left = 200

    def interrupt(_: int, frame: FrameType | None) -> None:
        nonlocal left
        while frame is not None:  # only in a hit, or in what it calls: the test itself must not be interrupted
            if frame.f_code is MemoryLimiter.hit.__code__:
                left -= 1
                raise KeyboardInterrupt
            frame = frame.f_back

    previous = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.0005, 0.0005)
    try:
        while left > 0:
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
    other.join(timeout=5)
    assert not other.is_alive()
