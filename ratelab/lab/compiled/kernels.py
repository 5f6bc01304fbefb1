"""Steps compiled by Numba, and the loops that drive them over columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from inspect import getfile
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, Literal

import numba
from numba.core.errors import NumbaError
from numba.extending import overload

from ratelab.lab.compiled import processor
from ratelab.lab.compiled.processor import fetch
from ratelab.lab.compiled.stand_ins import STEPS, NotCompiledError, stand_in_for
from ratelab.lab.traffic import Integers
from ratelab.limiter import Algorithm

processor.tune()


def compiled(algorithm: Algorithm, columns: int, priced: bool) -> Callable[..., None]:
    """Return a loop that decides requests in their order, `algorithm`'s step compiled into it.

    It takes the keys' states as rows, each request's key, the key whose state to fetch meanwhile, its time and, if it
    is `priced`, its cost, and so many columns to fill: 1 whether a request is allowed, 2 its delay, too, 5 all fields
    of a `Decision`.
    Raises `NotCompiledError` if the step cannot be compiled.
    """
    stand_in = stand_in_for(algorithm)
    try:
        return partial(_loop(numba.typeof(stand_in), columns, priced), stand_in)  # type: ignore[no-untyped-call]
    except NumbaError as error:
        raise NotCompiledError(_told(algorithm, error)) from error


@cache
def _loop(stand_in: Any, columns: int, priced: bool) -> Any:
    """Return the loop for a type of tuples; costs may be one number shown again and again."""
    keys, times, states = _read_only(numba.uint32), _read_only(numba.int64), numba.int64[:, ::1]
    costs = _read_only(numba.int64, "A") if priced else numba.none
    filled = [_FLAGS, *[_COLUMN] * (columns - 1)]
    loop, signature = _LOOPS[columns], numba.void(stand_in, states, keys, keys, times, costs, *filled)
    try:
        return loop.compile(signature)
    except (AttributeError, ImportError, EOFError, UnpicklingError):  # another version's code on disk, or half a file
        loop.recompile()  # none so far, but that clears the disk
        return loop.compile(signature)


def step(self: Any, state: Integers, now: int, cost: int) -> tuple[bool, int, int, int, int]:
    """Stand for the step of whatever algorithm `self` stands in for."""
    raise NotImplementedError


@overload(step, inline="always", strict=False)
def _step_of(self: Any, state: Any, now: Any, cost: Any) -> Callable[..., Any]:  # noqa: ARG001  (told by its types)
    return STEPS[self.instance_class]


def cost_of(costs: Any, n: int) -> int:
    """Return the cost of request `n`; without `costs` each is 1, which makes a shorter loop."""
    raise NotImplementedError


@overload(cost_of, inline="always", strict=False)
def _cost_of(costs: Any, n: Any) -> Callable[..., Any]:  # noqa: ARG001  (told by its type)
    return (lambda costs, n: 1) if costs == numba.none else (lambda costs, n: costs[n])  # noqa: ARG005


def _decide(algorithm: Any, states: Any, keys: Any, later: Any, times: Any, costs: Any, allowed: Any) -> None:
    for n in range(len(keys)):
        fetch(states, later[n])
        allowed[n], _, _, _, _ = step(algorithm, states[keys[n]], times[n], cost_of(costs, n))


def _decide_when(
    algorithm: Any, states: Any, keys: Any, later: Any, times: Any, costs: Any, allowed: Any, delays: Any
) -> None:
    for n in range(len(keys)):
        fetch(states, later[n])
        allowed[n], _, _, _, delays[n] = step(algorithm, states[keys[n]], times[n], cost_of(costs, n))


def _decide_all(
    algorithm: Any, states: Any, keys: Any, later: Any, times: Any, costs: Any,
    allowed: Any, remaining: Any, retry_afters: Any, reset_afters: Any, delays: Any,
) -> None:  # fmt: skip
    for n in range(len(keys)):
        fetch(states, later[n])
        made = step(algorithm, states[keys[n]], times[n], cost_of(costs, n))
        allowed[n], remaining[n], retry_afters[n], reset_afters[n], delays[n] = made


def _jitted(function: Callable[..., Any]) -> Any:
    """Compile when called, and keep the code on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # a divisor is never 0
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(**options)(function)


_LOOPS = {1: _jitted(_decide), 2: _jitted(_decide_when), 5: _jitted(_decide_all)}

_COLUMN, _FLAGS = numba.int64[::1], numba.boolean[::1]


def _read_only(kind: Any, layout: Literal["C", "A"] = "C") -> Any:
    return numba.types.Array(kind, 1, layout, readonly=True)


def _told(algorithm: Algorithm, error: NumbaError) -> str:
    """Say on which line of its file a step could not be compiled; the compiler's own words would tell nobody why."""
    path, text = getfile(type(algorithm)), str(error)
    lines = re.findall(rf'File "[^"]*{re.escape(Path(path).name)}", line (\d+)', text)
    place = f"{path}:{lines[-1]}" if lines else path
    return f"{place}: something there is not a whole number in every case, as machine code needs it"
