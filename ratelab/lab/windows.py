"""Cost in a moving window: the fullest one that there was, and what stood in it before each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Columns
from ratelab.lab.spill import REQUEST, Column, Cursor, Gathering, Integers
from ratelab.lab.traffic import Asked, Traffic


class Rows(Protocol):
    """Rows of `REQUEST` with keys, in the order of time, taken a slice at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class _Made:
    """Rows made of requests when they are wanted."""

    traffic: Asked
    make: Callable[[Traffic, slice], NDArray[Any]]

    def __len__(self) -> int:
        return len(self.traffic)

    def __getitem__(self, part: slice) -> NDArray[Any]:
        return self.make(self.traffic[part], part)


def arrivals(traffic: Asked, counted: Column | None = None) -> Rows:
    """Return a row for each request; those that are not `counted` cost nothing."""

    def made(some: Traffic, part: slice) -> NDArray[Any]:
        rows = _rows(some)
        if counted is not None:
            rows["cost"][~counted[part]] = 0
        return rows

    return _Made(traffic, made)


def departures(traffic: Asked, decisions: Columns) -> Rows:
    """Return a row for each request that is admitted, at the time at which it leaves: its arrival plus its delay."""
    allowed, delays = decisions["allowed"], decisions["delay_ns"]
    if not any(delays[part].any() for part, _ in traffic.batches()):
        return _Made(traffic, lambda some, part: _rows(some)[allowed[part]])
    if isinstance(traffic, Traffic):
        rows = _rows(traffic)
        rows["time"] += delays[:]
        rows = rows[allowed[:]]
        return rows[np.argsort(rows["time"], kind="stable")]
    gathered = Gathering()
    for part, batch in traffic.batches():
        left = allowed[part]
        gathered.add((batch.times + delays[part])[left], batch.request_keys[left], batch.costs[left])
    return gathered.in_order()


def _rows(traffic: Traffic) -> NDArray[Any]:
    rows = np.empty(len(traffic), REQUEST)
    rows["time"], rows["who"], rows["cost"] = traffic.times, traffic.request_keys, traffic.costs
    return rows


TURN = 1 << 17
"""Requests that come into a window, or leave it, together; what is found does not depend on it."""


class Window(NamedTuple):
    """The half-open window `[begin, begin + length)` of one key."""

    cost: int
    """What left in it."""
    begin: int
    """Nanoseconds since the traffic began."""
    key: int


class _WindowStep(NamedTuple):
    """Some requests that come into the window, and some that leave it, in the order of time."""

    entered: NDArray[Any]
    after: Integers
    """What the window of its key holds with each request that has just come."""
    left: NDArray[Any]
    before: Integers
    """What it holds with each request that is about to leave."""


def fullest_window(rows: Rows, keys: int, length: int) -> Window | None:
    """Return the window of `length` nanoseconds in which the most cost of one key left, the first if several did.

    `rows` are departures in order, of so many keys; None if there is none. It is enough to lay a window at each
    departure. This is the arrival curve at one width: Le Boudec and Thiran, "Network Calculus" (2001), section 1.2.
    """
    best: Window | None = None
    for turn in _moving(rows, keys, length):
        if len(turn.left):
            most = int(turn.before.max())
            fullest = turn.left[turn.before == most]
            first = fullest[fullest["time"] == fullest["time"][0]]
            found = Window(most, int(first["time"][0]), int(first["who"].min()))
            best = max(best or found, found, key=lambda one: (one.cost, -one.begin, -one.key))
    return best


class Trailing:
    """The window of `length` nanoseconds that ends with each request of `traffic`, its beginning left out.

    It holds the requests of the same key that came before this one and less than `length` ago: what a sliding log
    counts. Those of the same instant count in the order of arrival.
    """

    def __init__(self, traffic: Asked, length: int) -> None:
        self._traffic, self._length = traffic, length

    def cost(self, counted: Column | None = None) -> Iterator[tuple[slice, Integers]]:
        """Yield what stood in the windows of some requests, of those that are `counted`; by default of all."""
        rows, keys, begin = arrivals(self._traffic, counted), self._traffic.key_count, 0
        for turn in _moving(rows, keys, self._length):
            part = slice(begin, begin + len(turn.entered))
            if len(turn.entered):
                yield part, turn.after - turn.entered["cost"]
            begin = part.stop


def _moving(rows: Rows, keys: int, length: int) -> Iterator[_WindowStep]:
    """Yield steps in which rows enter the window and leave it `length` later; at equal times, leaving comes first."""
    held = np.zeros(keys, np.int64)
    if len(rows) <= TURN:
        every = rows[slice(0, len(rows))]
        if len(every):  # lazily filtered rows may be fewer than their length
            yield _turned(every, every, length, held)
        return
    coming, going = (Cursor(rows, 0, len(rows), TURN) for _ in range(2))
    while len(going.ahead):
        times = going.ahead["time"].copy()
        since = coming.ahead["time"] - length
        if len(since) and since[-1] < times[-1]:
            left = going.take(int(np.searchsorted(times, since[-1], "right")))
            entered = coming.take(len(since))
        else:
            entered = coming.take(int(np.searchsorted(since, times[-1])))
            left = going.take(len(times))
        yield _turned(entered, left, length, held)


def _turned(entered: NDArray[Any], left: NDArray[Any], length: int, held: Integers) -> _WindowStep:
    """Let some come and some leave, and keep what each key's window then holds."""
    places = np.arange(len(entered)) + np.searchsorted(left["time"], entered["time"] - length, "right")
    comes = np.zeros(len(entered) + len(left), np.bool_)
    comes[places] = True
    keys, changes = np.empty(len(comes), np.uint32), np.empty(len(comes), np.int64)
    keys[comes], keys[~comes] = entered["who"], left["who"]
    changes[comes], changes[~comes] = entered["cost"], -left["cost"]
    order = by_key(keys)
    sums, keys = np.cumsum(changes[order]), keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=keys[0] + 1 if len(keys) else 0))
    lasts = np.append(firsts[1:], len(keys)) - 1
    begun = held[keys[firsts]] - np.concatenate([[0], sums])[firsts]
    sums += np.repeat(begun, np.diff(firsts, append=len(keys)))
    held[keys[firsts]] = sums[lasts]
    after = np.empty(len(comes), np.int64)
    after[order] = sums
    return _WindowStep(entered, after[comes], left, after[~comes] + left["cost"])


def by_key(keys: NDArray[np.uint32]) -> Integers:
    """Return the order that puts requests of one key together, each key's in theirs; by digits of 16 bits."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    if len(keys) and keys.max() >> 16:
        order = order[np.argsort((keys >> 16).astype(np.uint16)[order], kind="stable")]
    return order
