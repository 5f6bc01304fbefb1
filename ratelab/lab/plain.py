"""The plain engine: steps called one by one, a key after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise, repeat

import numpy as np

from ratelab.algorithms.outside import blaming, is_ours
from ratelab.errors import shown
from ratelab.lab.decisions import DECISION, Decisions, Progress, Row
from ratelab.lab.traffic import Integers, Traffic
from ratelab.limiter import Algorithm, State

Step = Callable[[State, int, int], Row]

BETWEEN_REPORTS = 50_000


def decide(algorithm: Algorithm, traffic: Traffic, progress: Progress) -> Decisions:
    """Decide every request of `traffic`, each key's in turn from a state of its own.

    Keys know nothing of one another, so one is replayed after the other and a single state is held at a time.
    Raises `InputError` if an algorithm from outside fails or does not return five numbers.
    """
    decisions = np.empty(len(traffic), DECISION)
    by_key = np.argsort(traffic.request_keys, kind="stable")
    rows = chain.from_iterable(_key_by_key(algorithm, traffic, by_key))
    with blaming(algorithm):
        for begin in range(0, len(traffic), BETWEEN_REPORTS):
            part = by_key[begin : begin + BETWEEN_REPORTS]
            decisions[part] = np.fromiter(islice(rows, len(part)), DECISION, len(part))
            progress(len(part))
    return decisions


def _key_by_key(algorithm: Algorithm, traffic: Traffic, by_key: Integers) -> Iterator[Iterable[Row]]:
    """Yield the decisions of each key's requests, not yet made; the loop over a key's requests runs in C."""
    keys, times, costs = traffic.request_keys[by_key], traffic.clock_times[by_key], traffic.costs[by_key]
    step = algorithm.step if is_ours(algorithm) else _checked(algorithm.step)
    firsts = np.flatnonzero(np.diff(keys, prepend=-1)).tolist()
    for begin, end in pairwise([*firsts, len(keys)]):
        own_times = times[begin:end].tolist()
        state = algorithm.start(own_times[0])
        yield map(step, repeat(state), own_times, costs[begin:end].tolist())


def _checked(step: Step) -> Step:
    """Refuse a row that a column would cut or stretch without a word."""

    def checked(state: State, now: int, cost: int) -> Row:
        row = step(state, now, cost)
        if not (
            isinstance(row, tuple) and len(row) == 5 and all(isinstance(value, int) and value >= 0 for value in row)
        ):
            raise TypeError(f"step() returned {shown(row)}")
        return row

    return checked
