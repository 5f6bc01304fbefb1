"""Table of keys in memory: their states, shared ones for keys without room, and eviction."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from threading import RLock
from typing import Any, NamedTuple, TypeVar

from ratelab.clock import Clock
from ratelab.quota import NS_PER_S
from ratelab.stores.fork import reset_in_children
from ratelab.stores.versions import CLOSED, Entry, Kernel, Version

SHARD_COUNT = 1024
"""Dictionaries that the keys are divided among; a single one of a million keys would block for milliseconds to grow."""

OVERFLOW_BUCKETS = 64
"""States that new keys share while all `max_keys` keys are in use."""

PROBES_PER_NEW_KEY = 8
"""Keys checked for eviction when a new one arrives; several, so that idle keys leave faster than new ones arrive."""

SWEEP_INTERVAL_NS = 60 * NS_PER_S
"""Time between checks of all keys: memory follows the traffic, yet clients that return soon still have their state."""

Result = TypeVar("Result")


class Stats(NamedTuple):
    """Counters of a `MemoryLimiter`."""

    keys: int
    """Keys with a separate state, at most `max_keys`."""
    evictions: int
    """Keys evicted after full replenishment."""
    overflow_hits: int
    """Hits decided by a shared bucket because the limiter was full."""


class ReentrantLock:
    """A lock that a call within a call passes, as in a signal handler, and that a forked process does not inherit."""

    def __init__(self) -> None:
        self._lock: Any = RLock()
        reset_in_children(self)

    def call(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Call `work` while no other thread calls anything; its first argument is whether it runs within a call."""
        lock = self._lock
        nested = lock._is_owned()
        try:
            try:
                if not nested:
                    lock.acquire()
                return work(nested, *arguments)
            finally:
                if not nested and lock._is_owned():
                    lock.release()
        finally:  # in case an exception has interrupted the other one
            if not nested and lock._is_owned():
                lock.release()

    def reset_after_fork(self) -> None:
        """Replace the lock, which no thread of this process will release, unless this thread holds it."""
        if not self._lock._is_owned():
            self._lock = RLock()


