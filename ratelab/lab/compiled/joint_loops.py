"""Joint loops over columns: the steps of several algorithms in one loop, compiled by Numba.

The step of a short state runs on a copy, which replaces the state if all policies admit the request. A hit of cost 1 on
a long state is undone if another policy denies it. For a larger cost, a hit of cost 0 shows whether it fits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numba
from numba.extending import overload
from numpy.typing import NDArray

from ratelab.lab.compiled.intrinsics import CompilerError, compile_for, jit, prefetch, slice_unchecked
from ratelab.lab.compiled.loops import prefetch_entry, step
from ratelab.lab.compiled.specialize import STAND_INS, create_stand_in
from ratelab.lab.compiled.states import ENTRY_PREFETCH, MIN_LONG_STATE, STATE_PREFETCH
from ratelab.lab.compiled.step_source import UnfitError
from ratelab.lab.policies.engine import NOT_BOUND
from ratelab.lab.policies.requests import NOT_ASKED
from ratelab.limiter import NEVER, Algorithm


def compile_joint_loop(
    algorithms: Sequence[tuple[Algorithm, int]], complete: bool, unit_costs: bool
) -> tuple[tuple[Any, ...], Callable[..., None]]:
    """Return stand-ins and the loop for algorithms with states of these widths.

    Raises `UnfitError` if a step cannot be compiled.
    """
    stand_ins = tuple(
        create_stand_in(algorithm, width, complete or width >= MIN_LONG_STATE) for algorithm, width in algorithms
    )
    try:
        return stand_ins, _compile(numba.typeof(stand_ins), complete, unit_costs)  # type: ignore[no-untyped-call]
    except CompilerError as error:
        raise UnfitError("their steps cannot be compiled together") from error


@cache
def _compile(stand_ins: Any, complete: bool, unit_costs: bool) -> Any:
    """Compile the loop for types of stand-ins."""
    integers, times = numba.int64[::1], numba.types.Array(numba.int64, 1, "C", readonly=True)
    places = numba.types.UniTuple(numba.types.UniTuple(numba.int64, 2), len(stand_ins))  # type: ignore[no-untyped-call]
    costs = numba.none if unit_costs else numba.int64[:, ::1]
    whole = [numba.boolean[::1], *[integers] * (4 if complete else 1)]
    outputs = [*whole, numba.int8[::1], numba.boolean[:, :], numba.int64[:, :]]
    types = [stand_ins, places, integers, integers, numba.uint32[:, :], times, costs, *outputs]
    return compile_for(_DECIDE_COMPLETE if complete else _DECIDE_FIGURED, numba.void(*types))


# --- the loops; `policies` are stand-ins, and `costs` may be None


def _decide_figured(
    policies: Any, places: Any, states: Any, scratch: Any, keys: Any, times: Any, costs: Any,
    allowed: Any, waits: Any, bound: Any, verdicts: Any, delays: Any,
) -> None:  # fmt: skip
    for n in range(len(times)):
        prefetch_states(policies, places, states, keys, n)
        allowed[n], _, _, _, waits[n], bound[n], denials = attempt(
            policies, places, states, scratch, keys, costs, verdicts, delays, times[n], n, True, None
        )
        if denials > 1:
            bound[n] = find_binding(policies, places, states, scratch, keys, costs, verdicts, times[n], n)[0]


def _decide_complete(
    policies: Any, places: Any, states: Any, scratch: Any, keys: Any, times: Any, costs: Any,
    allowed: Any, remaining: Any, retry_afters: Any, reset_afters: Any, waits: Any, bound: Any, verdicts: Any,
    delays: Any,
) -> None:  # fmt: skip
    for n in range(len(times)):
        prefetch_states(policies, places, states, keys, n)
        allowed[n], remaining[n], retry_afters[n], reset_afters[n], waits[n], bound[n], _ = attempt(
            policies, places, states, scratch, keys, costs, verdicts, delays, times[n], n, True, 0
        )


_DECIDE_FIGURED, _DECIDE_COMPLETE = jit(_decide_figured), jit(_decide_complete)


# --- functions of the loops, which call themselves with the rest of the policies

_INLINED: Any = {"forceinline": True}


def attempt(
    policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, delays: Any, now: Any,
    n: Any, admitted: Any, complete: Any,
) -> Any:  # fmt: skip
    """Decide request `n` by these policies, the last of all; charge all of them or none.

    `admitted` is the verdict of the policies before. Return the row, the binding policy and the number of denials.
    Unless `complete`, only `allowed` and `delay_ns` of the row are right, and the binding policy is the first that
    denies.
    """
    raise NotImplementedError


@overload(attempt, strict=False, jit_options=_INLINED)
def _overload_attempt(
    policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, delays: Any, now: Any,
    n: Any, admitted: Any, complete: Any,
) -> Callable[..., Any]:  # fmt: skip
    def attempt_none(
        policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, delays: Any,
        now: Any, n: Any, admitted: Any, complete: Any,
    ) -> Any:  # fmt: skip
        return admitted, NEVER, 0, 0, 0, NOT_BOUND, 0

    def attempt_first(
        policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, delays: Any,
        now: Any, n: Any, admitted: Any, complete: Any,
    ) -> Any:  # fmt: skip
        number = len(verdicts) - count
        cost = get_policy_cost(costs, number, n)
        if cost == NOT_ASKED:
            return attempt(
                policies[1:], places[1:], states, scratch, keys, costs, verdicts, delays, now, n, admitted, complete
            )
        algorithm = policies[0]
        state, copy = get_states(algorithm, places[0], states, scratch, keys, number, n)
        fits, remaining, retry_after, reset_after, delay = try_hit(algorithm, state, copy, now, cost)
        all_fit, least, longest, reset, wait, bound, denials = attempt(
            policies[1:],
            places[1:],
            states,
            scratch,
            keys,
            costs,
            verdicts,
            delays,
            now,
            n,
            admitted and fits,
            complete,
        )
        remaining, reset_after = keep_hit(algorithm, state, copy, now, cost, all_fit, remaining, reset_after)
        if looks_again and fits and not all_fit:
            _, remaining, _, reset_after, _ = try_hit(algorithm, state, copy, now, 0)
        verdicts[number, n] = fits
        delay = delay if all_fit else 0
        if queues:
            delays[number, n] = delay
        denials += not fits
        binds = not fits and (not looks_again or bound == NOT_BOUND or retry_after >= longest)
        bound, longest = number if binds else bound, retry_after if binds else longest
        return all_fit, min(least, remaining), longest, max(reset, reset_after), max(wait, delay), bound, denials

    count, looks_again = len(policies), complete != numba.none
    queues = count > 0 and STAND_INS[policies[0].instance_class].queues
    return attempt_first if count else attempt_none


def find_binding(
    policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, now: Any, n: Any
) -> Any:
    """Return the policy that denied request `n` with the longest `retry_after_ns`, the first of several, and that."""
    raise NotImplementedError


@overload(find_binding, strict=False, jit_options=_INLINED)
def _overload_find_binding(
    policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, now: Any, n: Any
) -> Callable[..., Any]:
    def find_none(
        policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, now: Any, n: Any
    ) -> Any:
        return NOT_BOUND, NOT_BOUND

    def find_first(
        policies: Any, places: Any, states: Any, scratch: Any, keys: Any, costs: Any, verdicts: Any, now: Any, n: Any
    ) -> Any:
        bound, longest = find_binding(policies[1:], places[1:], states, scratch, keys, costs, verdicts, now, n)
        number = len(verdicts) - count
        cost = get_policy_cost(costs, number, n)
        if cost == NOT_ASKED or verdicts[number, n]:
            return bound, longest
        state, copy = get_states(policies[0], places[0], states, scratch, keys, number, n)
        _, _, retry_after, _, _ = try_hit(policies[0], state, copy, now, cost)
        return (number, retry_after) if retry_after >= longest else (bound, longest)

    count = len(policies)
    return find_first if count else find_none


def prefetch_states(policies: Any, places: Any, states: Any, keys: Any, n: Any) -> None:
    """Fetch the states of later requests into the cache."""
    raise NotImplementedError


@overload(prefetch_states, strict=False, jit_options=_INLINED)
def _overload_prefetch_states(policies: Any, places: Any, states: Any, keys: Any, n: Any) -> Callable[..., Any]:
    def prefetch_first(policies: Any, places: Any, states: Any, keys: Any, n: Any) -> None:
        row = max(0, len(keys) - count)
        begin, distance = places[0]
        if len(keys) > 1 or begin == 0:  # states side by side come with the first
            prefetch(states, begin + distance * keys[row, n + STATE_PREFETCH])
        prefetch_long(policies[0], states, begin + distance * keys[row, n + ENTRY_PREFETCH], distance)
        prefetch_states(policies[1:], places[1:], states, keys, n)

    count = len(policies)
    return prefetch_first if count else lambda policies, places, states, keys, n: None


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


def get_policy_cost(costs: Any, number: Any, n: Any) -> int:
    """Return the cost of request `n` for a policy; without `costs`, each is 1."""
    raise NotImplementedError


@overload(get_policy_cost, strict=False, jit_options=_INLINED)
def _overload_get_policy_cost(costs: Any, number: Any, n: Any) -> Callable[..., Any]:
    return (lambda costs, number, n: 1) if costs == numba.none else (lambda costs, number, n: costs[number, n])


def get_states(
    algorithm: Any, place: Any, states: Any, scratch: Any, keys: Any, number: Any, n: Any
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the state of the key of request `n`, and room for a copy."""
    raise NotImplementedError


