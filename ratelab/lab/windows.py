"""Moving windows: the window of a key with the largest cost, and the cost in the window before each request."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Columns
from ratelab.lab.spill import REQUEST_DTYPE, Cursor, Integers
from ratelab.lab.traffic import Booleans, RequestSorter, Traffic

# --- rows


class Rows(Protocol):
    """Rows of `REQUEST_DTYPE`, owned by keys, in the order of time; read a slice at a time."""

    def __len__(self) -> int: ...

    def __getitem__(self, part: slice, /) -> NDArray[Any]: ...


@dataclass(frozen=True, eq=False)
class _LazyRows:
    """Rows computed from requests when they are read; a slice may have fewer rows than requests."""

    traffic: Traffic
    compute: Callable[[Traffic, slice], NDArray[Any]]

    def __len__(self) -> int:
        return len(self.traffic)

    def __getitem__(self, part: slice) -> NDArray[Any]:
        return self.compute(self.traffic[part], part)


def arrivals(traffic: Traffic, counted: Booleans | None = None) -> Rows:
    """Return a row for each request; those not `counted` have cost 0."""

    def compute(batch: Traffic, part: slice) -> NDArray[Any]:
        rows = _to_rows(batch)
        if counted is not None:
            rows["cost"][~counted[part]] = 0
        return rows

    return _LazyRows(traffic, compute)


def departures(traffic: Traffic, decisions: Columns) -> Rows:
    """Return a row for each admitted request, at the time of its departure: its arrival plus its delay."""
    allowed, delays = decisions["allowed"], decisions["delay_ns"]
    if not any(delays[part].any() for part, _ in traffic.batches()):
        return _LazyRows(traffic, lambda batch, part: _to_rows(batch)[allowed[part]])
    if not traffic.on_disk:
        rows = _to_rows(traffic)
        rows["time"] += delays
        rows = rows[allowed]
        return rows[np.argsort(rows["time"], kind="stable")]
    sorter = RequestSorter()
    for part, batch in traffic.batches():
        admitted = allowed[part]
        times = (batch.times + delays[part])[admitted]
        sorter.add(times, batch.request_keys[admitted], batch.costs[admitted])
    return sorter.sort()


def _to_rows(traffic: Traffic) -> NDArray[Any]:
    rows = np.empty(len(traffic), REQUEST_DTYPE)
    rows["time"], rows["owner"], rows["cost"] = traffic.times, traffic.request_keys, traffic.costs
    return rows


# --- figures


class Window(NamedTuple):
    """The half-open window `[begin, begin + length)` of one key."""

    cost: int
    """The total cost of the departures in it."""
    begin: int
    """Nanoseconds since the traffic began."""
    key: int


def fullest_window(rows: Rows, keys: int, length: int) -> Window | None:
    """Return the window of `length` nanoseconds with the largest cost of one key; the first, if several have it.

    `rows` are departures of `keys` keys; without any, return None. A window that begins at a departure is always among
    the fullest. This is the arrival curve at one width: Le Boudec and Thiran, "Network Calculus" (2001), section 1.2.
    """
    best: Window | None = None
    for step in _move_window(rows, keys, length):
        if len(step.left):
            most = int(step.before.max())
            fullest = step.left[step.before == most]
            first = fullest[fullest["time"] == fullest["time"][0]]
            found = Window(most, int(first["time"][0]), int(first["owner"].min()))
            best = max(best or found, found, key=lambda window: (window.cost, -window.begin, -window.key))
    return best


def compute_trailing_costs(
    traffic: Traffic, length: int, counted: Booleans | None = None
) -> Iterator[tuple[slice, Integers]]:
    """Yield the cost in the window that ends with each request, in batches with their positions.

    The window holds the earlier requests of the same key, less than `length` nanoseconds ago: those that a sliding log
    counts. Requests of one instant count in the order of arrival. Only `counted` requests add to the cost, by default
    all.
    """
    rows, begin = arrivals(traffic, counted), 0
    for step in _move_window(rows, traffic.key_count, length):
        part = slice(begin, begin + len(step.entered))
        if len(step.entered):
            yield part, step.after - step.entered["cost"]
        begin = part.stop


# --- the moving window

MAX_STEP_ROWS = 1 << 17
"""Requests that enter the window, or leave it, in one step; results do not depend on it."""


class _WindowStep(NamedTuple):
    """Requests that enter the window of their key, and requests that leave it, in the order of time."""

    entered: NDArray[Any]
    after: Integers
    """The cost in the window as each request enters, this request included."""
    left: NDArray[Any]
    before: Integers
    """The cost in the window as each request leaves, this request included."""


def _move_window(rows: Rows, keys: int, length: int) -> Iterator[_WindowStep]:
    """Yield steps in which rows enter the window and leave it `length` later; at equal times, leaving comes first."""
    costs = np.zeros(keys, np.int64)  # in the window of each key
    if len(rows) <= MAX_STEP_ROWS:
        every = rows[0 : len(rows)]
        if len(every):  # lazy rows may be fewer than their length
            yield _step(every, every, length, costs)
        return
    entering, leaving = (Cursor(rows, 0, len(rows), MAX_STEP_ROWS) for _ in range(2))
    while len(leaving.ahead):
        times = leaving.ahead["time"].copy()
        since = entering.ahead["time"] - length
        if len(since) and since[-1] < times[-1]:
            left = leaving.take(int(np.searchsorted(times, since[-1], "right")))
            entered = entering.take(len(since))
        else:
            entered = entering.take(int(np.searchsorted(since, times[-1])))
            left = leaving.take(len(times))
        yield _step(entered, left, length, costs)


def _step(entered: NDArray[Any], left: NDArray[Any], length: int, costs: Integers) -> _WindowStep:
    """Let requests enter and leave; update `costs`, the cost in the window of each key."""
    places = np.arange(len(entered)) + np.searchsorted(left["time"], entered["time"] - length, "right")
    enters = np.zeros(len(entered) + len(left), np.bool_)
    enters[places] = True
    keys, changes = np.empty(len(enters), np.uint32), np.empty(len(enters), np.int64)
    keys[enters], keys[~enters] = entered["owner"], left["owner"]
    changes[enters], changes[~enters] = entered["cost"], -left["cost"]
    order = sort_by_key(keys)
    sums, keys = np.cumsum(changes[order]), keys[order]
    firsts = np.flatnonzero(np.diff(keys, prepend=keys[0] + 1 if len(keys) else 0))
    lasts = np.append(firsts[1:], len(keys)) - 1
    initial = costs[keys[firsts]] - np.concatenate([[0], sums])[firsts]
    sums += np.repeat(initial, np.diff(firsts, append=len(keys)))
    costs[keys[firsts]] = sums[lasts]
    after = np.empty(len(enters), np.int64)
    after[order] = sums
    return _WindowStep(entered, after[enters], left, after[~enters] + left["cost"])


def sort_by_key(keys: NDArray[np.uint32]) -> Integers:
    """Return the stable order that groups requests by key: a radix sort by digits of 16 bits."""
    order = np.argsort(keys.astype(np.uint16), kind="stable")
    if len(keys) and keys.max() >> 16:
        order = order[np.argsort((keys >> 16).astype(np.uint16)[order], kind="stable")]
    return order
