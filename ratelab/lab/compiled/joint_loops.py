"""Joint loops over columns: the steps of several algorithms in one loop, compiled by Numba.

The step of a short state runs on a copy, for which the compiler has registers. It replaces the state if all policies
admit the request. A hit of cost 1 on a long state is undone if another policy denies it. For a larger cost, a hit of
cost 0 shows whether it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numba
from numba.extending import overload

from ratelab.lab.compiled.intrinsics import (
    LINE_INTEGERS,
    CompilerError,
    allocate_on_stack,
    compile_for,
    jit,
    prefetch,
    slice_unchecked,
)
from ratelab.lab.compiled.loops import get_cost, prefetch_columns, prefetch_entry, step
from ratelab.lab.compiled.specialize import STAND_INS, create_stand_in
from ratelab.lab.compiled.states import ENTRY_PREFETCH, MIN_LONG_STATE, STATE_PREFETCH
from ratelab.lab.policies.engine import NOT_BOUND
from ratelab.lab.policies.requests import NOT_ASKED
from ratelab.lab.step_source import UnfitError
from ratelab.limiter import NEVER, Algorithm


class PolicyLane(NamedTuple):
    """The columns and the states of a policy in a loop."""

    algorithm: Any
    """A stand-in."""
    begin: int
    """The position of the first state among all."""
    distance: int
    """The distance of the states of two keys."""
    keys: Any
    """The key of each request; None if it is that of the first policy."""
    costs: Any
    """The cost of each request, `NOT_ASKED` where the policy does not apply; None if each is 1."""
    verdicts: Any
    """The column to fill with its own verdicts."""
    delays: Any
    """The column to fill with its delays; None if it does not queue."""


def compile_joint_loop(
    algorithms: Sequence[tuple[Algorithm, int]], complete: bool, unit_costs: bool, share_keys: bool
) -> tuple[tuple[Any, ...], Callable[..., None]]:
    """Return stand-ins and the loop for algorithms with states of these widths.

    Raises `UnfitError` if a step cannot be compiled.
    """
    stand_ins = tuple(
        create_stand_in(algorithm, width, complete or (width >= MIN_LONG_STATE and not unit_costs))
        for algorithm, width in algorithms
    )
    try:
        types = tuple(numba.typeof(stand_in) for stand_in in stand_ins)  # type: ignore[no-untyped-call]
        return stand_ins, _compile(types, complete, unit_costs, share_keys)
    except CompilerError as error:
        raise UnfitError("their steps cannot be compiled together") from error


@cache
def _compile(stand_ins: Any, complete: bool, unit_costs: bool, share_keys: bool) -> Any:
    """Compile the loop for types of stand-ins."""
    integers, booleans = numba.int64[::1], numba.boolean[::1]
    keys, times = (numba.types.Array(kind, 1, "C", readonly=True) for kind in (numba.uint32, numba.int64))
    lanes = []
    for number, stand_in in enumerate(stand_ins):
        delays = integers if STAND_INS[stand_in.instance_class].queues else numba.none
        own_keys = numba.none if share_keys and number else keys
        costs = numba.none if unit_costs else integers
        types = (stand_in, numba.int64, numba.int64, own_keys, costs, booleans, delays)
        lanes.append(numba.types.NamedTuple(types, PolicyLane))  # type: ignore[no-untyped-call]
    waits = integers if sum(lane.types[-1] is integers for lane in lanes) > 1 else numba.none
    whole = [booleans, *[integers] * (3 if complete else 0), waits, numba.int8[::1]]
    all_lanes = numba.types.Tuple(tuple(lanes))  # type: ignore[no-untyped-call]
    return compile_for(
        _DECIDE_COMPLETE if complete else _DECIDE_FIGURED, numba.void(all_lanes, integers, times, numba.int64, *whole)
    )


# --- the loops, which fill columns; `waits` may be None


def _decide_figured(lanes: Any, states: Any, times: Any, origin: Any, allowed: Any, waits: Any, bound: Any) -> None:
    for n in range(len(times)):
        prefetch_columns((lanes, times, allowed, waits, bound), n)
        now = times[n] + origin
        prefetch_rows(lanes, lanes, states, 0, 0, n)
        allowed[n], _, _, _, wait, bound[n], denials = attempt(lanes, states, 0, now, n, 0, True, None)
        set_value(waits, n, wait)
        if denials > 1:
            bound[n] = find_binding(lanes, states, 0, now, n, 0)[0]


def _decide_complete(
    lanes: Any, states: Any, times: Any, origin: Any,
    allowed: Any, remaining: Any, retry_afters: Any, reset_afters: Any, waits: Any, bound: Any,
) -> None:  # fmt: skip
    for n in range(len(times)):
        prefetch_columns((lanes, times, allowed, remaining, retry_afters, reset_afters, waits, bound), n)
        now = times[n] + origin
        prefetch_rows(lanes, lanes, states, 0, 0, n)
        row = attempt(lanes, states, 0, now, n, 0, True, 0)
        allowed[n], remaining[n], retry_afters[n], reset_afters[n], wait, bound[n], _ = row
        set_value(waits, n, wait)


_DECIDE_FIGURED, _DECIDE_COMPLETE = jit(_decide_figured), jit(_decide_complete)


# --- functions of the loops, which call themselves with the rest of the lanes; `row` is the place of the shared key

_INLINED: Any = {"forceinline": True}


def attempt(lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any, admitted: Any, complete: Any) -> Any:
    """Decide request `n` by these policies, from `number` to the last; charge all of them or none.

    `admitted` is the verdict of the policies before. Return the row, the binding policy and the number of denials.
    Unless `complete`, only `allowed` and `delay_ns` of the row are right, and the binding policy is the first that
    denies.
    """
    raise NotImplementedError


@overload(attempt, strict=False, jit_options=_INLINED)
def _overload_attempt(
    lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any, admitted: Any, complete: Any
) -> Callable[..., Any]:
    def attempt_none(
        lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any, admitted: Any, complete: Any
    ) -> Any:
        return admitted, NEVER, 0, 0, 0, NOT_BOUND, 0

    def attempt_first(
        lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any, admitted: Any, complete: Any
    ) -> Any:
        lane = lanes[0]
        row = find_row(lane, row, n)
        cost = get_cost(lane.costs, n)
        if cost == NOT_ASKED:
            set_value(lane.delays, n, 0)
            return attempt(lanes[1:], states, row, now, n, number + 1, admitted, complete)
        algorithm = lane.algorithm
        state = slice_unchecked(states, lane.begin + row, lane.distance)
        saved = allocate_on_stack(), allocate_on_stack()
        fits, remaining, retry_after, reset_after, delay = try_hit(algorithm, state, saved, now, cost, complete)
        all_fit, least, longest, reset, wait, bound, denials = attempt(
            lanes[1:], states, row, now, n, number + 1, admitted and fits, complete
        )
        remaining, reset_after = keep_hit(algorithm, state, saved, now, cost, all_fit, remaining, reset_after)
        if looks_again and fits and not all_fit:
            _, remaining, _, reset_after, _ = try_hit(algorithm, state, saved, now, 0, complete)
        lane.verdicts[n] = fits
        delay = delay if all_fit else 0
        set_value(lane.delays, n, delay)
        denials += not fits
        binds = not fits and (not looks_again or bound == NOT_BOUND or retry_after >= longest)
        bound, longest = number if binds else bound, retry_after if binds else longest
        return all_fit, min(least, remaining), longest, max(reset, reset_after), max(wait, delay), bound, denials

    looks_again = complete != numba.none
    return attempt_first if len(lanes) else attempt_none


def find_binding(lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any) -> Any:
    """Return the policy that denied request `n` with the longest `retry_after_ns`, the first of several, and that."""
    raise NotImplementedError


@overload(find_binding, strict=False, jit_options=_INLINED)
def _overload_find_binding(lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any) -> Callable[..., Any]:
    def find_none(lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any) -> Any:
        return NOT_BOUND, NOT_BOUND

    def find_first(lanes: Any, states: Any, row: Any, now: Any, n: Any, number: Any) -> Any:
        lane = lanes[0]
        row = find_row(lane, row, n)
        bound, longest = find_binding(lanes[1:], states, row, now, n, number + 1)
        cost = get_cost(lane.costs, n)
        if cost == NOT_ASKED or lane.verdicts[n]:
            return bound, longest
        state = slice_unchecked(states, lane.begin + row, lane.distance)
        saved = allocate_on_stack(), allocate_on_stack()
        _, _, retry_after, _, _ = try_hit(lane.algorithm, state, saved, now, cost, 0)
        return (number, retry_after) if retry_after >= longest else (bound, longest)

    return find_first if len(lanes) else find_none


def prefetch_rows(rest: Any, lanes: Any, states: Any, row: Any, next_row: Any, n: Any) -> None:
    """Fetch states of later requests, for the `rest` of the lanes, into the cache: for a row on one line only once."""
    raise NotImplementedError


@overload(prefetch_rows, strict=False, jit_options=_INLINED)
def _overload_prefetch_rows(rest: Any, lanes: Any, states: Any, row: Any, next_row: Any, n: Any) -> Callable[..., Any]:
    def prefetch_first(rest: Any, lanes: Any, states: Any, row: Any, next_row: Any, n: Any) -> None:
        lane = rest[0]
        row = find_row(lane, row, n + STATE_PREFETCH)
        next_row = find_row(lane, next_row, n + ENTRY_PREFETCH)
        if is_apart:
            prefetch(states, lane.begin + row + place)
        prefetch_long(lane.algorithm, states, lane.begin + next_row, lane.distance)
        prefetch_rows(rest[1:], lanes, states, row, next_row, n)

    if not len(rest):
        return lambda rest, lanes, states, row, next_row, n: None
    widths = [STAND_INS[lane.types[0].instance_class].width for lane in lanes]
    width, has_keys = widths[-len(rest)], rest[0].types[3] != numba.none
    is_apart = has_keys or None in widths or LINE_INTEGERS % sum(filter(None, widths)) > 0
    place = 0 if has_keys or width is None else width - 1  # the end of a row may be on another cache line
    return prefetch_first


def prefetch_long(algorithm: Any, states: Any, begin: Any, distance: Any) -> None:
    """Fetch the entry of a long state that its next step will read."""
    raise NotImplementedError


@overload(prefetch_long, strict=False, jit_options=_INLINED)
def _overload_prefetch_long(algorithm: Any, states: Any, begin: Any, distance: Any) -> Callable[..., Any]:
    def prefetch_one(algorithm: Any, states: Any, begin: Any, distance: Any) -> None:
        prefetch_entry(algorithm, slice_unchecked(states, begin, distance))

    if STAND_INS[algorithm.instance_class].width is None:
        return prefetch_one
    return lambda algorithm, states, begin, distance: None


def find_row(lane: Any, row: Any, n: Any) -> int:
    """Return the place of the key of request `n`, which is `row` if the lane has no keys of its own."""
    raise NotImplementedError


@overload(find_row, strict=False, jit_options=_INLINED)
def _overload_find_row(lane: Any, row: Any, n: Any) -> Callable[..., Any]:
    if lane.types[3] == numba.none:
        return lambda lane, row, n: row
    return lambda lane, row, n: lane.distance * lane.keys[n]


def set_value(column: Any, n: Any, value: Any) -> None:
    """Write a value to a column, if there is one."""
    raise NotImplementedError


@overload(set_value, strict=False, jit_options=_INLINED)
def _overload_set_value(column: Any, n: Any, value: Any) -> Callable[..., Any]:
    def write(column: Any, n: Any, value: Any) -> None:
        column[n] = value

    return (lambda column, n, value: None) if column == numba.none else write


# --- a hit on one policy, which is kept only if all admit it


def take_step(algorithm: Any, state: Any, now: Any, cost: Any, complete: Any) -> Any:
    """Decide a hit by a `step`; without `complete`, compute its verdict and delay only, which takes fewer jumps."""
    raise NotImplementedError


@overload(take_step, strict=False, jit_options=_INLINED)
def _overload_take_step(algorithm: Any, state: Any, now: Any, cost: Any, complete: Any) -> Callable[..., Any]:
    def decide_briefly(algorithm: Any, state: Any, now: Any, cost: Any, complete: Any) -> Any:
        allowed, _, _, _, delay = step(algorithm, state, now, cost)
        return allowed, NEVER, 0, 0, delay

    if complete == numba.none:
        return decide_briefly
    return lambda algorithm, state, now, cost, complete: step(algorithm, state, now, cost)


def try_hit(algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, complete: Any) -> Any:
    """Decide a hit without a charge; fill `saved` with the state before and after a charge."""
    raise NotImplementedError


@overload(try_hit, strict=False, jit_options=_INLINED)
def _overload_try_hit(algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, complete: Any) -> Callable[..., Any]:
    def try_short(algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, complete: Any) -> Any:
        before, after = saved
        for place in range(width):
            before[place] = after[place] = state[place]
        return take_step(algorithm, after, now, cost, complete)

    def try_long(algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, complete: Any) -> Any:
        before, after = saved
        if cost <= 1:
            before[0] = state[head]
            row = take_step(algorithm, state, now, cost, 0)  # a whole row takes fewer jumps of a sliding log
            after[0] = state[head]
            state[head] = before[0]
            return row
        row = take_step(algorithm, state, now, 0, 0)
        return row if cost <= row[1] else take_step(algorithm, state, now, cost, 0)

    stand_in: Any = STAND_INS[algorithm.instance_class]
    width, head = stand_in.width, stand_in.head
    return try_long if width is None else try_short


def keep_hit(
    algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
) -> tuple[int, int]:
    """Charge the hit that `try_hit` has decided, if it is admitted; return `remaining` and `reset_after_ns` then.

    Without a jump for short states, since whether a request is admitted is not predictable.
    """
    raise NotImplementedError


@overload(keep_hit, strict=False, jit_options=_INLINED)
def _overload_keep_hit(
    algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
) -> Callable[..., Any]:
    def keep_short(
        algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
    ) -> Any:
        before, after = saved
        for place in range(width):
            state[place] = after[place] if admitted else before[place]
        return remaining, reset_after

    def keep_long(
        algorithm: Any, state: Any, saved: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
    ) -> Any:
        before, after = saved
        if cost <= 1:
            state[head] = after[0] if admitted else before[0]
        elif admitted:
            _, remaining, _, reset_after, _ = take_step(algorithm, state, now, cost, 0)
        return remaining, reset_after

    stand_in: Any = STAND_INS[algorithm.instance_class]
    width, head = stand_in.width, stand_in.head
    return keep_long if width is None else keep_short
