"""Tables of a closed loop at its beginning, from the description of its clients, its server and its faults."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.closed_loop import state, streams
from ratelab.lab.closed_loop.behavior import Behavior, Delay, Fault, Population, Retry, Server
from ratelab.lab.closed_loop.gates import MAX_RATE, MILLION
from ratelab.lab.closed_loop.state import NONE, RETRY_POLICIES, UNLIMITED
from ratelab.lab.closed_loop.windows import WINDOW_WIDTH, bucket_width
from ratelab.lab.scenarios.arrivals import negative_logs
from ratelab.lab.spill import Integers
from ratelab.quota import NS_PER_S

MAX_BACKOFFS = 4096
"""Waits that are computed ahead for the retries of a behavior; later retries wait as long as the last of them."""

FAILURE_CODES = {
    "denied": state.DENIED, "error": state.FAULT, "timeout": state.TIMED_OUT, "shed": state.SHED, "local": state.LOCAL,
}  # fmt: skip

DROPS = ("none", "stale", "wait", "count")


class DelayTable:
    """Delays as rows of integers, and the chances and the values that they choose from."""

    def __init__(self) -> None:
        self.rows: list[list[int]] = []
        self.chances: list[float] = [0.0]
        self.values: list[int] = [0]

    def add(self, delay: Delay | None) -> int:
        """Add a delay and return the number of its row, `NONE` without one."""
        if delay is None:
            return NONE
        self.rows.append(self._describe(delay))
        return len(self.rows) - 1

    def _describe(self, delay: Delay) -> list[int]:
        begin = len(self.values)
        if delay.kind == "table":
            self.values += delay.values
            self.chances += np.cumsum(np.array(delay.weights, np.float64)).tolist()
            return [streams.TABLE, delay.mean, 0, begin, len(self.values)]
        if delay.kind == "spread":
            return self._describe_spread(delay)
        kinds = {"constant": streams.CONSTANT, "exponential": streams.EXPONENTIAL, "normal": streams.NORMAL}
        return [kinds[delay.kind], delay.mean, delay.deviation, begin, begin]

    def _describe_spread(self, delay: Delay) -> list[int]:
        """Return a shifted exponential delay, or two exponential phases with the same share of the mean each."""
        mean, deviation, begin = delay.mean, delay.deviation, len(self.values)
        if not deviation:
            return [streams.CONSTANT, mean, 0, begin, begin]
        if deviation <= mean:
            return [streams.SPREAD, mean, deviation, begin, begin]
        square = (deviation / mean) * (deviation / mean)
        first = (1.0 + math.sqrt((square - 1.0) / (square + 1.0))) / 2.0
        self.chances.append(first)
        self.values.append(0)
        return [streams.PHASES, int(mean / (2.0 * first)), int(mean / (2.0 * (1.0 - first))), begin, begin]


def create_world_fields(population: Population) -> dict[str, Any]:
    """Return what the world of a population is at the beginning, by the name of its field, but for what grows.

    `heap` has two columns, the times and the events.
    """
    delays = DelayTable()
    backoffs: list[int] = []
    behaviors = np.array([describe_behavior(each, delays, backoffs) for each in population.behaviors], np.int64)
    clients, windows = create_clients(population, behaviors)
    server = find_server(population)
    columns = streams.create_streams(population.seed, population.first_tries.names)
    heap = list_starts(population, columns)
    first_times, first_clients, first_costs = list_first_tries(population)
    return {
        "totals": create_totals(len(clients)),
        "behaviors": behaviors,
        "clients": clients,
        "windows": windows,
        "server": describe_server(server, delays),
        "delays": delays.rows,
        "chances": delays.chances,
        "values": delays.values,
        "backoffs": backoffs or [0],
        "changes": list_changes(population.faults),
        "streams": columns.reshape(-1, streams.STREAMS),
        "heap": heap,
        "error_chance": 0.0 if server is None else float(server.errors),
        "duration": population.duration,
        "origin": population.first_tries.origin,
        "first_times": first_times,
        "first_clients": first_clients,
        "first_costs": first_costs,
    }


def find_server(population: Population) -> Server | None:
    """Return the server; where there are faults of a server, and no server, one with unlimited capacity."""
    if population.server is None and any(fault.kind in ("outage", "slow") for fault in population.faults):
        return Server()
    return population.server


# --- behaviors


def describe_behavior(behavior: Behavior, delays: DelayTable, backoffs: list[int]) -> list[int]:
    """Return the row of a behavior; add its delays and the waits of its retries."""
    row = [0] * len(state.BEHAVIOR_FIELDS)
    costs = Delay(1, "table", values=tuple(cost for cost, _ in behavior.costs),
                  weights=tuple(weight for _, weight in behavior.costs))  # fmt: skip
    row[state.IS_SERIAL] = int(behavior.loop == "serial")
    row[state.THINK_DELAY] = delays.add(behavior.think)
    row[state.PACE_DELAY] = delays.add(behavior.pace)
    row[state.MAX_REQUESTS] = UNLIMITED if behavior.requests is None else behavior.requests
    row[state.TIMEOUT] = _or_none(behavior.timeout)
    row[state.LATENCY] = delays.add(behavior.latency)
    row[state.COST_DELAY] = delays.add(Delay(behavior.costs[0][0]) if len(behavior.costs) == 1 else costs)
    _describe_retry(row, behavior.retry, backoffs)
    if behavior.breaker is not None:
        stops = {"retries": state.STOPS_RETRIES, "calls": state.STOPS_CALLS}
        window = behavior.breaker.window
        row[state.BREAKER] = stops[behavior.breaker.stops]
        row[state.BREAKER_SHARE] = to_millionths(behavior.breaker.failures)
        row[state.BREAKER_WIDTH] = 0 if window is None else bucket_width(window)
        row[state.PAUSE] = behavior.breaker.pause
    if behavior.adaptive is not None:
        row[state.THROTTLE_K] = to_millionths(behavior.adaptive.k)
        row[state.THROTTLE_WIDTH] = bucket_width(behavior.adaptive.window)
    row[state.HEDGE_AFTER] = NONE
    if behavior.hedge is not None:
        row[state.HEDGE_AFTER], row[state.MAX_HEDGES] = behavior.hedge.after, behavior.hedge.most
    if behavior.aimd is not None:
        row[state.AIMD_RATE] = min(behavior.aimd.rate, MAX_RATE)
        row[state.AIMD_INCREASE] = behavior.aimd.increase
        row[state.AIMD_DECREASE] = to_millionths(behavior.aimd.decrease)
    stops_calls = row[state.BREAKER] == state.STOPS_CALLS
    row[state.HAS_GATES] = int(stops_calls or row[state.THROTTLE_K] > 0)
    row[state.LEARNS] = int(row[state.BREAKER] > 0 or row[state.THROTTLE_K] > 0 or row[state.AIMD_RATE] > 0)
    return row


def _describe_retry(row: list[int], retry: Retry, backoffs: list[int]) -> None:
    row[state.RETRY_POLICY] = RETRY_POLICIES.index(retry.policy)
    row[state.BASE] = retry.base
    row[state.CAP] = retry.cap
    row[state.ATTEMPTS] = UNLIMITED if retry.attempts is None else retry.attempts
    if retry.policy == "none":
        row[state.ATTEMPTS] = 0
    row[state.DEADLINE] = _or_none(retry.deadline)
    row[state.BACKOFFS] = len(backoffs)
    backoffs += list_backoffs(retry)
    row[state.BACKOFFS_END] = len(backoffs)
    row[state.HONORS] = ("none", "retry-after", "ratelimit").index(retry.honors)
    row[state.JITTER] = ("none", "equal", "full").index(retry.jitter)
    row[state.RETRIED] = sum(1 << FAILURE_CODES[failure] for failure in retry.retry_on)
    if retry.budget is not None:
        row[state.RATIO] = to_millionths(retry.budget.ratio)
        row[state.PAID_BY_SUCCESS] = int(retry.budget.on == "success")
        row[state.MAX_TOKENS] = to_millionths(retry.budget.cap)
        row[state.TOKENS_PER_RETRY] = to_millionths(retry.budget.cost)


def list_backoffs(retry: Retry) -> list[int]:
    """Return the exponential waits of a retry policy, up to its cap."""
    waits: list[int] = []
    wait = Fraction(retry.base)
    while len(waits) < MAX_BACKOFFS:
        waits.append(min(int(wait), retry.cap))
        if wait >= retry.cap or retry.multiplier == 1 or not wait:
            break
        wait *= retry.multiplier
    return waits


def to_millionths(number: Fraction) -> int:
    """Return a number in millionths, rounded down."""
    return int(number * MILLION)


def _or_none(value: int | None) -> int:
    return NONE if value is None else value


# --- clients


def create_clients(population: Population, behaviors: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the rows of all clients, and the windows of those that have some."""
    behavior_of = population.behavior_of
    clients = np.zeros((len(behavior_of), len(state.CLIENT_FIELDS)), np.int64)
    own = behaviors[behavior_of] if len(behavior_of) else np.zeros((0, behaviors.shape[1]), np.int64)
    clients[:, state.BEHAVIOR] = behavior_of
    clients[:, state.KEY] = population.first_tries.keys
    clients[:, state.TOKENS] = own[:, state.MAX_TOKENS]
    clients[:, state.OPEN_UNTIL] = NONE
    clients[:, state.RATE] = own[:, state.AIMD_RATE]
    clients[:, state.RAISED_AT] = clients[:, state.LOWERED_AT] = -NS_PER_S
    count = 0
    for window, needs in (
        (state.BREAKER_WINDOW, own[:, state.BREAKER_WIDTH] > 0),
        (state.THROTTLE_WINDOW, own[:, state.THROTTLE_K] > 0),
    ):
        clients[:, window] = np.where(needs, count + np.cumsum(needs) - 1, NONE)
        count += int(np.count_nonzero(needs))
    return clients, np.zeros((max(count, 1), WINDOW_WIDTH), np.int64)


