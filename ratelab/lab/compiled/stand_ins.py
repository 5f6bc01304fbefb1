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
from typing import Any

from ratelab.algorithms.outside import is_ours
from ratelab.lab.compiled import division, integers
from ratelab.lab.compiled.checked import RefusedError, rewritten
from ratelab.limiter import NEVER, Algorithm

STEPS: dict[type, Callable[..., Any]] = {}
"""The step to compile for each class of tuples."""


class NotCompiledError(Exception):
    """A step cannot be compiled; the message says where and why."""


def stand_in_for(algorithm: Algorithm) -> Any:
    """Return the tuple that stands in for `algorithm`."""
    kind = type(algorithm)
    if not is_dataclass(algorithm) or isinstance(algorithm, type):
        raise NotCompiledError(f"{kind.__name__} is no dataclass")
    values = astuple(algorithm)
    if not all(isinstance(value, int) and -NEVER <= value <= NEVER for value in values):
        raise NotCompiledError(f"{kind.__name__} has fields that are no whole numbers of 64 bits")
    names = [field.name for field in fields(algorithm)]
    compiled_step, text, divisors = _source(kind)
    for divisor in divisors:
        names += [divisor + suffix for suffix in division.SUFFIXES]
        values += division.reciprocal(getattr(algorithm, divisor))
    digest = blake2b(text, digest_size=12).hexdigest()
    stand_in = __getattr__("-".join((kind.__name__, digest, *names)))
    STEPS[stand_in] = compiled_step
    return stand_in(*values)


@cache
def _source(kind: type[Algorithm]) -> tuple[Callable[..., Any], bytes, tuple[str, ...]]:
    """Return the step to compile, all the text that it depends on, and the fields whose reciprocals it needs.

    Ours is compiled as it stands, but for divisions by these; others' with checks.
    """
    try:
        file = Path(getfile(kind)).read_bytes()
        if is_ours(kind):
            multiplying_step, divisors = division.multiplying(kind.step)
            return multiplying_step, file + Path(division.__file__).read_bytes(), divisors
        checked_step, text = rewritten(kind.step, integers.FUNCTIONS)
    except (OSError, TypeError) as error:
        raise NotCompiledError(f"{kind.__name__} has no source: {error}") from error
    except RefusedError as error:
        raise NotCompiledError(str(error)) from error
    return checked_step, file + text.encode() + Path(integers.__file__).read_bytes(), ()


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