@overload(get_states, strict=False, jit_options=_INLINED)
def _overload_get_states(
    algorithm: Any, place: Any, states: Any, scratch: Any, keys: Any, number: Any, n: Any
) -> Callable[..., Any]:
    def get_both(algorithm: Any, place: Any, states: Any, scratch: Any, keys: Any, number: Any, n: Any) -> Any:
        begin, distance = place
        state = slice_unchecked(states, begin + distance * keys[number if len(keys) > 1 else 0, n], distance)
        return state, slice_unchecked(scratch, number * MIN_LONG_STATE, MIN_LONG_STATE)

    return get_both


# --- a hit on one policy, which is kept only if all admit it


def take_step(algorithm: Any, state: Any, now: Any, cost: Any) -> Any:
    """Decide a hit by one algorithm: `step` as a function of its own, which may be called several times in another."""
    raise NotImplementedError


@overload(take_step, strict=False, jit_options=_INLINED)
def _overload_take_step(algorithm: Any, state: Any, now: Any, cost: Any) -> Callable[..., Any]:
    return lambda algorithm, state, now, cost: step(algorithm, state, now, cost)


def try_hit(algorithm: Any, state: Any, copy: Any, now: Any, cost: Any) -> Any:
    """Decide a hit without a charge: a short state changes in its copy only."""
    raise NotImplementedError


