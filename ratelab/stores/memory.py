"""A limiter whose keys live in this process."""

from __future__ import annotations

import time
from collections import deque
from threading import RLock
from typing import NamedTuple

from ratelab.clock import steady
from ratelab.errors import InputError
from ratelab.limiter import Algorithm, Clock, Decision, State

SHARDS = 1024
"""Dictionaries that the keys are spread over: one of a million keys would stop for milliseconds to grow."""

OVERFLOW = 64
"""Buckets that new keys share while every kept key is in use."""

PROBES = 8
"""Kept keys that are looked at for each new one; more than one, so that idle keys go faster than new ones come."""

PASS_EVERY = 60_000_000_000
"""Nanoseconds between two passes over the kept keys: memory follows the traffic, yet clients who return are known."""

ONE = 1
"""The usual cost: there is a single object for it, so a look at its identity spares the other checks."""

_make = tuple.__new__  # what Decision._make calls


def check_cost(cost: int) -> None:
    """Raise `InputError` if `cost` is not a whole number >= 0."""
    if type(cost) is not int or cost < 0:
        raise InputError(f"cost must be a whole number >= 0, got {cost!r}")


class Stats(NamedTuple):
    """What a `MemoryLimiter` has kept and dropped."""

    keys: int
    """Keys with a state of their own, at most `max_keys`."""
    evictions: int
    """Keys dropped because they had become as good as new."""
    overflow_hits: int
    """Hits decided on a shared bucket because there was no room."""


class MemoryLimiter:
    """Hold each key to `algorithm`, for threads and asyncio alike: `hit` never waits for anything but its lock.

    At most `max_keys` states are kept. A key that is as good as new is dropped without loss when others come; a key
    that has used some of its quota is never dropped. When there is no room, and the few kept keys that are looked at
    are all in use, new ones share `OVERFLOW` buckets, and one that gets a state of its own later starts from its
    bucket's. So a flood of names buys nobody a fresh quota; while it lasts, and for a window after, newcomers may be
    denied for what others of their bucket have used.

    `clock` is read under the lock. Raises `InputError` if `max_keys` is not a whole number >= 1.
    """

    def __init__(self, algorithm: Algorithm, clock: Clock = time.monotonic_ns, max_keys: int = 1_000_000) -> None:
        if type(max_keys) is not int or max_keys < 1:
            raise InputError(f"max_keys must be a whole number >= 1, got {max_keys!r}")
        self.algorithm = algorithm
        self.max_keys = max_keys
        self._clock = clock if clock is time.monotonic_ns else steady(clock)
        self._lock = RLock()
        self._shards: list[dict[str, State]] = [{} for _ in range(SHARDS)]
        self._overflow: dict[int, State] = {}  # buckets by number, from 0 to OVERFLOW, once they are used
        self._hot = self._shards, self._lock.acquire, self._clock, algorithm.step, self._lock.release
        self._queue: deque[str] = deque()  # every kept key once, in the order in which they are looked at
        self._unseen = 0  # keys that this pass has still to look at
        self._next_pass = self._clock() + PASS_EVERY
        self._evictions = 0
        self._overflow_hits = 0

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 only looks.

        A cost above the quota's burst is denied with an infinite `retry_after`. Raises `InputError`, and changes
        nothing, if `cost` is not a whole number >= 0.
        """
        if cost is not ONE:
            check_cost(cost)
        shards, acquire, clock, step, release = self._hot  # one look-up instead of five
        shard = shards[hash(key) % SHARDS]
        try:
            acquire()  # within, so that an interrupt cannot leave it held; one thread cannot release another's
            now = clock()
            if key in shard:
                return _make(Decision, step(shard[key], now, cost))
            return self._hit_new(shard, key, now, cost)
        finally:
            release()

    def reset(self, key: str) -> None:
        """Forget what `key` has used; if there is no room for it, what all keys of its overflow bucket have used."""
        with self._lock:
            fresh = self.algorithm.start(self._clock())
            shard = self._shards[hash(key) % SHARDS]
            shared = self._overflow.get(hash(key) % OVERFLOW)
            if key in shard:
                shard[key][:] = fresh
            elif shared is not None and len(self._queue) < self.max_keys:
                shard[key] = fresh
                self._queue.append(key)
            elif shared is not None:
                shared[:] = fresh

    @property
    def stats(self) -> Stats:
        """Return the counters as they stand."""
        with self._lock:
            return Stats(len(self._queue), self._evictions, self._overflow_hits)

    def _hit_new(self, shard: dict[str, State], key: str, now: int, cost: int) -> Decision:
        """Decide the hit of a key without a state of its own, and give it one if it needs it and there is room."""
        self._drop_idle(now)
        number = hash(key) % OVERFLOW
        bucket = self._overflow.get(number)
        if len(self._queue) >= self.max_keys:
            if bucket is None:
                bucket = self._overflow[number] = self.algorithm.start(now)
            self._overflow_hits += 1
            return _make(Decision, self.algorithm.step(bucket, now, cost))
        state = self.algorithm.start(now) if bucket is None else list(bucket)
        decision = _make(Decision, self.algorithm.step(state, now, cost))
        if decision.reset_after_ns > 0:
            shard[key] = state
            self._queue.append(key)
        return decision

    def _drop_idle(self, now: int) -> None:
        """Look at a few kept keys, if room gets scarce or a pass is due, and drop those that are as good as new."""
        if now >= self._next_pass:
            self._unseen, self._next_pass = len(self._queue), now + PASS_EVERY
        scarce = 2 * len(self._queue) >= self.max_keys
        probes = min(PROBES, len(self._queue) if scarce else self._unseen)
        self._unseen = max(0, self._unseen - probes)
        for _ in range(probes):
            key = self._queue[0]
            shard = self._shards[hash(key) % SHARDS]
            _, _, _, reset_after_ns, _ = self.algorithm.step(shard[key], now, 0)
            if reset_after_ns > 0:
                self._queue.rotate(-1)
            else:
                self._queue.popleft()
                del shard[key]
                self._evictions += 1
