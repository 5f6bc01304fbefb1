"""Right limiters of many kinds, as their authors might write them: the judge must condemn none of them."""

from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import lru_cache
from math import ceil
from time import monotonic, sleep
from typing import Any

Answer = tuple[bool, float | None]
Hit = Callable[[str], Answer]

MAX_STATES = 5_000
"""States from which on idle ones are deleted."""


class TokenBuckets:
    """Token buckets in floats of seconds, for threads; full ones are deleted when there are many."""

    clock: Callable[[], float] = staticmethod(monotonic)

    def __init__(self, limit: int, period: float, burst: int) -> None:
        self.rate, self.burst = limit / period, burst
        self.states: dict[str, tuple[float, float]] = {}
        self.lock = threading.Lock()
        self.next_sweep = MAX_STATES

    def refill(self, tokens: float, elapsed: float) -> float:
        return min(self.burst, tokens + max(0.0, elapsed) * self.rate)

    def sweep(self, now: float) -> None:
        if len(self.states) > self.next_sweep:
            self.states = {
                key: (tokens, last)
                for key, (tokens, last) in self.states.items()
                if self.refill(tokens, now - last) < self.burst
            }
            self.next_sweep = 2 * len(self.states) + MAX_STATES

    def wait(self, tokens: float) -> float | None:
        return (1 - tokens) / self.rate

    def hit(self, key: str, cost: int = 1) -> Answer:
        with self.lock:
            now = self.clock()
            tokens, last = self.states.get(key, (float(self.burst), now))
            tokens = self.refill(tokens, now - last)
            if tokens >= 1:
                self.states[key] = tokens - 1, now
                self.sweep(now)
                return True, 0.0
            self.states[key] = tokens, now
            return False, self.wait(tokens)


def float_bucket(limit: int, period: float, burst: int) -> Hit:
    return TokenBuckets(limit, period, burst).hit


class WallBuckets(TokenBuckets):
    clock = staticmethod(time.time)


def wall_bucket(limit: int, period: float, burst: int) -> Hit:
    return WallBuckets(limit, period, burst).hit


class SilentBuckets(TokenBuckets):
    def wait(self, tokens: float) -> None:
        return None


def silent_bucket(limit: int, period: float, burst: int) -> Hit:
    return SilentBuckets(limit, period, burst).hit


class WholeSecondBuckets(TokenBuckets):
    clock = staticmethod(time.perf_counter)

    def wait(self, tokens: float) -> int:
        return ceil((1 - tokens) / self.rate)


def whole_second_bucket(limit: int, period: float, burst: int) -> Hit:
    return WholeSecondBuckets(limit, period, burst).hit


