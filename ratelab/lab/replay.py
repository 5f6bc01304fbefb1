"""The one loop that drives an algorithm over traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import chain, islice, pairwise, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.traffic import Integers, Traffic
from ratelab.limiter import Algorithm, Decision

DECISION = np.dtype([(field, np.bool_ if field == "allowed" else np.int64) for field in Decision._fields])
"""A column of decisions: the five fields of `Decision`."""

Decisions = NDArray[Any]
"""One row of dtype `DECISION` for each request, in the order of arrival."""

Row = tuple[bool, int, int, int, int]
"""One decision, as `step` returns it."""

Progress = Callable[[int], object]
"""Called now and then with how many more requests have been decided."""

BETWEEN_REPORTS = 50_000


def replay(algorithm: Algorithm, traffic: Traffic, progress: Progress = lambda _: None) -> Decisions:
    """Decide every request of `traffic`, each key's in turn from a state of its own.

    Keys know nothing of one another, so one is replayed after the other and a single state is held at a time.
    Raises `InputError` if an algorithm from outside fails or does not return five numbers.
    """
    decisions = np.empty(len(traffic), DECISION)
    by_key = np.argsort(traffic.request_keys, kind="stable")
    rows = chain.from_iterable(_key_by_key(algorithm, traffic, by_key))
    try:
        for begin in range(0, len(traffic), BETWEEN_REPORTS):
            part = by_key[begin : begin + BETWEEN_REPORTS]
            decisions[part] = np.fromiter(islice(rows, len(part)), DECISION, len(part))
            progress(len(part))
    except Exception as error:
        if type(algorithm).__module__.startswith("ratelab."):
            raise
        problem = f"{type(error).__name__}: {error}"
        raise InputError(
            f"{algorithm.name} failed: {problem}; start() must return a list of integers and step() "
            "allowed, remaining, retry_after_ns, reset_after_ns and delay_ns"
        ) from error
    return decisions


def _key_by_key(algorithm: Algorithm, traffic: Traffic, by_key: Integers) -> Iterator[Iterable[Row]]:
    """Yield the decisions of each key's requests, not yet made; the loop over a key's requests runs in C."""
    keys, times, costs = traffic.request_keys[by_key], traffic.clock_times[by_key], traffic.costs[by_key]
    firsts = np.flatnonzero(np.diff(keys, prepend=-1)).tolist()
    for begin, end in pairwise([*firsts, len(keys)]):
        own_times = times[begin:end].tolist()
        state = algorithm.start(own_times[0])
        yield map(algorithm.step, repeat(state), own_times, costs[begin:end].tolist())
