"""Checked arithmetic and optimized steps: the results of plain Python, or an error."""

from __future__ import annotations

import dis
from collections.abc import Callable
from operator import add, floordiv, mod, mul, sub
from typing import Any

import numba
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ratelab import ALGORITHMS, Quota
from ratelab.algorithms import find
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.lab.compiled import intrinsics, optimize, overflow_checks

QUOTA = Quota.parse("7/13s", 10)


def compute(operation: int, a: int, b: int) -> int:
    if operation == 0:
        return overflow_checks.add(a, b)
    if operation == 1:
        return overflow_checks.subtract(a, b)
    if operation == 2:
        return overflow_checks.multiply(a, b)
    if operation == 3:
        return overflow_checks.divide(a, b)
    if operation == 4:
        return overflow_checks.modulo(a, b)
    return overflow_checks.absolute_value(a)


def magnitude(a: int, _: int) -> int:
    return abs(a)


compiled_compute: Any = numba.njit(compute)
numbers = st.integers(-(2**63), 2**63 - 1) | st.integers(-4, 4) | st.sampled_from([2**32, 3037000500, -(2**31)])


@pytest.mark.slow
@given(a=numbers, b=numbers)
@example(a=-(2**63), b=-1)
@example(a=1, b=0)
def test_an_operation_has_the_result_of_python_or_raises(a: int, b: int) -> None:
    for number, operation in enumerate((add, sub, mul, floordiv, mod, magnitude)):
        try:
            expected = operation(a, b)
        except ZeroDivisionError:
            expected = 2**63
        if abs(expected) < 0.999 * 2**63:
            assert compiled_compute(number, a, b) == expected
        elif not -(2**63) <= expected < 2**63:
            with pytest.raises((OverflowError, ZeroDivisionError)):
                compiled_compute(number, a, b)


@numba.njit
def divide_floor(number: int, reciprocal: tuple[int, int, int]) -> Any:
    return intrinsics.divide_floor(number, reciprocal)


@numba.njit
def divide_ceil(number: int, reciprocal: tuple[int, int, int]) -> Any:
    return intrinsics.divide_ceil(number, reciprocal)


whole = st.integers(-(2**63), 2**63 - 1) | st.integers(-9, 9) | st.integers(2**62, 2**63 - 1)
positive = st.integers(1, 2**63 - 1) | st.integers(1, 9) | st.integers(0, 62).map(lambda bits: 2**bits)


@pytest.mark.slow
@given(number=whole, divisor=positive, near=st.integers(-1, 1))
def test_multiplication_by_the_reciprocal_is_exact_division(number: int, divisor: int, near: int) -> None:
    reciprocal = optimize.reciprocal(divisor)
    for dividend in (number, number // divisor * divisor + near):
        if -(2**63) <= dividend < 2**63:
            assert divide_floor(dividend, reciprocal) == dividend // divisor
        if 0 <= dividend < 2**63 - divisor:
            assert divide_ceil(dividend, reciprocal) == -(-dividend // divisor)


@pytest.mark.parametrize(
    ("name", "divisors"), [("fixed-window", {"window"}), ("leaky-bucket", {"limit", "period"}), ("sliding-log", set())]
)
def test_divisions_by_fields_become_multiplications(name: str, divisors: set[str]) -> None:
    _, fields = optimize.optimize(find(name).step, ())
    assert {*fields} == divisors


@pytest.mark.parametrize("name", ["token-bucket", "leaky-bucket", "sliding-log"])
def test_an_optimized_step_does_not_clamp_the_time(name: str) -> None:
    step = find(name).step
    assert (count_clamps(step), count_clamps(optimize.optimize(step, ())[0])) == (1, 0)


def count_clamps(step: Callable[..., Any]) -> int:
    """Count the assignments to `now` in a step."""
    return sum((line.opname, line.argval) == ("STORE_FAST", "now") for line in dis.get_instructions(step))


class WatchedState(list[int]):
    """A state that records its last changed position, and rejects negative ones."""

    farthest = 0

    def __getitem__(self, place: Any) -> Any:
        assert place >= 0
        return super().__getitem__(place)

    def __setitem__(self, place: Any, value: Any) -> None:
        assert place >= 0
        self.farthest = max(self.farthest, place)
        super().__setitem__(place, value)


@given(costs=st.lists(st.integers(0, QUOTA.burst + 1), max_size=20), every=st.sampled_from([0, 1, 5]))
def test_no_index_is_negative_and_none_exceeds_the_reached_length(costs: list[int], every: int) -> None:
    for kind in ALGORITHMS.values():
        algorithm = kind.from_quota(QUOTA)
        state = WatchedState(algorithm.start(0))
        for now, cost in enumerate(costs):
            algorithm.step(state, now * every * QUOTA.window // 5, cost)
        if kind in optimize.LONG_STATES:
            assert state.farthest < optimize.LONG_STATES[kind].reached(sum(costs))


@given(costs=st.lists(st.integers(0, QUOTA.burst + 1), max_size=20))
def test_unread_positions_do_not_change_admissions_or_delays(costs: list[int]) -> None:
    algorithm = SlidingLog.from_quota(QUOTA)
    state, reset = algorithm.start(0), algorithm.start(0)
    for now, cost in enumerate(costs):
        for place in optimize.LONG_STATES[SlidingLog].unread:
            reset[place] = 0
        row, other = (algorithm.step(each, now * QUOTA.window // 5, cost) for each in (state, reset))
        assert (row[0], row[4]) == (other[0], other[4])


def test_unread_positions_are_not_written() -> None:
    steps = (optimize.optimize(SlidingLog.step, unread)[0] for unread in ((), (2,)))
    assert [dis.Bytecode(step).dis().count("STORE_SUBSCR") for step in steps] == [5, 4]
