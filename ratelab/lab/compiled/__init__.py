"""The compiled engine: an algorithm's step as machine code over the columns of the traffic.

Requests are decided in the order of arrival, all keys' states in one array. Where that would be too large, the keys are
split into shares, one after the other; no key knows of another, so that changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import astuple
from typing import Any, cast

import numpy as np

from ratelab.algorithms import traits_of
from ratelab.lab.compiled import loops, specialize
from ratelab.lab.compiled.states import States, UnfitError, stretches, widths
from ratelab.lab.decisions import Columns, Progress
from ratelab.lab.partition import split_keys
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, Algorithm

__all__ = ["UnfitError", "decide"]


def decide(algorithm: Algorithm, traffic: Traffic, columns: Columns, progress: Progress) -> None:
    """Decide every request of `traffic`, and fill `columns`, which are of as many requests.

    Raises `UnfitError` if plain Python must do it.
    """
    try:
        _decide(algorithm, traffic, columns, progress)
    except OverflowError as error:
        raise UnfitError("its numbers pass 2**63 - 1, and those of machine code do not") from error
    except Exception as error:
        if traits_of(algorithm).bound is not None or isinstance(error, UnfitError):
            raise
        raise UnfitError("its step failed in machine code") from error  # plain Python tells how, and on which line


def _decide(algorithm: Algorithm, traffic: Traffic, columns: Columns, progress: Progress) -> None:
    _check_bounds(algorithm, traffic)
    numbers = len(algorithm.start(traffic.origin))
    loop = _compiled(algorithm, numbers, columns, not traffic.has_unit_costs)
    kept = widths(algorithm, numbers, traffic, columns)
    for partition in split_keys(traffic, int(kept.sum())):
        states = States(algorithm, numbers, partition.select_keys(kept))
        for part, batch in traffic.batches():
            own = partition.select(batch)
            begun = states.of(own, traffic.origin)
            filled = [column[part] for column in columns.values()]
            made = filled if isinstance(own.places, slice) else [np.empty(len(own.keys), c.dtype) for c in filled]
            for some, given in stretches(own, traffic.origin, not traffic.has_unit_costs):
                loop(*begun, *given, *(column[some] for column in made))
            if made is not filled:
                for column, values in zip(filled, made, strict=True):
                    column[own.places] = values
            progress(len(own.keys))


def _compiled(algorithm: Algorithm, numbers: int, columns: Columns, priced: bool) -> Callable[..., None]:
    try:
        return loops.compiled(algorithm, numbers, tuple(columns), priced)
    except specialize.NotCompiledError as error:
        raise UnfitError(str(error)) from error


def _check_bounds(algorithm: Algorithm, traffic: Traffic) -> None:
    """Raise `OverflowError` if 64 bits do not hold the algorithm's declared bound, or sums with it."""
    bound = traits_of(algorithm).bound
    if bound is None:
        return
    latest = traffic.origin + traffic.duration
    largest = bound(algorithm, latest, traffic.max_cost, traffic.duration + 1)
    if largest + max(algorithm.start(latest)) + max(astuple(cast(Any, algorithm))) > NEVER:
        raise OverflowError
