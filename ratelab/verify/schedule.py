"""A scenario's traffic as it is to be played in real time."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm
from ratelab.quota import LARGEST

LONGEST_ALIGNMENT = 5_000_000_000
"""Nanoseconds that a play may wait for a window to begin."""

_SHIFTS = 8


def planned(traffic: Traffic, speed: float = 1.0) -> Traffic:
    """Return `traffic` played `speed` times as fast: all its times divided, its costs and clients unchanged.

    Raises `InputError` if nothing is asked, if a request costs other than 1, as a live one does, and for a speed
    that is not above 0 or stretches the traffic beyond what can be counted.
    """
    if not isfinite(speed) or speed <= 0:
        raise InputError(f"speed must be a number above 0, got {speed}")
    if not len(traffic):
        raise InputError("the scenario makes no requests, so there is nothing to verify: lengthen it or raise a rate")
    if (traffic.costs != 1).any():
        cost = int(traffic.costs[traffic.costs != 1][0])
        raise InputError(f"a live request costs 1, got a client whose cost is {cost}: leave `cost` out of the scenario")
    if traffic.duration / speed > LARGEST:
        raise InputError(f"at a speed of {speed} the traffic would last longer than 146 years: raise it")
    return replace(traffic, times=(traffic.times / speed).astype(np.int64), duration=int(traffic.duration / speed))


def beginning(window: int, earliest: int) -> int:
    """Return when to begin, in the nanoseconds that `earliest` is in: as soon as a window of the clock begins.

    Windows then lie as in a simulation, whose clock begins at 0, and none ends by chance amid a burst. A start that
    would keep a person waiting longer than `LONGEST_ALIGNMENT` is not awaited.
    """
    wait = -earliest % window
    return earliest + wait if wait <= LONGEST_ALIGNMENT else earliest


def depends_on_clock(algorithm: Algorithm, traffic: Traffic, window: int) -> bool:
    """Say whether what clients are told depends on where in a `window` of the clock the traffic begins, by trying."""
    told = ["allowed", "remaining", "retry_after_ns"]
    first = replay(algorithm, replace(traffic, origin=0))[told]
    shifted = (replace(traffic, origin=window * shift // _SHIFTS) for shift in range(1, _SHIFTS))
    return any((replay(algorithm, one)[told] != first).any() for one in shifted)


def longest_delay(algorithm: Algorithm, traffic: Traffic) -> float:
    """Return the most seconds for which a request of `traffic` has to queue."""
    return float(replay(algorithm, traffic)["delay_ns"].max()) / 1e9