class MillisecondBuckets(TokenBuckets):
    """Reads a clock of whole milliseconds, and rounds waits up to them."""

    clock = staticmethod(lambda: time.monotonic_ns() // 10**6 / 1000)

    def wait(self, tokens: float) -> float:
        return ceil((1 - tokens) / self.rate * 1000) / 1000


def millisecond_bucket(limit: int, period: float, burst: int) -> Hit:
    return MillisecondBuckets(limit, period, burst).hit


class DatetimeBuckets(TokenBuckets):
    clock = staticmethod(lambda: datetime.now(UTC).timestamp())


def datetime_bucket(limit: int, period: float, burst: int) -> Hit:
    return DatetimeBuckets(limit, period, burst).hit


def semaphore_bucket(limit: int, period: float, burst: int) -> Hit:
    buckets = TokenBuckets(limit, period, burst)
    buckets.lock = threading.Semaphore()  # type: ignore[assignment]
    return buckets.hit


class Turns:
    """A lock whose waiters wait for a condition."""

    def __init__(self) -> None:
        self.condition = threading.Condition()
        self.is_taken = False

    def __enter__(self) -> None:
        with self.condition:
            self.condition.wait_for(lambda: not self.is_taken)
            self.is_taken = True

    def __exit__(self, *_: object) -> None:
        with self.condition:
            self.is_taken = False
            self.condition.notify()


def condition_bucket(limit: int, period: float, burst: int) -> Hit:
    buckets = TokenBuckets(limit, period, burst)
    buckets.lock = Turns()  # type: ignore[assignment]
    return buckets.hit


class RealTimeBuckets(TokenBuckets):
    """Reads a time that the judge does not replace."""

    clock = staticmethod(lambda: os.times().elapsed)


def real_time_bucket(limit: int, period: float, burst: int) -> Hit:
    return RealTimeBuckets(limit, period, burst).hit


_shared: dict[tuple[object, ...], TokenBuckets] = {}


@lru_cache
def cached_bucket(limit: int, period: float, burst: int) -> Hit:
    return TokenBuckets(limit, period, burst).hit


# --- windows and logs


class Windows:
    """Fixed windows: aligned ones, or ones that begin with the first request."""

    def __init__(self, limit: int, period: float, is_aligned: bool) -> None:
        self.limit, self.period, self.is_aligned = limit, period, is_aligned
        self.offset = time.time() - monotonic() if is_aligned else 0.0
        self.states: dict[str, tuple[float, int]] = {}
        self.lock = threading.Lock()
        self.swept_at = monotonic()

    def hit(self, key: str, cost: int = 1) -> Answer:
        with self.lock:
            now = monotonic() + self.offset
            begin, used = self.states.get(key, (now, 0))
            if now - begin >= self.period or not used:
                begin, used = now, 0
            if self.is_aligned and now // self.period != begin // self.period:
                begin, used = now, 0
            end = (begin // self.period + 1) * self.period if self.is_aligned else begin + self.period
            if now - self.swept_at > 10 * self.period:
                self.swept_at = now
                self.states = {key: state for key, state in self.states.items() if now - state[0] < self.period}
            if used >= self.limit:
                return False, end - now
            self.states[key] = begin, used + 1
            return True, None


def aligned_window(limit: int, period: float, burst: int) -> Hit:
    return Windows(limit, period, is_aligned=True).hit


def first_hit_window(limit: int, period: float, burst: int) -> Hit:
    return Windows(limit, period, is_aligned=False).hit


def sliding_log(limit: int, period: float, burst: int) -> Hit:
    logs: dict[str, deque[float]] = {}
    lock = threading.RLock()

    def hit(key: str, cost: int = 1) -> Answer:
        with lock:
            now = monotonic()
            if len(logs) > MAX_STATES and len(logs) % 1000 == 0:
                for idle in [name for name, log in logs.items() if log[-1] <= now - period]:
                    del logs[idle]
            log = logs.setdefault(key, deque())
            while log and log[0] <= now - period:
                log.popleft()
            if len(log) < limit:
                log.append(now)
                return True, 0
            return False, log[0] + period - now

    return hit


def sliding_counter(limit: int, period: float, burst: int) -> Hit:
    """Estimate the log by two windows; without an announced wait."""
    counts: dict[str, tuple[int, int, int]] = {}
    lock = threading.Lock()

    def hit(key: str, cost: int = 1) -> Answer:
        with lock:
            number, rest = divmod(time.monotonic(), period)
            index = int(number)
            if len(counts) > MAX_STATES and len(counts) % 1000 == 0:
                for idle in [name for name, state in counts.items() if state[0] < index - 1]:
                    del counts[idle]
            latest, previous, current = counts.get(key, (index, 0, 0))
            if latest != index:
                latest, previous, current = index, current if latest == index - 1 else 0, 0
            allowed = previous * (1 - rest / period) + current + 1 <= limit
            counts[key] = latest, previous, current + allowed
            return allowed, None

    return hit


# --- limiters that wait, and asynchronous ones


def waiting_queue(limit: int, period: float, burst: int) -> Hit:
    """Let each request of a key sleep until its turn."""
    turns: dict[str, float] = {}
    lock = threading.Lock()

    def hit(key: str, cost: int = 1) -> Answer:
        with lock:
            now = monotonic()
            if len(turns) > MAX_STATES and len(turns) % 1000 == 0:
                for idle in [name for name, turn in turns.items() if turn < now]:
                    del turns[idle]
            turn = max(now, turns.get(key, now))
            turns[key] = turn + period / limit
        sleep(turn - now)
        return True, None

    return hit


def async_bucket(limit: int, period: float, burst: int) -> Callable[[str], Awaitable[Answer]]:
    buckets = TokenBuckets(limit, period, burst)
    lock = asyncio.Lock()

    async def hit(key: str, cost: int = 1) -> Answer:
        async with lock:
            await asyncio.sleep(0)
            return buckets.hit(key)

    return hit


def connected_bucket(limit: int, period: float, burst: int) -> Callable[[str], Awaitable[Answer]]:
    """Keep a connection open between hits, as a client of a store does."""
    buckets = TokenBuckets(limit, period, burst)
    ends = socket.socketpair()
    streams: list[Any] = []

    async def hit(key: str, cost: int = 1) -> Answer:
        if not streams:
            streams.extend([await asyncio.open_connection(sock=end) for end in ends])
        return buckets.hit(key)

    return hit


def async_waiting_queue(limit: int, period: float, burst: int) -> Callable[[str], Awaitable[Answer]]:
    """Let each request of a key sleep until its turn, by the time of the event loop."""
    turns: dict[str, float] = {}

    async def hit(key: str, cost: int = 1) -> Answer:
        now = asyncio.get_running_loop().time()
        if len(turns) > MAX_STATES and len(turns) % 1000 == 0:
            for idle in [name for name, turn in turns.items() if turn < now]:
                del turns[idle]
        turn = max(now, turns.get(key, now))
        turns[key] = turn + period / limit
        await asyncio.sleep(turn - now)
        return True, None

    return hit


class OwnBound:
    """A limiter with a bound of its own: five times the limit at once."""

    def __call__(self, limit: int, period: float, burst: int) -> Hit:
        return TokenBuckets(5 * limit, period, 5 * burst).hit

    def bound(self, limit: int, period: float, burst: int, window: float) -> float:
        return 5 * burst + 5 * limit * window / period


own_bound: Any = OwnBound()


class TwoBuckets:
    """A factory that offers two limits together."""

    def __call__(self, limit: int, period: float, burst: int) -> Hit:
        return TokenBuckets(limit, period, burst).hit

    def several(self, limits: list[tuple[int, float, int]]) -> Hit:
        buckets = [TokenBuckets(*each) for each in limits]

        def hit(key: str, cost: int = 1) -> Answer:
            now = monotonic()
            states = [each.states.get(key, (float(each.burst), now)) for each in buckets]
            tokens = [each.refill(tokens, now - last) for each, (tokens, last) in zip(buckets, states, strict=True)]
            allowed = min(tokens) >= 1
            for each, left in zip(buckets, tokens, strict=True):
                each.states[key] = left - allowed, now
            return allowed, None

        return hit


two_buckets: Any = TwoBuckets()