@overload(try_hit, strict=False, jit_options=_INLINED)
def _overload_try_hit(algorithm: Any, state: Any, copy: Any, now: Any, cost: Any) -> Callable[..., Any]:
    def try_short(algorithm: Any, state: Any, copy: Any, now: Any, cost: Any) -> Any:
        for place in range(width):
            copy[place] = state[place]
        return take_step(algorithm, copy, now, cost)

    def try_long(algorithm: Any, state: Any, copy: Any, now: Any, cost: Any) -> Any:
        if cost <= 1:
            before = state[head]
            row = take_step(algorithm, state, now, cost)
            copy[0] = state[head]
            state[head] = before
            return row
        row = take_step(algorithm, state, now, 0)
        return row if cost <= row[1] else take_step(algorithm, state, now, cost)

    stand_in = STAND_INS[algorithm.instance_class]
    width: Any = stand_in.width
    head = stand_in.head
    return try_long if width is None else try_short


def keep_hit(
    algorithm: Any, state: Any, copy: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
) -> tuple[int, int]:
    """Charge the hit that `try_hit` has decided, if it is admitted; return `remaining` and `reset_after_ns` then.

    Without a jump for short states, since whether a request is admitted is not predictable.
    """
    raise NotImplementedError


@overload(keep_hit, strict=False, jit_options=_INLINED)
def _overload_keep_hit(
    algorithm: Any, state: Any, copy: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
) -> Callable[..., Any]:
    def keep_short(
        algorithm: Any, state: Any, copy: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
    ) -> Any:
        for place in range(width):
            state[place] = copy[place] if admitted else state[place]
        return remaining, reset_after

    def keep_long(
        algorithm: Any, state: Any, copy: Any, now: Any, cost: Any, admitted: Any, remaining: Any, reset_after: Any
    ) -> Any:
        if cost <= 1:
            state[head] = copy[0] if admitted else state[head]
        elif admitted:
            _, remaining, _, reset_after, _ = take_step(algorithm, state, now, cost)
        return remaining, reset_after

    stand_in = STAND_INS[algorithm.instance_class]
    width: Any = stand_in.width
    head = stand_in.head
    return keep_long if width is None else keep_short
