"""Replay of traffic through a policy: compiled where that pays, otherwise in plain Python, with the same decisions."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib.util import find_spec
from itertools import chain, islice, pairwise, repeat
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy, traits_of
from ratelab.algorithms.plugins import FAILURES, attributed_error, check_row
from ratelab.errors import SlowWarning, install_hint
from ratelab.lab.decisions import ADMISSION_FIELDS, DECISION_DTYPE, FIGURE_FIELDS, Columns, Decisions, Outcome, Progress
from ratelab.lab.partition import split_keys
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS, Algorithm, Row, State

MIN_COMPILED_DECISIONS = 1_250_000
"""Decisions of a command from which on loading the compiler takes less time than it saves."""

MIN_ADVISED_DECISIONS = 10_000_000
"""Decisions from which on a user without the compiler is advised to install it."""

PROGRESS_STEP = 50_000
"""Requests between two calls of `progress`."""

_INTEGERS_PER_PYTHON_INT = 5  # a Python int takes about as much memory as five 64-bit integers
_NO_DELAY = np.int64(0)

Step = Callable[[State, int, int], Row]


def replay(
    policy: Policy,
    traffic: Traffic,
    fields: Sequence[str] = ROW_FIELDS,
    progress: Progress = lambda _: None,
    replays: int = 1,
) -> Outcome:
    """Decide every request of `traffic`, each key from a new state; return the columns of `fields`.

    `replays` is how often the traffic is replayed in all, by which the engine is chosen.
    Raises `InputError` if a third-party algorithm fails or does not return five integers.
    """
    traits = traits_of(policy.algorithm)
    if tuple(fields) == FIGURE_FIELDS and traits.bound is not None and not traits.queues:
        columns = _decide(policy.algorithm, traffic, ADMISSION_FIELDS, progress, replays)
        return Outcome(policy, traffic, {**columns, "delay_ns": np.broadcast_to(_NO_DELAY, len(traffic))})
    return Outcome(policy, traffic, _decide(policy.algorithm, traffic, fields, progress, replays))


def has_compiler() -> bool:
    """Return whether Numba, the compiler of the extra `fast`, is installed."""
    return find_spec("numba") is not None


def uses_compiler(traffic: Traffic, replays: int) -> bool:
    """Return whether traffic that is replayed so often is replayed by compiled code, if the algorithm allows it."""
    return replays * len(traffic) >= MIN_COMPILED_DECISIONS and has_compiler()


def suggest_compiler(traffic: Traffic, replays: int) -> None:
    """Warn a user without the compiler if replaying traffic so often takes long."""
    decisions = replays * len(traffic)
    if decisions < MIN_ADVISED_DECISIONS or has_compiler():
        return
    minutes = max(1, round(decisions / 1_000_000 / 60))
    _warn(
        f"plain Python takes about {minutes} min for {decisions:,} decisions, compiled code a hundredth of that: "
        f"{install_hint('fast')}"
    )


def allocate_columns(traffic: Traffic, fields: Sequence[str]) -> Columns:
    """Allocate a column for each of these fields of a decision, with a value for each request."""
    return {field: traffic.allocate(DECISION_DTYPE[field]) for field in fields}


def _decide(algorithm: Algorithm, traffic: Traffic, fields: Sequence[str], progress: Progress, replays: int) -> Columns:
    columns = allocate_columns(traffic, fields)
    if uses_compiler(traffic, replays):
        from ratelab.lab import compiled  # it needs Numba, which is optional, and slow to import

        try:
            compiled.decide(algorithm, traffic, columns, progress)
        except compiled.UnfitError as error:
            _warn(f"{algorithm.name} is replayed in plain Python, a hundred times slower: {error}")
        else:
            return columns
    decide_in_python(algorithm, traffic, columns, progress)
    return columns


def _warn(message: str) -> None:
    warnings.warn(message, SlowWarning, stacklevel=4)


# --- the engine in plain Python


def decide_in_python(algorithm: Algorithm, traffic: Traffic, columns: Columns, progress: Progress) -> None:
    """Decide every request of `traffic` by calls of `step`, and fill `columns`, which have a value for each request.

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
