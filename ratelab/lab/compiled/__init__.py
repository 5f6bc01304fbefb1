"""The compiled engine: an algorithm's step as machine code over the columns of the traffic.

Requests are decided in the order of arrival, each key's state a row of a table. Where that would be too large, the keys
are split into parts, one after the other; no key knows of another, so that changes nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from inspect import getsource
from textwrap import dedent
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms.outside import is_ours
from ratelab.lab.compiled.parts import Part, split
from ratelab.lab.decisions import DECISION, Progress
from ratelab.lab.traffic import Integers, Traffic
from ratelab.limiter import NEVER, Algorithm, Bounded, Decision

BETWEEN_REPORTS = 1 << 20


class UnfitError(Exception):
    """The engine cannot decide as plain Python would; the message says why."""


def is_installed() -> bool:
    """Say whether there is a compiler."""
    return find_spec("numba") is not None


def decide(algorithm: Algorithm, traffic: Traffic, complete: bool, progress: Progress) -> dict[str, NDArray[Any]]:
    """Decide every request of `traffic`; return the columns of a `Decision`, or just what figures are made of.

    Raises `UnfitError` if plain Python must do it.
    """
    try:
        return _decide(algorithm, traffic, complete, progress)
    except OverflowError as error:
        raise UnfitError("its numbers pass 2**63 - 1, and those of machine code do not") from error
    except Exception as error:
        if is_ours(algorithm) or isinstance(error, UnfitError):
            raise
        raise UnfitError(f"{type(error).__name__}: {error}") from error  # in plain Python it is told as it should be


def _decide(algorithm: Algorithm, traffic: Traffic, complete: bool, progress: Progress) -> dict[str, NDArray[Any]]:
    if is_ours(algorithm):
        _check_bounds(cast(Bounded, algorithm), traffic)
    loop, names = _compiled(algorithm, complete, traffic.is_priced)
    columns = {name: np.empty(len(traffic), DECISION[name]) for name in names}
    for part in split(traffic, len(algorithm.start(traffic.origin))):
        states = _states(algorithm, part, traffic.origin)
        made = [part.column(column) for column in columns.values()]
        for some, asked in part.stretches(BETWEEN_REPORTS):
            filled = [column[some] for column in made]
            loop(states, *asked, traffic.origin, *filled)
            progress(len(filled[0]))
        for column, own in zip(columns.values(), made, strict=True):
            part.put(own, column)
    columns.setdefault("delay_ns", np.broadcast_to(np.int64(0), len(traffic)))
    return columns


def _compiled(algorithm: Algorithm, complete: bool, priced: bool) -> tuple[Callable[..., None], tuple[str, ...]]:
    """Return the loop, and the names of the columns that it fills; a delay that is always 0 is not one of them."""
    from ratelab.lab.compiled import kernels, stand_ins  # Numba takes a while to import

    names: tuple[str, ...] = Decision._fields if complete else ("allowed", "delay_ns")
    if not complete and _never_queues(type(algorithm)):
        names = ("allowed",)
    try:
        return kernels.compiled(algorithm, len(names), priced), names
    except stand_ins.NotCompiledError as error:
        raise UnfitError(str(error)) from error


def _states(algorithm: Algorithm, part: Part, origin: int) -> Integers:
    """Return the rows of a part's keys as they start.

    One of ours that has not been asked stays as good as new, so all start with the first request; whether somebody
    else's does, nobody knows.
    """
    first = origin + int(part.times[0]) if len(part.times) else origin
    if is_ours(algorithm):
        return np.tile(np.array(algorithm.start(first), np.int64), (part.rows, 1))
    firsts = np.full(part.rows, first)
    firsts[part.keys[::-1]] = part.times[::-1] + origin
    states = np.array([algorithm.start(time) for time in firsts.tolist()])
    if states.dtype != np.int64:
        raise UnfitError("its start() returns something else than a list of whole numbers")
    return states


@cache
def _never_queues(kind: type[Algorithm]) -> bool:
    """Say whether the step's text gives 0 for every delay."""
    text = ast.parse(dedent(getsource(kind.step)))
    returned = [node.value for node in ast.walk(text) if isinstance(node, ast.Return)]
    return all(isinstance(row, ast.Tuple) and ast.unparse(row.elts[-1]) == "0" for row in returned)


def _check_bounds(algorithm: Bounded, traffic: Traffic) -> None:
    """Refuse a quota, or times, whose products 64 bits would not hold."""
    latest = traffic.origin + int(traffic.times[-1])
    largest = algorithm.largest(latest, traffic.dearest, traffic.duration + 1) + max(algorithm.start(latest))
    if largest > NEVER:
        raise OverflowError
