"""Top offenders: the keys with the most denied requests, counted in bounded memory and merged over workers."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from heapq import heapify, heapreplace
from mmap import mmap
from struct import Struct
from threading import RLock
from typing import NamedTuple, Self

MAX_OFFENDERS = 1000
"""Keys that are counted; a further one replaces the key with the least count."""

MAX_PUBLISHED = 100
"""Offenders that a worker shares with the others."""

_SLOT_BYTES = 32 * 1024  # of a worker: 100 keys of 32 digits need 7 kB
_HEADER = Struct("=qq")  # a number that is odd while the slot is written, and the length of the text


class Offender(NamedTuple):
    """A key, and how often it was denied: at most `denied`, and at least `denied - error` times."""

    key: str
    denied: int
    error: int


class Offenders:
    """Count denials of up to `capacity` keys by the algorithm Space-Saving.

    While there is room, counts are exact. A further key takes the place, and the count, of the key with the least
    count, so that counts are too high by at most that count: the mean of all, `total / capacity`. Any key with more
    denials than that is in the list.

    Metwally, Agrawal and El Abbadi, "Efficient computation of frequent and top-k elements in data streams", ICDT 2005.
    """

    def __init__(self, capacity: int = MAX_OFFENDERS) -> None:
        self._capacity = capacity
        self._counts: dict[str, int] = {}
        self._errors: dict[str, int] = {}
        self._heap: list[tuple[int, str]] = []  # of each key, with a count that it once had
        self._lock = RLock()  # a finalizer may count within `add`

    def add(self, key: str, count: int = 1) -> None:
        """Count denials of a key."""
        try:  # no other thread runs between reading and writing a count
            self._counts[key] += count
        except KeyError:
            with self._lock:
                self._add_new(key, count)

    def _add_new(self, key: str, count: int) -> None:
        counts = self._counts
        if key in counts:  # another thread has just added it
            counts[key] += count
            return
        least = 0
        if len(counts) >= self._capacity:
            least, replaced = self._find_least()
            del counts[replaced], self._errors[replaced]
            heapreplace(self._heap, (least + count, key))
        else:
            self._heap.append((count, key))
            if len(self._heap) == self._capacity:
                heapify(self._heap)
        counts[key], self._errors[key] = least + count, least

    def top(self, limit: int = MAX_PUBLISHED) -> list[Offender]:
        """Return the keys with the most denials; keys with the same count in their order."""
        with self._lock:
            ordered = sorted(self._counts.items(), key=lambda item: (-item[1], item[0]))
            return [Offender(key, count, self._errors[key]) for key, count in ordered[:limit]]

    def unlisted(self, limit: int = MAX_PUBLISHED) -> int:
        """Return the largest count that a key which `top` leaves out can have."""
        if len(self._counts) <= limit and len(self._counts) < self._capacity:
            return 0
        return min((offender.denied for offender in self.top(limit)), default=0)

    def _find_least(self) -> tuple[int, str]:
        """Return the least count and its key, after correcting counts at the top of the heap that are too low."""
        heap, counts = self._heap, self._counts
        while counts[heap[0][1]] != heap[0][0]:
            key = heap[0][1]
            heapreplace(heap, (counts[key], key))
        return heap[0]


class Ranking(NamedTuple):
    """The top offenders of a process, or of several."""

    offenders: list[Offender]
    unlisted: int
    """The largest count that a key which is not listed can have."""

    @classmethod
    def of(cls, offenders: Offenders) -> Self:
        """Return the ranking of one process."""
        return cls(offenders.top(), offenders.unlisted())

    @classmethod
    def merge(cls, rankings: Sequence[Ranking]) -> Self:
        """Add rankings: a key may have been denied up to `unlisted` times where it is not listed."""
        unlisted = sum(ranking.unlisted for ranking in rankings)
        denied: dict[str, int] = {}
        error: dict[str, int] = {}
        for ranking in rankings:
            for key, count, least in ranking.offenders:
                denied[key] = denied.get(key, unlisted) + count - ranking.unlisted
                error[key] = error.get(key, unlisted) + least - ranking.unlisted
        merged = sorted(
            (Offender(key, denied[key], error[key]) for key in denied),
            key=lambda offender: (-offender.denied, offender.key),
        )
        rest = [offender.denied for offender in merged[MAX_PUBLISHED:]]
        return cls(merged[:MAX_PUBLISHED], max([unlisted, *rest]))

    def serialize(self) -> dict[str, object]:
        """Return the ranking as JSON values."""
        return {"offenders": [offender._asdict() for offender in self.offenders], "unlisted_at_most": self.unlisted}


class SharedOffenders:
    """The ranking of each worker, in memory shared by forks; a worker that dies leaves its ranking."""

    def __init__(self, workers: int) -> None:
        self._memory = mmap(-1, workers * _SLOT_BYTES)
        self._workers = workers
        self._worker = 0
        self._inherited: list[Ranking] = []

    def attach(self, worker: int) -> None:
        """Write to the slot of this worker from now on, and add to the ranking of its predecessor."""
        self._worker = worker
        inherited = self._read(worker)
        self._inherited = [inherited] if inherited.offenders else []

    def publish(self, ranking: Ranking) -> None:
        """Write the ranking of this worker."""
        merged = Ranking.merge([*self._inherited, ranking])
        text = json.dumps([merged.offenders, merged.unlisted]).encode()
        if _HEADER.size + len(text) > _SLOT_BYTES:
            return
        begin = self._worker * _SLOT_BYTES
        number, _ = _HEADER.unpack_from(self._memory, begin)
        number += number % 2  # if a predecessor was killed while it wrote
        _HEADER.pack_into(self._memory, begin, number + 1, len(text))
        self._memory[begin + _HEADER.size : begin + _HEADER.size + len(text)] = text
        _HEADER.pack_into(self._memory, begin, number + 2, len(text))

    def total(self) -> Ranking:
        """Return the ranking over all workers, as last published."""
        return Ranking.merge([self._read(worker) for worker in range(self._workers)])

    def _read(self, worker: int, attempts: Iterable[int] = range(100)) -> Ranking:
        """Return the ranking of a worker; an empty one if it has none, or was killed while it wrote."""
        begin = worker * _SLOT_BYTES
        for _ in attempts:
            number, length = _HEADER.unpack_from(self._memory, begin)
            text = self._memory[begin + _HEADER.size : begin + _HEADER.size + length]
            if number % 2 == 0 and _HEADER.unpack_from(self._memory, begin)[0] == number:
                offenders, unlisted = json.loads(text) if text else ([], 0)
                return Ranking([Offender(*offender) for offender in offenders], unlisted)
        return Ranking([], 0)
