"""Compiled replay engine: an algorithm's `step` as machine code, in a loop over the columns of some traffic.

Requests are decided in the order of arrival, with the states of all keys in one array. Where that array would not fit
in memory, the keys are replayed in partitions.

Numba compiles the source of `step`, rewritten so that it is fast, and so that every decision is that of plain Python:

* A step with a declared bound (`Traits.bound`) cannot overflow, because the bound is checked before a replay. It is
  made faster (`optimize`): a division by a field becomes a multiplication by its reciprocal; `now` is not clamped to
  the time in the state, because traffic is in order; an index is unsigned; and values of a long state that none of the
  requested columns depend on are not written.
* In any other step, all arithmetic is checked (`overflow_checks`): an operation raises an error instead of a result
  that plain Python would not have. A step that is more than plain integer arithmetic is not compiled.

What cannot be compiled, or fails, is left to plain Python by `UnfitError`.
"""

from __future__ import annotations

import numpy as np

from ratelab.algorithms import traits_of
from ratelab.lab.bounds import check_bound
from ratelab.lab.compiled.intrinsics import tune_process
from ratelab.lab.compiled.loops import compile_loop
from ratelab.lab.compiled.states import States, prepare_requests, state_widths
from ratelab.lab.decisions import Columns, Progress
from ratelab.lab.partition import split_keys
from ratelab.lab.step_source import UnfitError
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm

__all__ = ["UnfitError", "decide", "tune_process"]


def decide(algorithm: Algorithm, traffic: Traffic, columns: Columns, progress: Progress) -> None:
    """Decide every request of `traffic` and fill `columns`, which have one value for each request.

    Raises `UnfitError` if plain Python must decide them.
    """
    try:
        _decide(algorithm, traffic, columns, progress)
    except OverflowError as error:
        raise UnfitError("integer overflow: values exceed 2**63 - 1") from error
    except Exception as error:
        if traits_of(algorithm).bound is not None or isinstance(error, UnfitError):
            raise
        raise UnfitError("its step failed in machine code") from error  # plain Python reports the error and its line


def _decide(algorithm: Algorithm, traffic: Traffic, columns: Columns, progress: Progress) -> None:
    check_bound(algorithm, traffic)
    width = len(algorithm.start(traffic.origin))
    loop = compile_loop(algorithm, width, tuple(columns), traffic.has_unit_costs)
    widths = state_widths(algorithm, width, traffic, columns)
    for partition in split_keys(traffic, int(widths.sum())):
        states = States(algorithm, width, partition.select_keys(widths))
        for part, batch in traffic.batches():
            requests = partition.select(batch)
            arrays = states.start(requests, traffic.origin)
            in_place = isinstance(requests.places, slice)
            decided = [
                column[part] if in_place else np.empty(len(requests.keys), column.dtype) for column in columns.values()
            ]
            for some, inputs in prepare_requests(requests, traffic.origin, traffic.has_unit_costs):
                loop(*arrays, *inputs, *(values[some] for values in decided))
            if not in_place:
                for column, values in zip(columns.values(), decided, strict=True):
                    column[part][requests.places] = values
            progress(len(requests.keys))
