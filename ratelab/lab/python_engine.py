"""Replay engine in plain Python: calls `step` for each request, one key after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import traits_of
from ratelab.algorithms.plugins import FAILURES, attributed_error, check_row
from ratelab.lab.decisions import DECISION_DTYPE, Columns, Decisions, Progress
from ratelab.lab.partition import split_keys
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm, Row, State

Step = Callable[[State, int, int], Row]

PROGRESS_STEP = 50_000
"""Requests between two calls of `progress`."""

_INTEGERS_PER_PYTHON_INT = 5  # a Python int takes about as much memory as five 64-bit integers


def decide(algorithm: Algorithm, traffic: Traffic, columns: Columns, progress: Progress) -> None:
    """Decide every request of `traffic` and fill `columns`, which have one value for each request.

    Keys are independent, so they are replayed one after the other. Raises `InputError` if a third-party algorithm fails
    or does not return five integers >= 0.
    """
    try:
        if traffic.on_disk:
            _decide_on_disk(algorithm, traffic, columns, progress)
            return
        requests = traffic.request_keys, traffic.clock_times, traffic.costs
        for places, rows in _decide_by_key(algorithm, *requests, progress):
            for name, column in columns.items():
                column[places] = rows[name]
    except FAILURES as error:
        raise attributed_error(error, algorithm) from error


def _decide_on_disk(algorithm: Algorithm, traffic: Traffic, columns: Columns, progress: Progress) -> None:
    """Decide a batch of requests at a time, with the states of one partition of the keys in memory."""
    width = len(algorithm.start(traffic.origin))
    for partition in split_keys(traffic, traffic.key_count * width * _INTEGERS_PER_PYTHON_INT):
        states: dict[int, State] = {}
        for part, batch in traffic.batches():
            requests = partition.select(batch)
            decided = np.empty(len(requests.keys), DECISION_DTYPE)
            times = requests.times + traffic.origin
            for places, rows in _decide_by_key(algorithm, requests.keys, times, requests.costs, progress, states):
                decided[places] = rows
            for name, column in columns.items():
                column[part][requests.places] = decided[name]


def _decide_by_key(
    algorithm: Algorithm,
    keys: NDArray[Any],
    times: Integers,
    costs: Integers,
    progress: Progress,
    states: dict[int, State] | None = None,
) -> Iterator[tuple[Integers, Decisions]]:
    """Yield decisions in batches, and the positions of their requests; update `states` by key, if given."""
    by_key = np.argsort(keys, kind="stable")
    rows = chain.from_iterable(_rows_by_key(algorithm, keys[by_key], times[by_key], costs[by_key], states))
    for begin in range(0, len(by_key), PROGRESS_STEP):
        places = by_key[begin : begin + PROGRESS_STEP]
        yield places, np.fromiter(islice(rows, len(places)), DECISION_DTYPE, len(places))
        progress(len(places))


def _rows_by_key(
    algorithm: Algorithm, keys: NDArray[Any], times: Integers, costs: Integers, states: dict[int, State] | None
) -> Iterator[Iterable[Row]]:
    """Yield an iterator over the rows of each key in turn; its loop runs in C."""
    step = algorithm.step if traits_of(algorithm).bound else _check_rows(algorithm.step)
    firsts = np.flatnonzero(np.diff(keys.astype(np.int64), prepend=-1)).tolist()
    for begin, end in pairwise([*firsts, len(keys)]):
        key, key_times = int(keys[begin]), times[begin:end].tolist()
        state = None if states is None else states.get(key)
        if state is None:
            state = algorithm.start(key_times[0])
            if states is not None:
                states[key] = state
        yield map(step, repeat(state), key_times, costs[begin:end].tolist())


def _check_rows(step: Step) -> Step:
    """Wrap `step` to check every row."""
    return lambda state, now, cost: check_row(step(state, now, cost))
