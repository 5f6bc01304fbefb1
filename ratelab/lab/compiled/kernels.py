"""Steps compiled as they stand by Numba, and the loops that drive them over columns.

A named tuple of its integers stands in for the algorithm. The tuple's class is named after what was compiled, its
fields and a digest of its source, so that machine code kept on disk is found again, and never for another source.
"""

from __future__ import annotations

import re
from collections import namedtuple
from collections.abc import Callable
from dataclasses import astuple, fields, is_dataclass
from functools import cache, partial
from hashlib import blake2b
from inspect import getfile
from pathlib import Path
from typing import Any, Literal

import numba
import numpy as np
from numba.core.errors import NumbaError
from numba.extending import overload

from ratelab.algorithms.outside import is_ours
from ratelab.lab.compiled import integers, processor
from ratelab.lab.compiled.checked import RefusedError, rewritten
from ratelab.lab.compiled.processor import fetch
from ratelab.lab.traffic import Integers
from ratelab.limiter import NEVER, Algorithm

processor.tune()

AHEAD = 12
"""So many requests before its turn a key's state is fetched: as long as memory takes."""

_STEPS: dict[type, Callable[..., Any]] = {}
"""The step for each class of tuples."""


class NotCompiledError(Exception):
    """A step cannot be compiled; the message says where and why."""


def compiled(algorithm: Algorithm, columns: int) -> Callable[..., None]:
    """Return a loop that decides requests in their order, `algorithm`'s step compiled into it.

    It takes the keys' states as rows, each request's key, time, what to add to it, and cost, and so many columns to
    fill: 1 whether a request is allowed, 2 its delay, too, 5 all fields of a `Decision`.
    Raises `NotCompiledError` if the step cannot be compiled.
    """
    stand_in = _stand_in(algorithm)
    try:
        run = _LOOPS[columns].compile(_signature(stand_in, columns))
    except NumbaError as error:
        raise NotCompiledError(_told(algorithm, error)) from error
    return partial(run, stand_in)


def step(self: Any, state: Integers, now: int, cost: int) -> tuple[bool, int, int, int, int]:
    """Stand for the step of whatever algorithm `self` stands in for."""
    raise NotImplementedError


@overload(step, inline="always", strict=False)
def _step_of(self: Any, state: Any, now: Any, cost: Any) -> Callable[..., Any]:  # noqa: ARG001  (told by its types)
    return _STEPS[self.instance_class]


def _decide(algorithm: Any, states: Any, keys: Any, times: Any, origin: int, costs: Any, allowed: Any) -> None:
    last = len(keys) - 1
    for n in range(len(keys)):
        fetch(states, keys[min(n + AHEAD, last)])
        allowed[n], _, _, _, _ = step(algorithm, states[keys[n]], times[n] + origin, costs[n])


def _decide_when(
    algorithm: Any, states: Any, keys: Any, times: Any, origin: int, costs: Any, allowed: Any, delays: Any
) -> None:
    last = len(keys) - 1
    for n in range(len(keys)):
        fetch(states, keys[min(n + AHEAD, last)])
        allowed[n], _, _, _, delays[n] = step(algorithm, states[keys[n]], times[n] + origin, costs[n])


def _decide_all(
    algorithm: Any, states: Any, keys: Any, times: Any, origin: int, costs: Any,
    allowed: Any, remaining: Any, retry_afters: Any, reset_afters: Any, delays: Any,
) -> None:  # fmt: skip
    last = len(keys) - 1
    for n in range(len(keys)):
        fetch(states, keys[min(n + AHEAD, last)])
        made = step(algorithm, states[keys[n]], times[n] + origin, costs[n])
        allowed[n], remaining[n], retry_afters[n], reset_afters[n], delays[n] = made


