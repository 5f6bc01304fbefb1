"""Requests as a compiled loop takes them: with the keys that come later."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.partition import Requests

FAR, NEAR = 96, 48
"""So many requests before its turn a key's state is fetched, and, if it is long, where in it there is work to do."""


def stretches(own: Requests, origin: int, priced: bool) -> Iterator[tuple[slice, tuple[NDArray[Any] | None, ...]]]:
    """Yield where some requests stand, their keys and `FAR` more, times by the clock and, if `priced`, costs."""
    times = own.times + origin if origin else own.times
    last = max(0, len(own.keys) - FAR)
    rest = own.keys[last:]
    for some, keys in ((slice(0, last), own.keys), (slice(last, None), np.append(rest, np.repeat(rest[-1:], FAR)))):
        yield some, (keys, times[some], own.costs[some] if priced else None)
