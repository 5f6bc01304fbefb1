"""Batches of a closed loop in plain Python: the tries that are due, and the states of keys, in compact tables."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, MutableMapping, Sequence
from functools import partial
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.bounds import check_bound
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.state import NONE, UNLIMITED
from ratelab.lab.spill import Integers
from ratelab.limiter import Algorithm, State

EVENT_FIELDS = TIME, CLIENT, REQUEST, NUMBER, COST = range(5)
"""Fields of an event, a try that is due. `REQUEST` is `NONE` for the first try of a request, `COST` if it is drawn."""

MIN_BATCH = 512
"""Events of a batch; of fewer in all, those that are added soon make up most of a batch."""

BATCHES, SPANS = 32, 4
"""The share of all events that are due in a batch, and the share that is kept in order."""

MIN_SPAN = 4096
"""Events that are kept in order at least."""

MAX_TABLE_WIDTH = 8
"""Integers of a state up to which it is kept in a table."""


# --- events in the order of their time


class Agenda:
    """Events that are due, in the order of their time; those of one time in the order in which they were added.

    Only those before `_horizon` are kept in order. Of the first tries of open clients, those from `_place` on are not
    yet among them; they precede all others of their time.
    """

    def __init__(self, first_tries: tuple[Integers, Integers, Integers], starts: Integers) -> None:
        self._first_tries = first_tries
        self._place = 0
        self._near, self._far = starts[:0], [starts]
        self._horizon = 0

    def __len__(self) -> int:
        return len(self._near) + sum(map(len, self._far)) + len(self._first_tries[TIME]) - self._place

    def add(self, events: Integers) -> None:
        """Add events."""
        is_near = events[:, TIME] < self._horizon
        if is_near.any():
            self._near = _sort(np.concatenate((self._near, events[is_near])))
        if not is_near.all():
            self._far.append(events[~is_near])

    def take(self, limit: int) -> tuple[Integers, int]:
        """Remove the events of a batch, and return them and its end, which is `limit` at most."""
        left = len(self)
        if not len(self._near) or left <= MIN_BATCH:
            self._extend(max(MIN_SPAN, left // SPANS))
        times = self._near[:, TIME]
        size = max(MIN_BATCH, left // BATCHES)
        end = max(int(times[size]), int(times[0]) + 1) if size < len(times) else self._horizon
        end = min(end, limit)
        size = int(np.searchsorted(times, end))
        batch, self._near = self._near[:size], self._near[size:]
        return batch, end

    def _extend(self, size: int) -> None:
        """Bring about this many further events in order."""
        first_times = self._first_tries[TIME]
        far = np.concatenate(self._far)
        times = np.concatenate((first_times[self._place : self._place + size], far[:, TIME]))
        self._horizon = int(np.partition(times, size - 1)[size - 1]) + 1 if len(times) > size else UNLIMITED
        end = int(np.searchsorted(first_times, self._horizon))
        firsts = np.full((end - self._place, len(EVENT_FIELDS)), NONE)
        for field, column in zip((TIME, CLIENT, COST), self._first_tries, strict=True):
            firsts[:, field] = column[self._place : end]
        firsts[:, NUMBER] = 1
        self._place = end
        is_near = far[:, TIME] < self._horizon
        self._near = _sort(np.concatenate((firsts, self._near, far[is_near])))
        self._far = [far[~is_near]]


def _sort(events: Integers) -> Integers:
    ordered: Integers = events[np.argsort(events[:, TIME], kind="stable")]
    return ordered


def to_events(events: Collection[Sequence[int]]) -> Integers:
    """Return a table of events."""
    size = len(events) * len(EVENT_FIELDS)
    return np.fromiter(chain.from_iterable(events), np.int64, size).reshape(len(events), len(EVENT_FIELDS))


# --- a batch


class TryBatch:
    """The tries of a batch, and further ones that become due before its end, as they are processed.

    `REQUEST` of a further try is `NONE - 1` less the position of the first try of its request, if that is in the batch.
    """

    def __init__(self, events: Integers, end: int, most: int) -> None:
        self.events, self.end = events, end
        self.positions = iter(range(most))
        """The positions of tries that may still be processed."""
        self.allowed: list[bool] = []
        """The decisions, in the order of positions."""
        self.soon: list[tuple[Any, ...]] = [(end,)]
        """A heap of the further tries that are due, which begin with their time; the end comes last."""
        self.further: dict[int, Sequence[int]] = {}
        """The further tries that were processed, by position."""
        self.dues: dict[int, int] = {}
        """When the next tries of clients are due, if it was not known ahead, by the position of the last."""

    def list_tries(self, request_rows: int) -> tuple[Integers, NDArray[np.bool_]]:
        """Return all tries that were processed, and which of them are not further ones; number their requests."""
        is_own = np.ones(len(self.allowed), np.bool_)
        is_own[list(self.further)] = False
        tries = np.empty((len(is_own), len(EVENT_FIELDS)), np.int64)
        tries[is_own] = self.events[: np.count_nonzero(is_own)]
        tries[~is_own] = to_events(self.further.values())
        firsts = np.flatnonzero(tries[:, NUMBER] == 1)
        tries[firsts, REQUEST] = request_rows + np.arange(len(firsts))
        return _name_requests(tries, tries), is_own

    def list_rest(self, tries: Integers) -> Integers:
        """Return the events that were not processed, as the batch was cut short."""
        soon = to_events([event for _, _, event, _ in sorted(self.soon)[:-1]])
        return _name_requests(np.concatenate((self.events[len(tries) - len(self.further) :], soon)), tries)


def _name_requests(events: Integers, tries: Integers) -> Integers:
    """Replace positions of first tries by their requests."""
    begun = np.flatnonzero(events[:, REQUEST] < NONE)
    events[begun, REQUEST] = tries[NONE - 1 - events[begun, REQUEST], REQUEST]
    return events


# --- the limiter


class KeyStates:
    """States of all keys: short ones in a table, from which a batch reads those of its keys."""

    def __init__(self, start: Callable[[], State], keys: int, is_table: bool) -> None:
        self._start, self._keys, self._is_table = start, keys, is_table
        self.restart()

    def restart(self) -> None:
        """Begin every key again."""
        self._states = defaultdict[int, State](self._start)
        self._table = np.tile(np.array(self._start() if self._is_table else (), np.int64), (self._keys, 1))

    def read(self, keys: Integers) -> MutableMapping[int, State]:
        """Return the states of some keys."""
        if self._is_table:
            return dict(zip(keys.tolist(), self._table[keys].tolist(), strict=True))
        return self._states

    def write(self, states: MutableMapping[int, State]) -> None:
        """Keep the states that `read` returned, after some steps."""
        if self._is_table:
            size = len(states) * self._table.shape[1]
            values = np.fromiter(chain.from_iterable(states.values()), np.int64, size)
            self._table[np.fromiter(states, np.int64, len(states))] = values.reshape(len(states), -1)


def create_states(algorithm: Algorithm, population: Population) -> KeyStates:
    """Return the states of new keys."""
    traffic = population.first_tries
    start = partial(algorithm.start, traffic.origin)  # a new key has the same state at any time
    is_table = len(start()) <= MAX_TABLE_WIDTH
    try:
        check_bound(algorithm, traffic, population.max_cost)
    except OverflowError:
        is_table = False
    return KeyStates(start, traffic.key_count, is_table)
