"""States laid down one behind the other, as machine code."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numba

from ratelab.lab.compiled.intrinsics import jitted, made


@cache
def laying() -> Callable[..., None]:
    """Return what lets a state begin at each place but the last, where all end: as much of a new one as fits."""
    return made(_LAY, numba.void(*[numba.int64[::1]] * 3))


def _lay(first: Any, begins: Any, numbers: Any) -> None:
    for n in range(len(begins) - 1):
        numbers[begins[n] : begins[n + 1]] = first[: begins[n + 1] - begins[n]]


_LAY = jitted(_lay)