# --- the server and faults


def describe_server(server: Server | None, delays: DelayTable) -> list[int]:
    """Return the fields of a server; add its service time."""
    if server is None:
        return [0] * len(state.SERVER_FIELDS)
    row = [0] * len(state.SERVER_FIELDS)
    row[state.WORKERS] = UNLIMITED if server.workers is None else server.workers
    row[state.SERVICE_DELAY] = delays.add(server.service)
    row[state.QUEUE] = UNLIMITED if server.queue is None else server.queue
    row[state.IS_LIFO] = int(server.order == "lifo")
    row[state.DROP] = DROPS.index(server.drop)
    row[state.DROP_LIMIT] = server.drop_limit
    row[state.SLOWDOWN] = server.slowdown
    row[state.IS_OPTIMISTIC] = int(server.optimistic)
    return row


def list_changes(faults: Sequence[Fault]) -> list[list[int]]:
    """Return what holds from each time on at which a fault begins or ends; the first row holds from the beginning."""
    times = {time for fault in faults for time in (fault.begin, fault.end) if time > 0}
    rows = []
    for time in (0, *sorted(times)):
        active = [fault for fault in faults if fault.begin <= time < fault.end]
        outages = [fault for fault in active if fault.kind == "outage"]
        restarts = any(fault.kind == "limiter-restart" and fault.begin == time for fault in faults)
        rows.append([
            time,
            int(any(not fault.hold for fault in outages)),
            max((fault.end for fault in outages), default=0),
            math.prod(fault.factor for fault in active if fault.kind == "slow"),
            math.prod(fault.factor for fault in active if fault.kind == "spike"),
            int(restarts and time > 0),
        ])  # fmt: skip
    return rows


