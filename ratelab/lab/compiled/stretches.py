"""Requests as a compiled loop takes them: with the keys that come some places later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import NDArray

from ratelab.lab.shares import Requests

AHEAD = 12
"""So many requests before its turn a key's state is fetched: as long as memory takes."""


def stretches(own: Requests, origin: int, priced: bool) -> Iterator[tuple[slice, tuple[NDArray[Any] | None, ...]]]:
    """Yield where some requests stand, and their keys, keys to come, times by the clock and, if `priced`, costs."""
    times = own.times + origin if origin else own.times
    last = max(0, len(own.keys) - AHEAD)
    for some, later in ((slice(0, last), slice(AHEAD, None)), (slice(last, None), slice(last, None))):
        yield some, (own.keys[some], own.keys[later], times[some], own.costs[some] if priced else None)