class KeyTable:
    """The states of at most `max_keys` keys, which `kernel` starts and changes.

    A fully replenished key is evicted without loss when others arrive; a key that has used any of its quota is never
    evicted. When the table is full and the few keys checked are all in use, new keys share `OVERFLOW_BUCKETS` states.
    """

    def __init__(
        self, kernel: Kernel, clock: Clock, max_keys: int, note_shared: Callable[[], None] = lambda: None
    ) -> None:
        self.kernel = kernel
        self.max_keys = max_keys
        self.shards: list[dict[str, Entry]] = [{} for _ in range(SHARD_COUNT)]
        self.overflow: dict[int, Entry] = {}
        """Shared states by bucket number, created on first use."""
        self.queue: deque[Entry] = deque()
        """Every entry of the shards once, in the order of the next checks."""
        self.reserved = 0
        """Places kept for keys that `adopt` will bring from another table."""
        self._retired = False  # whether the keys belong to another table now
        self._clock = clock
        self._unchecked = 0  # entries that this sweep has not checked yet
        self._next_sweep = clock() + SWEEP_INTERVAL_NS
        self._evictions = 0
        self._overflow_hits = 0
        self._note_shared = note_shared
        self.lock = ReentrantLock()  # for keys that come and go

    @property
    def stats(self) -> Stats:
        """The current counters."""
        return Stats(sum(map(len, self.shards)), self._evictions, self._overflow_hits)

    def get(self, key: str) -> Entry | None:
        """Return the entry of a key, if it has a separate state."""
        return self._shard(key).get(key)

    def place(self, key: str) -> Entry | None:
        """Return an open entry for a key: its own, if there is room, or an overflow bucket; None once retired."""
        return self.lock.call(self._place, key)

    def start_new(self, key: str) -> tuple[Version, int]:
        """Return the state of a new key, which is a copy of its overflow bucket if there is one, and the time.

        The state is empty once the table is retired.
        """
        return self.lock.call(self._start_new, key)

    def _start_new(self, nested: bool, key: str) -> tuple[Version, int]:  # noqa: ARG002  (the signature for `ReentrantLock.call`)
        shared = self.overflow.get(hash(key) % OVERFLOW_BUCKETS)
        state = None if shared is None else self.kernel.latest(shared)[: self.kernel.size]
        now = self._clock()
        if self._retired:
            return [], now
        return self.kernel.start(now) if state is None else state, now

    def evict_idle(self) -> None:
        """If room is scarce or a sweep is due, check a few keys and evict those that are fully replenished."""
        self.lock.call(self._evict_idle)

    def reset(self, key: str) -> None:
        """Restore the full quota of `key`, or of its overflow bucket if there is no room for a separate state."""
        self.lock.call(self._reset, key)

    def retire(self) -> int:
        """Add no more keys: they belong to another table from now on. Return their number."""
        return self.lock.call(self._retire)

    def adopt(self, key: str, state: Version) -> None:
        """Keep the state that a key had in another table, even if there is no room, unless the key has one here."""
        self.lock.call(self._adopt, key, state)

    # --- while no other thread adds or evicts keys

    @property
    def _used(self) -> int:
        """The places that are taken, of `max_keys`."""
        return len(self.queue) + self.reserved

    def _place(self, nested: bool, key: str) -> Entry | None:
        self._evict_idle(nested)
        shard = self._shard(key)
        while not self._retired:
            full = self._used >= self.max_keys  # first: a nested hit of the key may take the last place
            entry = shard.get(key)
            if entry is not None:
                if self.kernel.latest(entry):
                    return entry
                if nested:  # the outer call is evicting the key
                    return self._share(key)
                del shard[key]  # an eviction of the key was interrupted
            if full:
                if nested and self._complete_insertion(key):
                    continue
                return self._share(key)
            self._insert(key, self.start_new(key)[0])
        return None

    def _share(self, key: str) -> Entry:
        """Return the overflow bucket of `key`."""
        self._overflow_hits += 1
        self._note_shared()
        number = hash(key) % OVERFLOW_BUCKETS
        shared = self.overflow.get(number)
        return shared or self.overflow.setdefault(number, Entry("", self.kernel.start(self._clock())))

    def _insert(self, key: str, state: Version) -> bool:
        """Keep `state` for `key`; return False if nested hits have taken the room, or kept a state for the key."""
        entry = Entry(key, state)
        self.queue.append(entry)  # first, so that no kept key is ever missing from the queue
        if self._used > self.max_keys:
            self.queue.pop()
            return False
        return self._shard(key).setdefault(key, entry) is entry

    def _complete_insertion(self, key: str) -> bool:
        """Keep the state of an `_insert` of `key` that this call has interrupted; return whether there is one."""
        last = self.queue[-1] if self.queue else None
        if last is None or self._used > self.max_keys or last.key != key or not self.kernel.latest(last):
            return False
        self._shard(key).setdefault(key, last)
        return True

    def _retire(self, nested: bool) -> int:  # noqa: ARG002  (the signature for `ReentrantLock.call`)
        self._retired = True
        return len(self.queue)

    def _adopt(self, nested: bool, key: str, state: Version) -> None:  # noqa: ARG002
        if self.get(key) is None:
            entry = Entry(key, state)
            self.queue.append(entry)
            self._shard(key).setdefault(key, entry)
            self.reserved = max(0, self.reserved - 1)

    def _reset(self, nested: bool, key: str) -> None:  # noqa: ARG002  (the signature for `ReentrantLock.call`)
        while (entry := self._shard(key).get(key)) is None:
            entry = self.overflow.get(hash(key) % OVERFLOW_BUCKETS)
            if entry is None or self._used >= self.max_keys:
                break
            if self._insert(key, self.kernel.start(self._clock())):
                return

        def restart(state: Version, now: int) -> None:
            state[:] = self.kernel.start(now)

        if entry is not None:
            self.kernel.update(entry, restart)

    def _evict_idle(self, nested: bool) -> None:
        if nested or not self.queue:
            return
        now = self._clock()
        if now >= self._next_sweep:
            self._unchecked, self._next_sweep = len(self.queue), now + SWEEP_INTERVAL_NS
        scarce = 2 * self._used >= self.max_keys
        probes = min(PROBES_PER_NEW_KEY, len(self.queue) if scarce else self._unchecked)
        self._unchecked = max(0, self._unchecked - probes)
        for _ in range(probes):
            if self._evict(self.queue[0]):
                self.queue.popleft()
            else:
                self.queue.rotate(-1)

    def _evict(self, entry: Entry) -> bool:
        """Remove `entry` if it is fully replenished; return whether it is no longer kept."""
        shard = self._shard(entry.key)
        if shard.get(entry.key) is not entry:  # its hit was interrupted, or overtaken by another of the same key
            return True
        state = self.kernel.latest(entry)
        if state and not (self.kernel.is_new(state, self._clock()) and self.kernel.commit(state, CLOSED)):
            return False
        del shard[entry.key]
        self._evictions += 1
        return True

    def _shard(self, key: str) -> dict[str, Entry]:
        return self.shards[hash(key) % SHARD_COUNT]