# --- first tries


def list_first_tries(population: Population) -> tuple[Integers, Integers, Integers]:
    """Return times, clients and costs of the first tries of open clients, with those that spikes add.

    In a spike, the copies of a first try are spread evenly until the next first try of its client, or until the end of
    the spike if that is earlier.
    """
    traffic = population.first_tries
    times, clients, costs = traffic.times, traffic.clients, traffic.costs
    for fault in population.faults:
        if fault.kind == "spike" and fault.factor > 1:
            times, clients, costs = _copy_tries(times, clients, costs, fault)
    return times, clients, costs


def _copy_tries(
    times: Integers, clients: Integers, costs: Integers, spike: Fault
) -> tuple[Integers, Integers, Integers]:
    order = np.lexsort((np.arange(len(times)), clients))
    following = np.full(len(times), spike.end)
    same = clients[order][1:] == clients[order][:-1]
    following[order[:-1][same]] = times[order[1:][same]]
    inside = np.flatnonzero((spike.begin <= times) & (times < spike.end))
    gaps = np.minimum(following[inside], spike.end) - times[inside]
    copies = [times] + [times[inside] + gaps * number // spike.factor for number in range(1, spike.factor)]
    all_times = np.concatenate(copies)
    order = np.argsort(all_times, kind="stable")
    all_clients = np.concatenate([clients, *[clients[inside]] * (spike.factor - 1)])
    all_costs = np.concatenate([costs, *[costs[inside]] * (spike.factor - 1)])
    return all_times[order], all_clients[order], all_costs[order]


def draw_starts(population: Population, columns: NDArray[np.uint64]) -> tuple[Integers, Integers]:
    """Return the times of the first requests of serial clients, and the clients, in their order."""
    starts = np.full(len(population.behavior_of), NONE, np.int64)
    for number, behavior in enumerate(population.behaviors):
        if behavior.loop == "serial" and behavior.requests != 0:
            clients = np.flatnonzero(population.behavior_of == number)
            starts[clients] = _draw_starts(behavior, columns, clients * streams.STREAMS + streams.START)
    clients = np.flatnonzero(starts != NONE)
    return starts[clients], clients


def _draw_starts(behavior: Behavior, columns: NDArray[np.uint64], places: Integers) -> Integers:
    wait = behavior.pace or behavior.think or Delay(0)
    if not wait.mean:
        return np.zeros(len(places), np.int64)
    uniform = streams.draw_uniforms(columns, places)
    shares = negative_logs(uniform) if wait.kind == "exponential" else 1.0 - uniform
    return np.minimum(wait.mean * shares, UNLIMITED).astype(np.int64)


def list_starts(population: Population, columns: NDArray[np.uint64]) -> tuple[Integers, Integers]:
    """Return the times and the events of the first requests of serial clients, in the order of the schedule."""
    times, clients = draw_starts(population, columns)
    events = np.arange(len(clients)) << state.ORDER_SHIFT | state.START_DUE << state.KIND_SHIFT | clients
    order = np.argsort(times, kind="stable")
    order = order[times[order] < population.duration]
    return times[order], events[order]


def create_totals(clients: int) -> list[int]:
    """Return the totals at the beginning."""
    totals = [0] * len(state.TOTALS)
    totals[state.FREE_TRIES] = totals[state.FREE_REQUESTS] = totals[state.OLDEST] = totals[state.NEWEST] = NONE
    totals[state.USED_REQUESTS] = totals[state.SEQUENCE] = clients
    return totals
