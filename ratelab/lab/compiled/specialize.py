"""Stand-ins: a named tuple of an algorithm's integers for machine code, and the step that is compiled for it.

The class of the tuple is named after the algorithm, its fields and a digest of its source. So machine code cached on
disk is found again, and never used for another source.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import fields, is_dataclass
from functools import cache
from hashlib import blake2b
from inspect import getfile
from pathlib import Path
from types import FunctionType
from typing import Any, NamedTuple

import numba
import numpy as np

from ratelab.algorithms import traits_of
from ratelab.algorithms.penalty import Penalized
from ratelab.lab import step_source
from ratelab.lab.compiled import optimize, overflow_checks
from ratelab.lab.compiled.states import MIN_LONG_STATE
from ratelab.lab.step_source import UnfitError
from ratelab.limiter import NEVER, Algorithm


class StandIn(NamedTuple):
    """What the loops need to know of a class of tuples."""

    step: Callable[..., Any]
    """The rewritten step, to be compiled."""
    width: int | None
    """Integers in each state; None if it is long, so that a longer one needs no code of its own."""
    next_access: Callable[..., Any] | None
    """See `optimize.LongState`, as for `head`."""
    head: int | None
    queues: bool


STAND_INS: dict[type, StandIn] = {}
"""By class of tuples."""

PENALTY_FIELDS = ("after", "within", "length", "growth", "divisor", "at_most", "inner")
"""The fields of a tuple that stands in for an algorithm with a penalty."""


def create_stand_in(algorithm: Algorithm, width: int, complete: bool) -> Any:
    """Return the tuple that stands in for `algorithm`, whose states have this `width`.

    Unless `complete`, its step returns the right `allowed` and `delay_ns` only. Raises `UnfitError` if the algorithm
    cannot be compiled.
    """
    kind = type(algorithm)
    if isinstance(algorithm, Penalized):
        return _create_penalized(algorithm, width)
    names, values = _read_fields(algorithm)
    step, source, divisors = _rewrite(kind, names, _read_globals(kind), complete)
    for divisor in divisors:
        names += tuple(divisor + suffix for suffix in optimize.SUFFIXES)
        values += optimize.reciprocal(getattr(algorithm, divisor))
    fixed_width = width if width < MIN_LONG_STATE else None
    digest = blake2b(source + _read_engine(), digest_size=12).hexdigest()
    stand_in = __getattr__("-".join((kind.__name__, f"{digest}_{fixed_width}_{complete}", *names)))
    long_state = optimize.LONG_STATES.get(kind)
    STAND_INS[stand_in] = StandIn(
        step,
        fixed_width,
        long_state and long_state.next_access,
        long_state and long_state.head,
        traits_of(algorithm).queues,
    )
    return stand_in(*values)


def _create_penalized(algorithm: Penalized, width: int) -> Any:
    """Return the tuple that stands in for an algorithm with a penalty, which may depend on all fields of a decision."""
    inner = create_stand_in(algorithm.inner, width - 2 - algorithm.penalty.after, complete=True)
    fixed_width = width if width < MIN_LONG_STATE else None
    name = f"{type(inner).__name__.replace('-', '_')}_penalized_{fixed_width}"
    stand_in = __getattr__("-".join(("Penalized", name, *PENALTY_FIELDS)))
    if stand_in not in STAND_INS:
        known = STAND_INS[type(inner)]
        STAND_INS[stand_in] = StandIn(_wrap_step(known.step), fixed_width, None, None, known.queues)
    return stand_in(*_read_penalty(algorithm, inner))


@cache
def __getattr__(name: str) -> Any:
    """Create the class of tuples called `name`; Numba also looks for it in this module as it reads its cache."""
    kind, *digest_and_fields = name.split("-")
    if not (kind and digest_and_fields):
        raise AttributeError(name)
    stand_in: Any = namedtuple("StandIn", digest_and_fields[1:])  # type: ignore[misc]
    stand_in.__name__ = stand_in.__qualname__ = name
    stand_in.__module__ = __name__
    return stand_in


def _read_fields(algorithm: Algorithm) -> tuple[tuple[str, ...], tuple[Any, ...]]:
    """Return the names and the values of an algorithm's fields: integers, and tuples of them as arrays."""
    kind = type(algorithm)
    if not is_dataclass(algorithm) or isinstance(algorithm, type):
        raise UnfitError(f"{kind.__name__} is not a dataclass")
    values = [getattr(algorithm, field.name) for field in fields(algorithm)]
    items = [item for value in values for item in (value if isinstance(value, tuple) else (value,))]
    if not all(isinstance(item, int) and -NEVER <= item <= NEVER for item in items):
        raise UnfitError(f"{kind.__name__} has fields that are not integers of 64 bits")
    names = tuple(field.name for field in fields(algorithm))
    if any(name.startswith("_") for name in names):
        raise UnfitError(f"{kind.__name__} has a field whose name begins with _")
    return names, tuple(np.array(value, np.int64) if isinstance(value, tuple) else value for value in values)


@cache
def _rewrite(
    kind: type[Algorithm], names: tuple[str, ...], global_values: str, complete: bool
) -> tuple[Callable[..., Any], bytes, tuple[str, ...]]:
    """Return the step to compile, the source that it depends on, and the fields whose reciprocals it uses."""
    try:
        source = Path(getfile(kind)).read_bytes() + Path(getfile(kind.step)).read_bytes()  # it may be inherited
        if traits_of(kind).bound is None:
            step = overflow_checks.add_checks(kind.step, names, overflow_checks.FUNCTIONS)
            return step, source + global_values.encode(), ()
        long_state = optimize.LONG_STATES.get(kind)
        unread = () if complete or long_state is None else long_state.unread
        step, divisors = optimize.optimize(kind.step, unread)
    except (OSError, TypeError) as error:
        raise UnfitError(f"{kind.__name__} has no source: {error}") from error
    return step, source, divisors


def _read_globals(kind: type[Algorithm]) -> str:
    """Return the current values of the global names in a step."""
    code: Any = getattr(kind.step, "__code__", None)
    return repr([(name, kind.step.__globals__.get(name)) for name in code.co_names]) if code else ""


@cache
def _read_engine() -> bytes:
    """Return the source of the compiled engine."""
    files = [*sorted(Path(__file__).parent.glob("*.py")), Path(step_source.__file__)]
    return b"".join(path.read_bytes() for path in files)


# --- penalties: a step around the rewritten step of an algorithm


def _read_penalty(algorithm: Penalized, inner: Any) -> tuple[Any, ...]:
    """Return the values of the fields, of which the last stands in for the algorithm within."""
    penalty = algorithm.penalty
    growth = penalty.growth
    return (
        penalty.after, penalty.within, penalty.length, growth.numerator, growth.denominator, penalty.at_most, inner,
    )  # fmt: skip


def _wrap_step(inner_step: Callable[..., Any]) -> Callable[..., Any]:
    """Return the step of a penalty around `inner_step`."""
    names = {**globals(), "inner_step": numba.njit(inner_step)}
    return FunctionType(_step_with_penalty.__code__, names, _step_with_penalty.__name__)


def inner_step(self: Any, state: Any, now: int, cost: int) -> tuple[bool, int, int, int, int]:
    """Decide a hit by the algorithm within; `_wrap_step` replaces this name."""
    raise NotImplementedError


def _step_with_penalty(self: Any, state: Any, now: int, cost: int) -> tuple[bool, int, int, int, int]:
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
