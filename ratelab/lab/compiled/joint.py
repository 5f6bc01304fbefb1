"""Joint replay as machine code: several algorithms decide each request together, in one pass over the columns.

All states are in one array: side by side if the policies have the same keys, otherwise one policy after the other.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratelab.algorithms import traits_of
from ratelab.lab.compiled import check_bound
from ratelab.lab.compiled.joint_loops import compile_joint_loop
from ratelab.lab.compiled.optimize import LONG_STATES
from ratelab.lab.compiled.states import MIN_LONG_STATE, STATE_PREFETCH
from ratelab.lab.compiled.step_source import UnfitError
from ratelab.lab.decisions import Progress, is_complete
from ratelab.lab.partition import Partition, split_keys
from ratelab.lab.policies.engine import JointColumns, expand_costs, expand_keys
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import BATCH_REQUESTS, Traffic


def decide(parts: Sequence[PolicyTraffic], traffic: Traffic, columns: JointColumns, progress: Progress) -> None:
    """Decide every request by all policies that apply to it, which all charge it or none; fill `columns`.

    Where all policies have the keys of the traffic, these are replayed in partitions whose states fit in memory.
    Otherwise the states of all keys are in memory, since a shared counter couples them. Raises `UnfitError` if plain
    Python must decide the requests.
    """
    lanes = [_Lane(part, traffic) for part in parts]
    unit_costs = all(lane.unit_costs for lane in lanes)
    stand_ins, loop = compile_joint_loop(
        [(lane.algorithm, lane.width) for lane in lanes], is_complete(columns.whole), unit_costs
    )
    share_keys = all(lane.has_client_keys for lane in lanes)
    total = traffic.key_count * sum(lane.width for lane in lanes)
    for partition in split_keys(traffic, total) if share_keys else [Partition(0, 0)]:
        places, states = _create_states(lanes, partition, traffic.origin, share_keys)
        buffers = _Buffers(lanes, share_keys, min(len(traffic), BATCH_REQUESTS))
        for part, batch in traffic.batches():
            selected = partition.select(batch)
            rows, count = selected.places, len(selected.keys)
            keys = buffers.keys[:, : count + STATE_PREFETCH]
            for row, lane in zip(keys, lanes, strict=False):
                row[:count] = selected.keys if share_keys else lane.keys[part][rows]
                row[count:] = row[count - 1] if count else 0
            costs = None if unit_costs else np.array([lane.costs[part][rows] for lane in lanes])
            verdicts, delays = buffers.verdicts[:, :count], buffers.delays[:, :count]
            whole = [*columns.whole.values(), columns.bound]
            in_place = isinstance(rows, slice)
            filled = [column[part] if in_place else np.empty(count, column.dtype) for column in whole]
            times = np.add(selected.times, traffic.origin, out=buffers.times[:count])
            loop(stand_ins, places, states, buffers.scratch, keys, times, costs, *filled, verdicts, delays)
            for column, values in zip(whole, filled, strict=True) if not in_place else ():
                column[part][rows] = values
            for number, (lane, each) in enumerate(zip(lanes, columns.parts, strict=True)):
                each["allowed"][part][rows] = verdicts[number]
                if lane.queues:
                    each["delay_ns"][part][rows] = delays[number]
            progress(count)


class _Buffers:
    """Columns of a batch, which later batches use again."""

    def __init__(self, lanes: Sequence[_Lane], share_keys: bool, size: int) -> None:
        self.keys = np.empty((1 if share_keys else len(lanes), size + STATE_PREFETCH), np.uint32)
        self.times = np.empty(size, np.int64)
        self.verdicts = np.empty((len(lanes), size), np.bool_)
        self.delays = np.empty((len(lanes), size if any(lane.queues for lane in lanes) else 0), np.int64)
        self.scratch = np.empty(len(lanes) * MIN_LONG_STATE, np.int64)


class _Lane:
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
    lanes: Sequence[_Lane], partition: Partition, now: int, share_keys: bool
) -> tuple[tuple[tuple[int, int], ...], Integers]:
    """Return the states of new keys in one array, with the begin of each policy's first state and their distance."""
    starts = [np.array(lane.algorithm.start(now), np.int64) for lane in lanes]
    counts = [len(range(lane.key_count)[partition.number :: 1 << partition.bits]) for lane in lanes]
    if share_keys:
        row = np.concatenate(starts)
        begins = np.cumsum([0, *map(len, starts)]).tolist()
        return tuple((begin, len(row)) for begin in begins[:-1]), np.tile(row, max(counts))
    tables = [np.tile(start, count) for start, count in zip(starts, counts, strict=True)]
    begins = np.cumsum([0, *map(len, tables)]).tolist()
    return tuple((begin, len(start)) for begin, start in zip(begins, starts, strict=False)), np.concatenate(tables)
