"""Steps compiled by Numba, and the loops that drive them over columns."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from inspect import getfile
from pathlib import Path
from typing import Any, Literal

import numba
from numba.core.errors import NumbaError
from numba.extending import overload

from ratelab.lab.compiled import intrinsics
from ratelab.lab.compiled.intrinsics import jitted, made, prefetch, unchecked_slice
from ratelab.lab.compiled.specialize import FIELD_TYPES, NotCompiledError, specialized
from ratelab.lab.compiled.states import FAR, NEAR
from ratelab.lab.decisions import ADMITTED, FIGURED, is_complete
from ratelab.lab.spill import Integers
from ratelab.limiter import Algorithm, Decision

intrinsics.tune()


def compiled(algorithm: Algorithm, numbers: int, fields: tuple[str, ...], priced: bool) -> Callable[..., None]:
    """Return a loop that decides requests in their order, `algorithm`'s step compiled into it.

    It takes all states, of so many `numbers` each, one behind the other, where each begins, if they are wide, each
    request's key and `FAR` keys more, its time and, if it is `priced`, its cost, and the columns of `fields` to fill.
    Raises `NotCompiledError` if the step cannot be compiled.
    """
    stand_in = specialized(algorithm, numbers, is_complete(fields))
    try:
        return partial(_loop(numba.typeof(stand_in), fields, priced), stand_in)  # type: ignore[no-untyped-call]
    except NumbaError as error:
        raise NotCompiledError(_compile_error(algorithm, error)) from error


@cache
def _loop(stand_in: Any, fields: tuple[str, ...], priced: bool) -> Any:
    """Return the loop for a type of tuples; costs may be one number shown again and again."""
    keys, times = _read_only(numba.uint32), _read_only(numba.int64)
    begins = numba.none if FIELD_TYPES[stand_in.instance_class].width else _read_only(numba.int64)
    costs = _read_only(numba.int64, "A") if priced else numba.none
    filled = [_FLAGS, *[_COLUMN] * (len(fields) - 1)]
    loop, signature = _LOOPS[fields], numba.void(stand_in, _COLUMN, begins, keys, times, costs, *filled)
    return made(loop, signature)


def step(self: Any, state: Integers, now: int, cost: int) -> tuple[bool, int, int, int, int]:
    """Stand for the step of whatever algorithm `self` stands in for."""
    raise NotImplementedError


@overload(step, inline="always", strict=False)
def _step_of(self: Any, state: Any, now: Any, cost: Any) -> Callable[..., Any]:  # noqa: ARG001  (told by its types)
    return FIELD_TYPES[self.instance_class].step


def cost_of(costs: Any, n: int) -> int:
    """Return the cost of request `n`; without `costs` each is 1, which makes a shorter loop."""
    raise NotImplementedError


@overload(cost_of, inline="always", strict=False)
def _cost_of(costs: Any, n: Any) -> Callable[..., Any]:  # noqa: ARG001  (told by its type)
    return (lambda costs, n: 1) if costs == numba.none else (lambda costs, n: costs[n])  # noqa: ARG005


def begin_of(algorithm: Any, begins: Any, key: Any) -> int:
    """Return where the state of `key` begins, or ends if it is the key before."""
    raise NotImplementedError


@overload(begin_of, inline="always", strict=False)
def _begin_of(algorithm: Any, begins: Any, key: Any) -> Callable[..., Any]:  # noqa: ARG001  (told by its types)
    width = FIELD_TYPES[algorithm.instance_class].width
    if width is None:
        return lambda algorithm, begins, key: begins[key]  # noqa: ARG005
    return lambda algorithm, begins, key: width * key  # noqa: ARG005


@numba.njit(inline="always")
def _state(algorithm: Any, states: Any, begins: Any, key: Any) -> Any:
    begin = begin_of(algorithm, begins, key)
    return unchecked_slice(states, begin, begin_of(algorithm, begins, key + 1) - begin)


def fetch_within(algorithm: Any, state: Any) -> None:
    """Fetch where in a long state the next step will look."""
    raise NotImplementedError


@overload(fetch_within, inline="always", strict=False)
def _fetch_within(algorithm: Any, state: Any) -> Callable[..., Any]:  # noqa: ARG001  (told by its types)
    looks_at = FIELD_TYPES[algorithm.instance_class].looks_at
    if looks_at is None:
        return lambda algorithm, state: None  # noqa: ARG005
    place = numba.njit(looks_at)
    return lambda algorithm, state: prefetch(state, place(algorithm, state))


@numba.njit(inline="always")
def _fetch_ahead(algorithm: Any, states: Any, begins: Any, keys: Any, n: Any) -> None:
    prefetch(states, begin_of(algorithm, begins, keys[n + FAR]))
    fetch_within(algorithm, _state(algorithm, states, begins, keys[n + NEAR]))


def _decide(algorithm: Any, states: Any, begins: Any, keys: Any, times: Any, costs: Any, allowed: Any) -> None:
    for n in range(len(times)):
        _fetch_ahead(algorithm, states, begins, keys, n)
        state = _state(algorithm, states, begins, keys[n])
        allowed[n], _, _, _, _ = step(algorithm, state, times[n], cost_of(costs, n))


def _decide_when(
    algorithm: Any, states: Any, begins: Any, keys: Any, times: Any, costs: Any, allowed: Any, delays: Any
) -> None:
    for n in range(len(times)):
        _fetch_ahead(algorithm, states, begins, keys, n)
        state = _state(algorithm, states, begins, keys[n])
        allowed[n], _, _, _, delays[n] = step(algorithm, state, times[n], cost_of(costs, n))


def _decide_all(
    algorithm: Any, states: Any, begins: Any, keys: Any, times: Any, costs: Any,
    allowed: Any, remaining: Any, retry_afters: Any, reset_afters: Any, delays: Any,
) -> None:  # fmt: skip
    for n in range(len(times)):
        _fetch_ahead(algorithm, states, begins, keys, n)
        state = _state(algorithm, states, begins, keys[n])
        made = step(algorithm, state, times[n], cost_of(costs, n))
        allowed[n], remaining[n], retry_afters[n], reset_afters[n], delays[n] = made


_LOOPS = {ADMITTED: jitted(_decide), FIGURED: jitted(_decide_when), Decision._fields: jitted(_decide_all)}

_COLUMN, _FLAGS = numba.int64[::1], numba.boolean[::1]


def _read_only(kind: Any, layout: Literal["C", "A"] = "C") -> Any:
    return numba.types.Array(kind, 1, layout, readonly=True)


def _compile_error(algorithm: Algorithm, error: NumbaError) -> str:
    """Say on which line of its file a step could not be compiled; the compiler's own words would tell nobody why."""
    path, text = getfile(type(algorithm)), str(error)
    lines = re.findall(rf'File "[^"]*{re.escape(Path(path).name)}", line (\d+)', text)
    place = f"{path}:{lines[-1]}" if lines else path
    return f"{place}: something there is not a whole number in every case, as machine code needs it"
