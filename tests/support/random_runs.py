"""Random runs: requests with random decisions, as outcomes and for counting one by one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from drawn_rows import draw_rows
from durations import SECOND
from hypothesis import strategies as st

from ratelab import Quota, create
from ratelab.algorithms import Policy
from ratelab.lab.decisions import Outcome
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import RequestSorter, Traffic
from ratelab.lab.windows import Rows
from ratelab.limiter import ROW_FIELDS


class Request(NamedTuple):
    """A request, its decision and the decision of the exact log."""

    gap: int
    client: int
    cost: int
    allowed: bool
    delay: int
    exact: bool


NAMES = ("alice", "bob", "eve", "mallory")
KEYS = (0, 1, 1, 2)
GAPS, DELAYS, COSTS = (0, 0, 1, 3, 7, SECOND), (0, 0, 0, 1, 5, SECOND), (1, 1, 2, 9)
runs = draw_rows(GAPS, range(3), COSTS, (False, True), DELAYS, (False, True)).map(
    lambda rows: [Request(*row) for row in rows]
)
quotas = st.sampled_from([Quota(1, 1, 1), Quota(1, 1, 7), Quota(2, SECOND, 5), Quota(1, 2**62 - 1, 1)])


def create_column(values: Sequence[int]) -> Integers:
    """Return a column."""
    return np.array(values, np.int64)


def create_rows(left: Sequence[tuple[int, int, int]]) -> Rows:
    """Return departures, given as time, cost and key, in order."""
    sorter = RequestSorter()
    times, costs, keys = (create_column([departure[column] for departure in left]) for column in range(3))
    sorter.add(times, keys, costs)
    return sorter.sort()


def create_traffic(run: list[Request]) -> Traffic:
    """Return the traffic of a run."""
    times = np.cumsum(create_column([request.gap for request in run]))
    clients, costs = ([getattr(request, column) for request in run] for column in ("client", "cost"))
    duration = int(times[-1]) + 1 if run else 1
    return Traffic(times, create_column(clients), create_column(costs), NAMES, create_column(KEYS), duration)


def create_outcomes(run: list[Request], quota: Quota) -> tuple[Outcome, Outcome]:
    """Return the drawn outcome of a token bucket and that of the exact log, both for the same traffic."""
    traffic, log = create_traffic(run), create("sliding-log", quota)
    outcome = _outcome(create("token-bucket", quota), traffic, [(request.allowed, request.delay) for request in run])
    return outcome, _outcome(log, traffic, [(request.exact, 0) for request in run])


def _outcome(policy: Policy, traffic: Traffic, drawn: list[tuple[bool, int]]) -> Outcome:
    allowed = np.array([allowed for allowed, _ in drawn], np.bool_)
    columns = {field: np.zeros(len(drawn), np.int64) for field in ROW_FIELDS}
    delays = create_column([delay if allowed else 0 for allowed, delay in drawn])
    return Outcome(policy, traffic, {**columns, "allowed": allowed, "delay_ns": delays})


def list_departures(run: list[Request]) -> list[tuple[int, int, int]]:
    """Return the departure time, cost and key of each admitted request, in the order of arrival."""
    times = create_traffic(run).times.tolist()
    return [
        (time + request.delay, request.cost, KEYS[request.client])
        for time, request in zip(times, run, strict=True)
        if request.allowed
    ]


def count_windows(left: list[tuple[int, int, int]], length: int) -> dict[tuple[int, int], int]:
    """Return the cost in the window that begins with each departure, by start time and key."""
    return {
        (begin, key): sum(cost for at, cost, other in left if other == key and begin <= at < begin + length)
        for begin, _, key in left
    }
