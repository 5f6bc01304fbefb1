"""Loops over columns, compiled by Numba with the step of an algorithm in them."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache, partial
from inspect import getfile
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
from numba.extending import overload, register_jitable

from ratelab.lab.compiled.intrinsics import (
    LINE_INTEGERS,
    CompilerError,
    compile_for,
    jit,
    multiply_less_equal,
    prefetch,
    slice_unchecked,
)
from ratelab.lab.compiled.specialize import STAND_INS, create_stand_in
from ratelab.lab.compiled.states import COLUMN_BLOCK, COLUMN_PREFETCH, ENTRY_PREFETCH, STATE_PREFETCH
from ratelab.lab.decisions import ADMISSION_FIELDS, FIGURE_FIELDS, is_complete
from ratelab.lab.spill import Integers
from ratelab.lab.step_source import UnfitError
from ratelab.lab.tune import hulls
from ratelab.limiter import ROW_FIELDS, Algorithm


def compile_loop(algorithm: Algorithm, width: int, fields: tuple[str, ...], unit_costs: bool) -> Callable[..., None]:
    """Return a loop that decides requests in their order by the step of `algorithm`, whose states have this `width`.

    Its arguments are the arrays of `States.start`, those of `prepare_requests`, and the columns of `fields` to fill.
    Raises `UnfitError` if the step cannot be compiled.
    """
    stand_in = create_stand_in(algorithm, width, is_complete(fields))
    try:
        return partial(_compile(numba.typeof(stand_in), fields, unit_costs), stand_in)  # type: ignore[no-untyped-call]
    except CompilerError as error:
        raise UnfitError(_describe(error, algorithm)) from error


@cache
def _compile(stand_in: Any, fields: tuple[str, ...], unit_costs: bool) -> Any:
    """Compile the loop for a type of stand-in. Costs may be a broadcast array."""
    keys, times = _read_only(numba.uint32), _read_only(numba.int64)
    begins = numba.none if STAND_INS[stand_in.instance_class].width else _read_only(numba.int64)
    costs = numba.none if unit_costs else _read_only(numba.int64, "A")
    filled = [_BOOLEANS, *[_INTEGERS] * (len(fields) - 1)]
    return compile_for(_LOOPS[fields], numba.void(stand_in, _INTEGERS, begins, keys, times, costs, *filled))


def _describe(error: CompilerError, algorithm: Algorithm) -> str:
    """Name the line of the algorithm's file that could not be compiled; Numba's own message would not help a user."""
    path, text = getfile(type(algorithm)), str(error)
    lines = re.findall(rf'File "[^"]*{re.escape(Path(path).name)}", line (\d+)', text)
    return f"{path}{f':{lines[-1]}' if lines else ''}: a value is not always an integer, as machine code needs it to be"


# --- the loops; `algorithm` is a stand-in, and `begins` and `costs` may be None


def _decide_admitted(algorithm: Any, states: Any, begins: Any, keys: Any, times: Any, costs: Any, allowed: Any) -> None:
    for n in range(len(times)):
        prefetch_columns((keys, times, costs, allowed), n)
        _prefetch(algorithm, states, begins, keys, n)
        state = _get_state(algorithm, states, begins, keys[n])
        allowed[n], _, _, _, _ = step(algorithm, state, times[n], get_cost(costs, n))


def _decide_figured(
    algorithm: Any, states: Any, begins: Any, keys: Any, times: Any, costs: Any, allowed: Any, delays: Any
) -> None:
    for n in range(len(times)):
        prefetch_columns((keys, times, costs, allowed, delays), n)
        _prefetch(algorithm, states, begins, keys, n)
        state = _get_state(algorithm, states, begins, keys[n])
        allowed[n], _, _, _, delays[n] = step(algorithm, state, times[n], get_cost(costs, n))


def _decide_complete(
    algorithm: Any, states: Any, begins: Any, keys: Any, times: Any, costs: Any,
    allowed: Any, remaining: Any, retry_afters: Any, reset_afters: Any, delays: Any,
) -> None:  # fmt: skip
    for n in range(len(times)):
        prefetch_columns((keys, times, costs, allowed, remaining, retry_afters, reset_afters, delays), n)
        _prefetch(algorithm, states, begins, keys, n)
        state = _get_state(algorithm, states, begins, keys[n])
        row = step(algorithm, state, times[n], get_cost(costs, n))
        allowed[n], remaining[n], retry_afters[n], reset_afters[n], delays[n] = row


_LOOPS = {
    ADMISSION_FIELDS: jit(_decide_admitted),
    FIGURE_FIELDS: jit(_decide_figured),
    ROW_FIELDS: jit(_decide_complete),
}

_INTEGERS, _BOOLEANS = numba.int64[::1], numba.boolean[::1]


def _read_only(kind: Any, layout: Literal["C", "A"] = "C") -> Any:
    return numba.types.Array(kind, 1, layout, readonly=True)


# --- functions of the loops, each compiled according to the types of its arguments


def step(self: Any, state: Integers, now: int, cost: int) -> tuple[bool, int, int, int, int]:
    """Decide a hit by the step of the algorithm that `self` stands in for."""
    raise NotImplementedError


@overload(step, inline="always", strict=False)
def _overload_step(self: Any, state: Any, now: Any, cost: Any) -> Callable[..., Any]:  # noqa: ARG001  (only types count)
    return STAND_INS[self.instance_class].step


def get_cost(costs: Any, n: int) -> int:
    """Return the cost of request `n`; without `costs`, each is 1, which makes a shorter loop."""
    raise NotImplementedError


@overload(get_cost, inline="always", strict=False)
def _overload_get_cost(costs: Any, n: Any) -> Callable[..., Any]:  # noqa: ARG001  (only types count)
    return (lambda costs, n: 1) if costs == numba.none else (lambda costs, n: costs[n])  # noqa: ARG005


def find_begin(algorithm: Any, begins: Any, key: Any) -> int:
    """Return the position at which the state of `key` begins, and that of the key before ends."""
    raise NotImplementedError


@overload(find_begin, inline="always", strict=False)
def _overload_find_begin(algorithm: Any, begins: Any, key: Any) -> Callable[..., Any]:  # noqa: ARG001  (only types count)
    width = STAND_INS[algorithm.instance_class].width
    if width is None:
        return lambda algorithm, begins, key: begins[key]  # noqa: ARG005
    return lambda algorithm, begins, key: width * key  # noqa: ARG005


@numba.njit(inline="always")
def _get_state(algorithm: Any, states: Any, begins: Any, key: Any) -> Any:
    begin = find_begin(algorithm, begins, key)
    return slice_unchecked(states, begin, find_begin(algorithm, begins, key + 1) - begin)


@numba.njit(inline="always")
def _prefetch(algorithm: Any, states: Any, begins: Any, keys: Any, n: Any) -> None:
    prefetch(states, find_begin(algorithm, begins, keys[n + STATE_PREFETCH]))
    prefetch_entry(algorithm, _get_state(algorithm, states, begins, keys[n + ENTRY_PREFETCH]))


def prefetch_entry(algorithm: Any, state: Any) -> None:
    """Fetch the entry of a long state that the next step will read."""
    raise NotImplementedError


@overload(prefetch_entry, inline="always", strict=False)
def _overload_prefetch_entry(algorithm: Any, state: Any) -> Callable[..., Any]:  # noqa: ARG001  (only types count)
    next_access = STAND_INS[algorithm.instance_class].next_access
    if next_access is None:
        return lambda algorithm, state: None  # noqa: ARG005
    find_place = numba.njit(next_access)
    return lambda algorithm, state: prefetch(state, find_place(algorithm, state))


@numba.njit(inline="always")
def prefetch_columns(columns: Any, n: Any) -> None:
    """Fetch later requests than `n` into the cache, a block at a time."""
    if n % COLUMN_BLOCK == 0:
        prefetch_block(columns, n + COLUMN_PREFETCH)


def prefetch_block(columns: Any, n: Any) -> None:
    """Fetch a block of requests, from `n` on, of each array in nested tuples."""
    raise NotImplementedError


@overload(prefetch_block, strict=False, jit_options={"forceinline": True})
def _overload_prefetch_block(columns: Any, n: Any) -> Callable[..., Any]:  # noqa: ARG001  (only types count)
    def prefetch_lines(columns: Any, n: Any) -> None:
        for place in range(n, n + COLUMN_BLOCK, line):
            prefetch(columns, place)

    def prefetch_each(columns: Any, n: Any) -> None:
        prefetch_block(columns[0], n)
        prefetch_block(columns[1:], n)

    if isinstance(columns, numba.types.Array) and columns.layout == "C":
        line = 64 * LINE_INTEGERS // getattr(columns.dtype, "bitwidth", 8)  # that of a boolean has no width
        return prefetch_lines
    is_stand_in = getattr(columns, "instance_class", None) in STAND_INS
    if isinstance(columns, numba.types.BaseTuple) and len(columns) and not is_stand_in:
        return prefetch_each
    return lambda columns, n: None  # noqa: ARG005


# --- needs, whose source is plain Python


@overload(hulls.allocate, strict=False)
def _overload_allocate(size: Any) -> Callable[..., Any]:  # noqa: ARG001  (only types count)
    return lambda size: np.empty(size, np.int64)


@overload(hulls.is_flatter, inline="always", strict=False)
def _overload_is_flatter(height: Any, width: Any, other_height: Any, other_width: Any) -> Callable[..., Any]:  # noqa: ARG001
    return lambda height, width, other_height, other_width: multiply_less_equal(
        height, other_width, other_height, width
    )


for _name in ("push", "copy_column", "find_crossing", "merge_hulls", "merge_blocks", "find_corners"):
    register_jitable(getattr(hulls, _name))

_COLUMNS: Any = numba.types.UniTuple(_INTEGERS, 3)  # type: ignore[no-untyped-call]


@cache
def compile_corner_finder() -> Callable[..., Any]:
    """Return `hulls.find_all_corners` for columns of 64-bit integers; totals of costs must be below 2**63."""
    return compile_for(jit(hulls.find_all_corners), _COLUMNS(_INTEGERS, _INTEGERS, _INTEGERS))


@cache
def compile_block_finder() -> Callable[..., Any]:
    """Return `hulls.find_block_needs` for columns of 64-bit integers; costs of a key times the period must fit."""
    return compile_for(jit(hulls.find_block_needs), _COLUMNS(*[_INTEGERS] * 3, *[numba.int64] * 4))
