"""The compiled engine: an algorithm's step as machine code over the columns of the traffic.

Requests are decided in the order of arrival, each key's state a row of a table. Where that would be too large, the keys
are split into shares, one after the other; no key knows of another, so that changes nothing.
"""

from __future__ import annotations

import ast
from collections.abc import Callable
from functools import cache
from importlib.util import find_spec
from inspect import getsource
from textwrap import dedent
from typing import cast

import numpy as np

from ratelab.algorithms.outside import is_ours
from ratelab.lab.compiled.states import States, UnfitError
from ratelab.lab.compiled.stretches import stretches
from ratelab.lab.decisions import DECISION, FIGURED, Progress
from ratelab.lab.shares import put, room, shares
from ratelab.lab.stored import Column
from ratelab.lab.traffic import Asked
from ratelab.limiter import NEVER, Algorithm, Bounded, Decision

__all__ = ["UnfitError", "decide", "is_installed"]


def is_installed() -> bool:
    """Say whether there is a compiler."""
    return find_spec("numba") is not None


def decide(algorithm: Algorithm, traffic: Asked, complete: bool, progress: Progress) -> dict[str, Column]:
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
        raise UnfitError("its step failed in machine code") from error  # plain Python tells how, and on which line


def _decide(algorithm: Algorithm, traffic: Asked, complete: bool, progress: Progress) -> dict[str, Column]:
    if is_ours(algorithm):
        _check_bounds(cast(Bounded, algorithm), traffic)
    loop, names = _compiled(algorithm, complete, traffic.is_priced)
    columns = {name: traffic.column(DECISION[name]) for name in names}
    for share in shares(traffic, len(algorithm.start(traffic.origin))):
        states = States(algorithm, share.rows)
        for part in traffic.parts():
            own = share.of(traffic.part(part))
            rows = states.of(own, traffic.origin)
            made = [room(column, part, own) for column in columns.values()]
            for some, asked in stretches(own, traffic.origin, traffic.is_priced):
                loop(rows, *asked, *(column[some] for column in made))
            for column, values in zip(columns.values(), made, strict=True):
                put(column, part, own, values)
            progress(len(own.keys))
    columns.setdefault("delay_ns", np.broadcast_to(np.int64(0), len(traffic)))
    return columns


def _compiled(algorithm: Algorithm, complete: bool, priced: bool) -> tuple[Callable[..., None], tuple[str, ...]]:
    """Return the loop, and the names of the columns that it fills; a delay that is always 0 is not one of them."""
    from ratelab.lab.compiled import kernels, stand_ins  # Numba takes a while to import

    names: tuple[str, ...] = Decision._fields if complete else FIGURED
    if not complete and _never_queues(type(algorithm)):
        names = ("allowed",)
    try:
        return kernels.compiled(algorithm, len(names), priced), names
    except stand_ins.NotCompiledError as error:
        raise UnfitError(str(error)) from error


@cache
def _never_queues(kind: type[Algorithm]) -> bool:
    """Say whether the step's text gives 0 for every delay."""
    text = ast.parse(dedent(getsource(kind.step)))
    returned = [node.value for node in ast.walk(text) if isinstance(node, ast.Return)]
    return all(isinstance(row, ast.Tuple) and ast.unparse(row.elts[-1]) == "0" for row in returned)


def _check_bounds(algorithm: Bounded, traffic: Asked) -> None:
    """Refuse a quota, or times, whose products 64 bits would not hold."""
    latest = traffic.origin + traffic.duration
    largest = algorithm.largest(latest, traffic.dearest, traffic.duration + 1) + max(algorithm.start(latest))
    if largest > NEVER:
        raise OverflowError
