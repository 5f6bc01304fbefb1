"""In-memory rate limiter for threads and asyncio, and the monotonic clock that it reads."""

from __future__ import annotations

import time
from collections import deque
from threading import RLock
from typing import NamedTuple

from ratelab.clock import Clock
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Decision, Policy, Row, State
from ratelab.quota import NS_PER_S

SHARD_COUNT = 1024
"""Dictionaries that the keys are divided among; a single one of a million keys would block for milliseconds to grow."""

OVERFLOW_BUCKETS = 64
"""States that new keys share while all `max_keys` keys are in use."""

PROBES_PER_NEW_KEY = 8
"""Keys checked for eviction when a new one arrives; several, so that idle keys leave faster than new ones arrive."""

SWEEP_INTERVAL_NS = 60 * NS_PER_S
"""Time between checks of all keys: memory follows the traffic, yet clients that return soon still have their state."""

MAX_CLOCK_LAG_NS = NS_PER_S
"""How far a clock may lag behind its latest time before that counts as a step back."""

ONE = 1
"""CPython caches small ints, so `cost is ONE` skips validation in the common case."""

_new_tuple = tuple.__new__  # skips the length check of Decision._make


class Stats(NamedTuple):
    """Counters of a `MemoryLimiter`."""

    keys: int
    """Keys with a separate state, at most `max_keys`."""
    evictions: int
    """Keys evicted after full replenishment."""
    overflow_hits: int
    """Hits decided by a shared bucket because the limiter was full."""


class MemoryLimiter:
    """Enforce `policy` for each key, in threads and in asyncio: `hit` waits for nothing but its lock.

    At most `max_keys` states are kept. A fully replenished key is evicted without loss when others arrive; a key that
    has used any of its quota is never evicted. When the limiter is full and the few keys checked are all in use, new
    keys share `OVERFLOW_BUCKETS` states, and a key that gets a separate state later starts with a copy of the shared
    one. A flood of new keys therefore obtains no fresh quota; during it, and for a window after it, a new key may be
    denied because of other keys in its bucket.

    `clock` is read under the lock. Raises `InputError` unless `max_keys` is a whole number >= 1.
    """

    def __init__(self, policy: Policy, clock: Clock = time.monotonic_ns, max_keys: int = 1_000_000) -> None:
        if type(max_keys) is not int or max_keys < 1:
            raise InputError(f"max_keys must be a whole number >= 1, got {short_repr(max_keys)}")
        self.policy = policy
        self.max_keys = max_keys
        self._clock = clock if clock is time.monotonic_ns else monotonic(clock)
        self._lock = RLock()
        self._shards: list[dict[str, State]] = [{} for _ in range(SHARD_COUNT)]
        self._overflow: dict[int, State] = {}  # shared states by bucket number, created on first use
        self._hot = self._shards, self._lock.acquire, self._clock, policy.step, self._lock.release
        self._queue: deque[str] = deque()  # every kept key once, in the order of the next checks
        self._unchecked = 0  # keys that this sweep has not checked yet
        self._next_sweep = self._clock() + SWEEP_INTERVAL_NS
        self._evictions = 0
        self._overflow_hits = 0

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 charges nothing.

        A cost above the quota's burst is denied with an infinite `retry_after`. Raises `InputError`, and changes
        nothing, unless `cost` is a whole number >= 0.
        """
        return _new_tuple(Decision, self.hit_row(key, cost))

    def hit_row(self, key: str, cost: int = 1) -> Row:
        """Decide as `hit` does, and return a plain tuple of the fields: building a `Decision` takes a tenth longer."""
        if cost is not ONE:
            check_cost(cost)
        shards, acquire, clock, step, release = self._hot  # one attribute lookup instead of five
        shard = shards[hash(key) % SHARD_COUNT]
        try:
            acquire()  # inside `try`, so that an interrupt cannot leave the lock held; only its owner can release it
            now = clock()
            if key in shard:
                return step(shard[key], now, cost)
            return self._hit_new(shard, key, now, cost)
        finally:
            release()

    def reset(self, key: str) -> None:
        """Restore the full quota of `key`, or of its overflow bucket if there is no room for a separate state."""
        with self._lock:
            fresh = self.policy.start(self._clock())
            shard = self._shards[hash(key) % SHARD_COUNT]
            shared = self._overflow.get(hash(key) % OVERFLOW_BUCKETS)
            if key in shard:
                shard[key][:] = fresh
            elif shared is not None and len(self._queue) < self.max_keys:
                shard[key] = fresh
                self._queue.append(key)
            elif shared is not None:
                shared[:] = fresh

    @property
    def stats(self) -> Stats:
        """The current counters."""
        with self._lock:
            return Stats(len(self._queue), self._evictions, self._overflow_hits)

    def _hit_new(self, shard: dict[str, State], key: str, now: int, cost: int) -> Row:
        """Decide a hit of a key without a separate state; keep a state for it if it needs one and there is room."""
        self._evict_idle(now)
        number = hash(key) % OVERFLOW_BUCKETS
        bucket = self._overflow.get(number)
        if len(self._queue) >= self.max_keys:
            if bucket is None:
                bucket = self._overflow[number] = self.policy.start(now)
            self._overflow_hits += 1
            return self.policy.step(bucket, now, cost)
        state = self.policy.start(now) if bucket is None else list(bucket)
        row = self.policy.step(state, now, cost)
        _, _, _, reset_after_ns, _ = row
        if reset_after_ns > 0:
            shard[key] = state
            self._queue.append(key)
        return row

    def _evict_idle(self, now: int) -> None:
        """If room is scarce or a sweep is due, check a few keys and evict those that are fully replenished."""
        if now >= self._next_sweep:
            self._unchecked, self._next_sweep = len(self._queue), now + SWEEP_INTERVAL_NS
        scarce = 2 * len(self._queue) >= self.max_keys
        probes = min(PROBES_PER_NEW_KEY, len(self._queue) if scarce else self._unchecked)
        self._unchecked = max(0, self._unchecked - probes)
        for _ in range(probes):
            key = self._queue[0]
            shard = self._shards[hash(key) % SHARD_COUNT]
            _, _, _, reset_after_ns, _ = self.policy.step(shard[key], now, 0)
            if reset_after_ns > 0:
                self._queue.rotate(-1)
            else:
                self._queue.popleft()
                del shard[key]
                self._evictions += 1


def check_cost(cost: int) -> None:
    """Raise `InputError` unless `cost` is a whole number >= 0."""
    if type(cost) is not int or cost < 0:
        raise InputError(f"cost must be a whole number >= 0, got {short_repr(cost)}")


def check_key(key: str) -> None:
    """Raise `InputError` unless `key` is text."""
    if not isinstance(key, str):
        raise InputError(f"key must be text, got {short_repr(key)}: format it as a str")


def monotonic(clock: Clock) -> Clock:
    """Wrap `clock` so that it never goes backwards. Call it under a lock.

    While `clock` lags behind its latest time by at most `MAX_CLOCK_LAG_NS`, time stands still, so that a clock that
    jitters grants no extra quota (golang/go#56287). After a larger step back, time continues from the latest time, so
    that no client is locked out until the clock has caught up.
    """
    latest: int | None = None
    shift = 0

    def read() -> int:
        nonlocal latest, shift
        now = clock() + shift
        if latest is not None and now < latest:
            if latest - now > MAX_CLOCK_LAG_NS:
                shift += latest - now
            now = latest
        latest = now
        return now

    return read
