"""Joint replay in plain Python: requests in the order of time, each decided by all policies that apply to it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from functools import cache
from heapq import heappop, heappush
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import traits_of
from ratelab.algorithms.composite import Combined, Composite, Part
from ratelab.algorithms.plugins import FAILURES, attributed_error, check_row
from ratelab.lab.decisions import DECISION_DTYPE, Columns, Progress
from ratelab.lab.policies.requests import NOT_ASKED, PolicyTraffic
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic, split_batches
from ratelab.limiter import Row, State

NOT_BOUND = -1
"""The `bound` of an admitted request."""

PART_FIELDS = ("allowed", "delay_ns")
"""The fields of the decision of each policy that are kept."""


class JointColumns(NamedTuple):
    """Decisions of several policies together, and the decision of each."""

    whole: Columns
    """Fields of the decision on each request."""
    bound: NDArray[np.int8]
    """The number of the denying policy with the longest `retry_after_ns`, or `NOT_BOUND`."""
    parts: tuple[Columns, ...]
    """The fields `PART_FIELDS` of each policy for each request; without meaning where it does not apply."""


def allocate_joint_columns(parts: Sequence[PolicyTraffic], traffic: Traffic, fields: Sequence[str]) -> JointColumns:
    """Allocate the columns of a joint replay, with these fields of the whole decision.

    The delays of a policy that does not queue are a read-only column of zeros. Where at most one queues, the delays of
    the whole decision are its delays, in the same column.
    """

    def allocate(names: Sequence[str], queues: bool = True) -> Columns:
        return {name: traffic.allocate(DECISION_DTYPE[name]) for name in names if queues or name != "delay_ns"}

    none = np.broadcast_to(np.int64(0), len(traffic))
    queues = [traits_of(part.policy.algorithm).queues for part in parts]
    own = tuple({"delay_ns": none, **allocate(PART_FIELDS, q)} for q in queues)
    delays = [each["delay_ns"] for each, q in zip(own, queues, strict=True) if q] or [none]
    shared = {"delay_ns": delays[0]} if parts and len(delays) == 1 else {}
    whole = {name: shared[name] if name in shared else traffic.allocate(DECISION_DTYPE[name]) for name in fields}
    return JointColumns(whole, traffic.allocate(np.int8), own)


def expand_keys(part: PolicyTraffic, traffic: Traffic) -> NDArray[np.uint32]:
    """Return the key of each request for a policy; 0 where it does not apply."""
    if part.places is None:
        return part.traffic.request_keys
    keys = np.zeros(len(traffic), np.uint32)
    keys[part.places] = part.traffic.request_keys
    return keys


def expand_costs(part: PolicyTraffic, traffic: Traffic) -> Integers:
    """Return the cost of each request for a policy; `NOT_ASKED` where it does not apply."""
    if part.places is None:
        return part.traffic.costs
    costs = np.full(len(traffic), NOT_ASKED, np.int64)
    costs[part.places] = part.traffic.costs
    return costs


def decide(parts: Sequence[PolicyTraffic], traffic: Traffic, columns: JointColumns, progress: Progress) -> None:
    """Decide every request by all policies that apply to it, which all charge it or none; fill `columns`.

    Raises `InputError` if a third-party algorithm fails.
    """
    replay = _JointReplay(parts)
    keys = [expand_keys(part, traffic) for part in parts]
    costs = [expand_costs(part, traffic) for part in parts]
    for batch in split_batches(len(traffic)):
        times = (traffic.times[batch] + traffic.origin).tolist()
        batch_keys = zip(*(column[batch].tolist() for column in keys), strict=True)
        batch_costs = zip(*(column[batch].tolist() for column in costs), strict=True)
        whole, bound = np.empty(len(times), DECISION_DTYPE), columns.bound[batch]
        decided = np.zeros((len(parts), len(times)), DECISION_DTYPE)
        for n, request in enumerate(zip(times, batch_keys, batch_costs, strict=True)):
            replay.settle(request[0])
            combined, bound[n], rows = replay.decide(*request)
            if combined[0] and replay.has_settlements:
                replay.reserve(batch.start + n, *request)
            whole[n] = combined[:5]
            for number, row in rows:
                decided[number, n] = row
        for some_columns, some_rows in zip((columns.whole, *columns.parts), (whole, *decided), strict=True):
            for field, column in some_columns.items():
                if column.flags.writeable:
                    column[batch] = some_rows[field]
        progress(len(times))


class _JointReplay:
    """The states of the keys of several policies."""

    def __init__(self, parts: Sequence[PolicyTraffic]) -> None:
        self._kernels = [_check_steps(Composite.of([part.policy]).parts[0], part) for part in parts]
        self._states: list[dict[int, State]] = [{} for _ in parts]
        self._compose = cache(self._create_composite)  # for each set of policies that apply to the same requests
        self._settlements = {number: _Settled(part) for number, part in enumerate(parts) if part.settlement is not None}
        self._pending: list[tuple[int, int, int, int, int, int]] = []  # by time, with what `settle` needs

    def _create_composite(self, asked: tuple[int, ...]) -> Composite:
        kernels, begin = [], 0
        for number in asked:
            kernel = self._kernels[number]
            kernels.append(kernel._replace(begin=begin, end=begin + kernel.end))
            begin += kernel.end
        return Composite(kernels)

    @property
    def has_settlements(self) -> bool:
        """Whether a policy charges costs that are known afterwards."""
        return bool(self._settlements)

    def reserve(self, place: int, now: int, keys: Sequence[int], costs: Sequence[int]) -> None:
        """Note that an admitted request is to be settled."""
        for number, settled in self._settlements.items():
            if costs[number] != NOT_ASKED:
                due, actual = settled.find(place, now)
                heappush(self._pending, (due, place, number, keys[number], actual - costs[number], now))

    def settle(self, now: int) -> None:
        """Settle the requests whose actual costs are known by now."""
        while self._pending and self._pending[0][0] <= now:
            due, _, number, key, difference, since = heappop(self._pending)
            if difference:
                self._kernels[number].charge(self._states[number][key], due, difference, since)

    def decide(
        self, now: int, keys: Sequence[int], costs: Sequence[int]
    ) -> tuple[Combined, int, list[tuple[int, Row]]]:
        """Return the combined decision, the number of the policy that bound it, and the row of each that applies."""
        asked = tuple(number for number, cost in enumerate(costs) if cost != NOT_ASKED)
        composite = self._compose(asked)
        state: list[int] = []
        for number in asked:
            known = self._states[number].get(keys[number])
            state += self._kernels[number].start(now) if known is None else known
        state, rows = composite.decide(state, now, [costs[number] for number in asked])
        combined = composite.combine(rows)
        bound = NOT_BOUND
        for number, part in zip(asked, composite.parts, strict=True):
            self._states[number][keys[number]] = state[part.begin : part.end]
            if part.policy.name == combined[5]:
                bound = number
        return combined, bound, list(zip(asked, rows, strict=True))


class _Settled:
    """The actual costs of a policy's requests, by their places among all."""

    def __init__(self, part: PolicyTraffic) -> None:
        assert part.settlement is not None  # noqa: S101  (only such policies are settled)
        self._places = None if part.places is None else part.places.tolist()
        self._actual, self._delays = part.settlement.actual.tolist(), part.settlement.delays.tolist()

    def find(self, place: int, now: int) -> tuple[int, int]:
        """Return when a request is settled, and its actual cost."""
        n = place if self._places is None else bisect_left(self._places, place)
        return now + self._delays[n], self._actual[n]


def _check_steps(kernel: Part, part: PolicyTraffic) -> Part:
    """Let errors of a third-party algorithm name it, and check its rows."""
    algorithm = part.policy.algorithm
    if traits_of(algorithm).bound is not None:
        return kernel

    def step(state: State, now: int, cost: int) -> Row:
        try:
            return check_row(kernel.step(state, now, cost))
        except FAILURES as error:
            raise attributed_error(error, algorithm) from error

    return kernel._replace(step=step)
