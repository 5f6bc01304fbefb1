"""What stands in for an algorithm in machine code: a named tuple of its integers, and its step.

The tuple's class is named after the algorithm, its fields and a digest of its source, so that machine code kept on disk
is found again, and never for another source.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import astuple, fields, is_dataclass
from functools import cache
from hashlib import blake2b
from inspect import getfile
from pathlib import Path
from typing import Any, NamedTuple

from ratelab.algorithms import traits_of
from ratelab.lab.compiled import optimize, overflow_checks
from ratelab.lab.compiled.overflow_checks import RefusedError, rewritten
from ratelab.lab.compiled.states import WIDE
from ratelab.limiter import NEVER, Algorithm


class Meaning(NamedTuple):
    """What a class of tuples stands for."""

    step: Callable[..., Any]
    width: int | None
    """How many numbers each state has; None if they are wide, so that a larger ring needs no code of its own."""
    looks_at: Callable[..., Any] | None
    """See `optimize.LongState`."""


FIELD_TYPES: dict[type, Meaning] = {}
"""Of each class of tuples."""


class NotCompiledError(Exception):
    """A step cannot be compiled; the message says where and why."""


def specialized(algorithm: Algorithm, numbers: int, complete: bool) -> Any:
    """Return the tuple that stands in for `algorithm`, whose states have so many `numbers`.

    It tells all of a decision, or, unless `complete`, just what figures are made of.
    """
    kind = type(algorithm)
    if not is_dataclass(algorithm) or isinstance(algorithm, type):
        raise NotCompiledError(f"{kind.__name__} is no dataclass")
    values = astuple(algorithm)
    if not all(isinstance(value, int) and -NEVER <= value <= NEVER for value in values):
        raise NotCompiledError(f"{kind.__name__} has fields that are no whole numbers of 64 bits")
    names = [field.name for field in fields(algorithm)]
    if any(name.startswith("_") for name in names):
        raise NotCompiledError(f"{kind.__name__} has a field whose name begins with _")
    compiled_step, text, divisors = _source(kind, tuple(names), _outer_values(kind), complete)
    for divisor in divisors:
        names += [divisor + suffix for suffix in optimize.SUFFIXES]
        values += optimize.reciprocal(getattr(algorithm, divisor))
    width = numbers if numbers < WIDE else None
    digest = blake2b(text + _machinery(), digest_size=12).hexdigest()
    stand_in = __getattr__("-".join((kind.__name__, f"{digest}_{width}_{complete}", *names)))
    long_state = optimize.LONG_STATES.get(kind)
    FIELD_TYPES[stand_in] = Meaning(compiled_step, width, long_state and long_state.next_access)
    return stand_in(*values)


@cache
def _source(
    kind: type[Algorithm], names: tuple[str, ...], outer: str, complete: bool
) -> tuple[Callable[..., Any], bytes, tuple[str, ...]]:
    """Return the step to compile, all that it is made of, and the fields whose reciprocals it takes.

    Ours is compiled as it stands, but for some shortcuts; others' with checks.
    """
    try:
        text = Path(getfile(kind)).read_bytes() + Path(getfile(kind.step)).read_bytes()  # it may be inherited
        if traits_of(kind).bound is not None:
            long_state = optimize.LONG_STATES.get(kind)
            unkept = () if complete or long_state is None else long_state.unread
            shortened_step, divisors = optimize.shortened(kind.step, unkept)
            return shortened_step, text, divisors
        return rewritten(kind.step, names, overflow_checks.FUNCTIONS), text + outer.encode(), ()
    except (OSError, TypeError) as error:
        raise NotCompiledError(f"{kind.__name__} has no source: {error}") from error
    except RefusedError as error:
        raise NotCompiledError(str(error)) from error


def _outer_values(kind: type[Algorithm]) -> str:
    """Return what the names in a step's text stand for now that are not its own."""
    code: Any = getattr(kind.step, "__code__", None)
    return repr([(name, kind.step.__globals__.get(name)) for name in code.co_names]) if code else ""


@cache
def _machinery() -> bytes:
    """Return the text of all that makes machine code of a step."""
    return b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))


@cache
def __getattr__(name: str) -> Any:
    """Make the class of tuples called `name`; also when Numba looks for it as it reads its index."""
    kind, *digest_and_fields = name.split("-")
    if not (kind and digest_and_fields):
        raise AttributeError(name)
    found: Any = namedtuple("StandIn", digest_and_fields[1:])  # type: ignore[misc]
    found.__name__ = found.__qualname__ = name
    found.__module__ = __name__
    return found
