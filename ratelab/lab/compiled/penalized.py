"""Compiled penalties: a step around the rewritten step of an algorithm; see `ratelab.algorithms.penalty`."""

from __future__ import annotations

from collections.abc import Callable
from types import FunctionType
from typing import Any

import numba

from ratelab.algorithms.penalty import Penalized
from ratelab.limiter import NEVER

FIELDS = ("after", "within", "length", "growth", "divisor", "at_most", "inner")
"""The names of the fields of a stand-in."""


def read_values(algorithm: Penalized, inner: Any) -> tuple[Any, ...]:
    """Return the values of the fields, of which the last stands in for the algorithm within."""
    penalty = algorithm.penalty
    growth = penalty.growth
    return (
        penalty.after, penalty.within, penalty.length, growth.numerator, growth.denominator, penalty.at_most, inner,
    )  # fmt: skip


def wrap_step(inner_step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step of a penalty around `inner_step`."""
    names = {**globals(), "inner_step": numba.njit(inner_step)}
    return FunctionType(_step.__code__, names, _step.__name__)


def inner_step(self: Any, state: Any, now: int, cost: int) -> tuple[bool, int, int, int, int]:
    """Decide a hit by the algorithm within; `wrap_step` replaces this name."""
    raise NotImplementedError


def _step(self: Any, state: Any, now: int, cost: int) -> tuple[bool, int, int, int, int]:
    first, end, length = 2 + self.after, state[1], state[2]
    part = state[first:]
    if now < end:
        _, _, retry_after, _, _ = inner_step(self.inner, part.copy(), now, cost)
        _, _, _, reset_after, _ = inner_step(self.inner, part, now, 0)
        allowed, remaining, delay = cost == 0, 0, 0
        retry_after = 0 if allowed else max(retry_after, end - now)
    else:
        allowed, remaining, retry_after, reset_after, delay = inner_step(self.inner, part, now, cost)
        if not allowed and cost > 0 and retry_after != NEVER:
            oldest = state[first - 1] if first > 3 else now
            if now - oldest < self.within:
                is_known = length > 0 and now < end + length
                length = min(length * self.growth // self.divisor, self.at_most) if is_known else self.length
                end, remaining, retry_after = now + length, 0, max(retry_after, length)
                for n in range(3, first):
                    state[n] = now - self.within
            elif first > 3:
                for n in range(first - 1, 3, -1):
                    state[n] = state[n - 1]
                state[3] = now
    state[0] = now
    state[1] = end
    state[2] = length
    if length > 0:
        reset_after = max(reset_after, end + length - now)
    if first > 3:
        reset_after = max(reset_after, state[3] + self.within - now)
    return allowed, remaining, retry_after, reset_after, delay