def _partition(keys: Any, times: Any, bits: int) -> tuple[Integers, Any, Integers, Any]:
    """Split requests by the lowest `bits` of their keys: where parts end, what is left of keys, times and places."""
    ends = np.zeros((1 << bits) + 1, np.int64)
    mask = np.uint32((1 << bits) - 1)
    for key in keys:
        ends[(key & mask) + np.uint32(1)] += 1
    for part in range(1 << bits):
        ends[part + 1] += ends[part]
    following = ends[:-1].copy()
    part_keys, part_times, places = np.empty_like(keys), np.empty_like(times), np.empty_like(keys)
    for n in range(len(keys)):
        part = keys[n] & mask
        place = following[part]
        following[part] = place + 1
        part_keys[place], part_times[place], places[place] = keys[n] >> np.uint32(bits), times[n], n
    return ends, part_keys, part_times, places


def _jitted(function: Callable[..., Any]) -> Any:
    """Compile when called, and keep the code on disk where there is a place for it."""
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy"}  # a divisor is never 0
    try:
        return numba.njit(cache=True, **options)(function)
    except RuntimeError:  # neither the package's folder nor the user's can be written
        return numba.njit(**options)(function)


_LOOPS = {1: _jitted(_decide), 2: _jitted(_decide_when), 5: _jitted(_decide_all)}
partition = _jitted(_partition)

_COLUMN, _FLAGS = numba.int64[::1], numba.boolean[::1]


def _read_only(kind: Any, layout: Literal["C", "A"] = "C") -> Any:
    return numba.types.Array(kind, 1, layout, readonly=True)


def _signature(stand_in: Any, columns: int) -> Any:
    """Return the types of a loop's arguments; costs may be one number shown again and again."""
    keys, times, costs = _read_only(numba.uint32), _read_only(numba.int64), _read_only(numba.int64, "A")
    algorithm, states = numba.typeof(stand_in), numba.int64[:, ::1]  # type: ignore[no-untyped-call]
    return numba.void(algorithm, states, keys, times, numba.int64, costs, *[_FLAGS, *[_COLUMN] * (columns - 1)])


def _stand_in(algorithm: Algorithm) -> Any:
    """Return the tuple that stands in for `algorithm`."""
    kind = type(algorithm)
    if not is_dataclass(algorithm) or isinstance(algorithm, type):
        raise NotCompiledError(f"{kind.__name__} is no dataclass")
    values = astuple(algorithm)
    if not all(isinstance(value, int) and -NEVER <= value <= NEVER for value in values):
        raise NotCompiledError(f"{kind.__name__} has fields that are no whole numbers of 64 bits")
    compiled_step, text = _source(kind)
    digest = blake2b(text, digest_size=12).hexdigest()
    stand_in = __getattr__("-".join((kind.__name__, digest, *(field.name for field in fields(algorithm)))))
    _STEPS[stand_in] = compiled_step
    return stand_in(*values)


def _source(kind: type[Algorithm]) -> tuple[Callable[..., Any], bytes]:
    """Return the step to compile, and all the text that it depends on: ours as it stands, others' with checks."""
    try:
        file = Path(getfile(kind)).read_bytes()
        if is_ours(kind):
            return kind.step, file
        checked_step, text = rewritten(kind.step, integers.FUNCTIONS)
    except (OSError, TypeError) as error:
        raise NotCompiledError(f"{kind.__name__} has no source: {error}") from error
    except RefusedError as error:
        raise NotCompiledError(str(error)) from error
    return checked_step, file + text.encode() + Path(integers.__file__).read_bytes()


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


def _told(algorithm: Algorithm, error: NumbaError) -> str:
    """Say on which line of its file a step could not be compiled, and why, in a line."""
    path, text = getfile(type(algorithm)), str(error)
    lines = re.findall(rf'File "[^"]*{re.escape(Path(path).name)}", line (\d+)', text)
    reasons = re.findall(r"TypingError: (.+)", text) or text.split("\n")[1:2]
    return f"{path}:{lines[-1] if lines else '?'}: {' '.join(reasons[-1:]).strip()}"
