"""Joint replay as machine code: several algorithms decide each request together, in one pass over the columns.

All states are in one array: side by side if the policies have the same keys, otherwise one policy after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import traits_of
from ratelab.lab.bounds import check_bound
from ratelab.lab.compiled.joint_loops import PolicyLane, compile_joint_loop
from ratelab.lab.compiled.optimize import LONG_STATES
from ratelab.lab.compiled.states import MIN_LONG_STATE, look_ahead
from ratelab.lab.decisions import Progress, is_complete
from ratelab.lab.partition import Partition, split_keys
from ratelab.lab.policies.engine import JointColumns, expand_costs, expand_keys
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.spill import Integers
from ratelab.lab.step_source import UnfitError
from ratelab.lab.traffic import Traffic

HUGE_PAGE_INTEGERS = 1 << 18
"""Integers in a huge page of memory, 2 MB."""


def decide(parts: Sequence[PolicyTraffic], traffic: Traffic, columns: JointColumns, progress: Progress) -> None:
    """Decide every request by all policies that apply to it, which all charge it or none; fill `columns`.

    Where all policies have the keys of the traffic, these are replayed in partitions whose states fit in memory.
    Otherwise the states of all keys are in memory, since a shared counter couples them. Raises `UnfitError` if plain
    Python must decide the requests.
    """
    policies = [_Policy(part, traffic) for part in parts]
    unit_costs = all(policy.unit_costs for policy in policies)
    share_keys = all(policy.has_client_keys for policy in policies)
    several_queue = sum(policy.queues for policy in policies) > 1
    whole = [column if several_queue or name != "delay_ns" else None for name, column in columns.whole.items()]
    own = [
        (each["allowed"], each["delay_ns"] if policy.queues else None)
        for policy, each in zip(policies, columns.parts, strict=True)
    ]
    stand_ins, loop = compile_joint_loop(
        [(policy.algorithm, policy.width) for policy in policies], is_complete(columns.whole), unit_costs, share_keys
    )
    total = traffic.key_count * sum(policy.width for policy in policies)
    for partition in split_keys(traffic, total) if share_keys else [Partition(0, 0)]:
        places, states = _create_states(policies, partition, traffic.origin, share_keys)
        for part, batch in traffic.batches():
            selected = partition.select(batch)
            outputs = _Outputs(part, selected.places, len(selected.keys))
            filled = [[outputs.add(column) for column in each] for each in (*own, (*whole, columns.bound))]
            costs = [
                None if unit_costs else np.ascontiguousarray(policy.costs[part][selected.places]) for policy in policies
            ]
            all_keys = [selected.keys] if share_keys else [policy.keys[part] for policy in policies]
            for looks in zip(*map(look_ahead, all_keys), strict=True):
                some = looks[0][0]
                lanes = tuple(
                    PolicyLane(
                        stand_ins[number],
                        *places[number],
                        None if share_keys and number else looks[number][1],
                        *_slice_all([costs[number], *filled[number]], some),
                    )
                    for number in range(len(policies))
                )
                loop(lanes, states, selected.times[some], traffic.origin, *_slice_all(filled[-1], some))
            outputs.write()
            progress(len(selected.keys))


class _Outputs:
    """The parts of columns for the requests of a partition in a batch."""

    def __init__(self, part: slice, places: slice | Integers, size: int) -> None:
        self._part, self._places, self._size = part, places, size
        self._filled: list[tuple[NDArray[Any], NDArray[Any]]] = []

    def add(self, column: NDArray[Any] | None) -> NDArray[Any] | None:
        """Return an array to fill for a column, if there is one."""
        if column is None or isinstance(self._places, slice):
            return None if column is None else column[self._part]
        self._filled.append((column[self._part], np.empty(self._size, column.dtype)))
        return self._filled[-1][1]

    def write(self) -> None:
        """Write the filled arrays to their columns."""
        for column, values in self._filled:
            column[self._places] = values


def _slice_all(columns: Sequence[NDArray[Any] | None], some: slice) -> list[NDArray[Any] | None]:
    """Return these values of each column, if there is one."""
    return [None if column is None else column[some] for column in columns]


class _Policy:
    """A policy, with its key and its cost of each request."""

    def __init__(self, part: PolicyTraffic, traffic: Traffic) -> None:
        self.algorithm = part.policy.algorithm
        if traits_of(self.algorithm).bound is None:
            raise UnfitError("it declares no bound, which a replay of several policies needs")
        if traits_of(self.algorithm).counts_denials:
            raise UnfitError("denied requests change its state")
        try:
            check_bound(self.algorithm, part.traffic)
        except OverflowError as error:
            raise UnfitError("integer overflow: values exceed 2**63 - 1") from error
        self.width = len(self.algorithm.start(traffic.origin))
        if self.width >= MIN_LONG_STATE and type(self.algorithm) not in LONG_STATES:
            raise UnfitError("its state is long")
        self.queues = traits_of(self.algorithm).queues
        self.key_count = part.traffic.key_count
        self.has_client_keys = part.traffic.keys is traffic.keys and part.traffic.names is traffic.names
        self.unit_costs = part.places is None and part.traffic.has_unit_costs
        self.keys, self.costs = expand_keys(part, traffic), expand_costs(part, traffic)


def _create_states(
    policies: Sequence[_Policy], partition: Partition, now: int, share_keys: bool
) -> tuple[tuple[tuple[int, int], ...], Integers]:
    """Return the states of new keys in one array, with the begin of each policy's first state and their distance."""
    starts = [np.array(policy.algorithm.start(now), np.int64) for policy in policies]
    counts = [len(range(policy.key_count)[partition.number :: 1 << partition.bits]) for policy in policies]
    if share_keys:
        row = np.concatenate(starts)
        begins = np.cumsum([0, *map(len, starts)]).tolist()
        states = _allocate_aligned(max(counts) * len(row))
        states.reshape(-1, len(row))[:] = row
        return tuple((begin, len(row)) for begin in begins[:-1]), states
    tables = [np.tile(start, count) for start, count in zip(starts, counts, strict=True)]
    begins = np.cumsum([0, *map(len, tables)]).tolist()
    return tuple((begin, len(start)) for begin, start in zip(begins, starts, strict=False)), np.concatenate(tables)


def _allocate_aligned(size: int) -> Integers:
    """Allocate integers on huge pages where the system has them: NumPy asks for these from 4 MB on."""
    integers = np.empty(size + 2 * HUGE_PAGE_INTEGERS, np.int64)
    begin = -integers.ctypes.data // integers.itemsize % HUGE_PAGE_INTEGERS
    return integers[begin : begin + size]
