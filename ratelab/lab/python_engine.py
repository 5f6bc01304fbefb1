"""The plain engine: steps called one by one, a key after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise, repeat

import numpy as np

from ratelab.algorithms.plugins import attribute_errors, is_ours
from ratelab.errors import short_repr
from ratelab.lab.decisions import DECISION, Columns, Decisions, Progress, Row
from ratelab.lab.partition import Requests, put, shares
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Asked, key_count
from ratelab.limiter import Algorithm, State

Step = Callable[[State, int, int], Row]

BETWEEN_REPORTS = 50_000

_NUMBER = 5
"""A number of Python takes so many times the room of one in a table."""


def decide(algorithm: Algorithm, traffic: Asked, columns: Columns, progress: Progress) -> None:
    """Decide every request of `traffic`, and fill `columns`, which are of as many requests.

    Keys know nothing of one another, so in each part of the traffic one is replayed after the other.
    Raises `InputError` if an algorithm from outside fails or does not return five numbers.
    """
    parts = traffic.parts()
    with attribute_errors(algorithm):
        # in a single part, one state is held at a time
        width = len(algorithm.start(traffic.origin)) if len(parts) > 1 else 0
        for share in shares(traffic, key_count(traffic) * width * _NUMBER):
            states: dict[int, State] = {}
            for part in parts:
                own = share.of(traffic.part(part))
                rows = _decided(algorithm, own, traffic.origin, states, part is parts[-1], progress)
                for name, column in columns.items():
                    put(column, part, own, rows[name])


def _decided(
    algorithm: Algorithm, own: Requests, origin: int, states: dict[int, State], last: bool, progress: Progress
) -> Decisions:
    """Decide some requests; `states` are kept, new ones unless these requests are the last."""
    decisions = np.empty(len(own.keys), DECISION)
    by_key = np.argsort(own.keys, kind="stable")
    rows = chain.from_iterable(_key_by_key(algorithm, own, origin, by_key, states, last))
    for begin in range(0, len(by_key), BETWEEN_REPORTS):
        some = by_key[begin : begin + BETWEEN_REPORTS]
        decisions[some] = np.fromiter(islice(rows, len(some)), DECISION, len(some))
        progress(len(some))
    return decisions


def _key_by_key(
    algorithm: Algorithm, own: Requests, origin: int, by_key: Integers, states: dict[int, State], last: bool
) -> Iterator[Iterable[Row]]:
    """Yield the decisions of each key's requests, not yet made; the loop over a key's requests runs in C."""
    keys, times, costs = own.keys[by_key], own.times[by_key] + origin, own.costs[by_key]
    step = algorithm.step if is_ours(algorithm) else _checked(algorithm.step)
    firsts = np.flatnonzero(np.diff(keys.astype(np.int64), prepend=-1)).tolist()
    for begin, end in pairwise([*firsts, len(keys)]):
        key, own_times = int(keys[begin]), times[begin:end].tolist()
        state = states.get(key)
        if state is None:
            state = algorithm.start(own_times[0])
            if not last:
                states[key] = state
        yield map(step, repeat(state), own_times, costs[begin:end].tolist())


def _checked(step: Step) -> Step:
    """Refuse a row that a column would cut or stretch without a word."""

    def checked(state: State, now: int, cost: int) -> Row:
        row = step(state, now, cost)
        if not (
            isinstance(row, tuple) and len(row) == 5 and all(isinstance(value, int) and value >= 0 for value in row)
        ):
            raise TypeError(f"step() returned {short_repr(row)}")
        return row

    return checked
