"""Needs at one rate within blocks of time, such as days.

Where a single rate counts, this takes less time than all corners of the needs, and finds the same needs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ratelab.lab.decisions import Progress
from ratelab.lab.partition import split_keys
from ratelab.lab.replay import has_compiler
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune import hulls
from ratelab.lab.tune.frontier import MAX_INTEGER, MIN_COMPILED_REQUESTS, group_by_key
from ratelab.quota import Quota

_INTEGERS_PER_REQUEST = 12  # of a partition: its times, costs and keys, their order, and the needs of one length


class BlockNeeds(NamedTuple):
    """The needs of keys within blocks of time, in the order of keys and then of blocks."""

    keys: Integers
    blocks: Integers
    """The number of each block since 1970."""
    needs: Integers


def measure_needs(traffic: Traffic, rate: Quota, progress: Progress = lambda _: None) -> Integers:
    """Return the need of each key at a rate; 0 for a key without requests."""
    needs = np.zeros(traffic.key_count, np.int64)
    (found,) = measure_blocks(traffic, rate, [MAX_INTEGER], progress)
    np.maximum.at(needs, found.keys, found.needs)
    return needs


def measure_blocks(
    traffic: Traffic, rate: Quota, lengths: Sequence[int], progress: Progress = lambda _: None
) -> list[BlockNeeds]:
    """Return the needs within blocks of each of these lengths of time, of the keys with requests in a block.

    Lengths are in nanoseconds, and blocks are aligned to the clock. `progress` is called with the number of further
    requests handled.
    """
    found: list[list[BlockNeeds]] = [[] for _ in lengths]
    for partition in split_keys(traffic, _INTEGERS_PER_REQUEST * len(traffic)):
        keys = partition.select_keys(np.arange(traffic.key_count))
        times, costs, begins = group_by_key(traffic, partition, len(keys))
        find = _choose_loop(costs, begins, rate)
        for parts, length in zip(found, lengths, strict=True):
            owners, blocks, needs = find(times, costs, begins, rate.limit, rate.period, traffic.origin, length)
            parts.append(BlockNeeds(keys[owners], blocks, needs))
        progress(len(times))
    return [BlockNeeds(*map(np.concatenate, zip(*parts, strict=True))) for parts in found]


def _choose_loop(costs: Integers, begins: Integers, rate: Quota) -> Callable[..., Sequence[Integers]]:
    """Return the compiled loop where it is worth it and its integers hold the levels, otherwise the plain one."""
    totals = np.concatenate([[0], np.cumsum(costs)])[begins]
    if (
        len(costs) >= MIN_COMPILED_REQUESTS
        and int(np.diff(totals).max()) * rate.period <= MAX_INTEGER // 2
        and has_compiler()
    ):
        from ratelab.lab.compiled.loops import compile_block_finder  # it needs Numba, which is slow to import

        return compile_block_finder()

    def find(times: Integers, costs: Integers, begins: Integers, *numbers: int) -> Sequence[Integers]:
        columns = hulls.find_block_needs(times.tolist(), costs.tolist(), begins.tolist(), *numbers)
        return [np.array(column, np.int64) for column in columns]

    return find
