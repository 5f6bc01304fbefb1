"""Random traffic for replays, drawn by machine code, and the floor of a replay over it."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ratelab.lab.traffic import Traffic

KEYS, EXPONENT = 100_000, 1.1
"""The key of rank r sends in proportion to r ** -EXPONENT (Zipf's law)."""

REQUESTS_PER_SECOND = 10_000
"""Rate of all keys together."""

_INCREMENT, _HALF, _LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(32), np.uint64(2**32 - 1)


def draw_traffic(requests: int, seed: int = 1) -> Traffic:
    """Draw a Poisson process of requests of cost 1, with keys by Zipf's law; equal seeds give equal traffic."""
    shares = np.arange(1, KEYS + 1) ** -EXPONENT
    times, clients = np.empty(requests, np.int64), np.empty(requests, np.int64)
    _draw_times(1e9 / REQUESTS_PER_SECOND, np.uint64(seed), times)
    _draw_keys(_alias_table(shares / shares.mean()), np.uint64(2**63 + seed), clients)
    costs = np.broadcast_to(np.int64(1), requests)
    names = tuple(map(str, range(KEYS)))
    return Traffic(times, clients, costs, names, np.arange(KEYS), int(times[-1]) + 1)


def run_floor(keys: NDArray[np.uint32], times: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Read the key and time of each request, and write a state and a byte, as any replay in arrival order must."""
    states, allowed = np.zeros(KEYS, np.int64), np.empty(len(keys), np.bool_)
    _run_floor(keys, times, states, allowed)
    return allowed


@numba.njit(cache=True)
def _run_floor(keys: Any, times: Any, states: Any, allowed: Any) -> None:
    for n in range(len(keys)):
        allowed[n] = times[n] > states[keys[n]]
        states[keys[n]] = times[n]


@numba.njit(cache=True)
def _alias_table(shares: Any) -> Any:
    """Return Walker's alias table for `shares` of mean 1: the part of a column that it keeps, and its alias."""
    kept, alias = shares.copy(), np.arange(len(shares))
    small = [n for n in range(len(shares)) if shares[n] < 1]
    large = [n for n in range(len(shares)) if shares[n] >= 1]
    while small and large:
        taker, giver = small.pop(), large[-1]
        alias[taker] = giver
        kept[giver] -= 1 - kept[taker]
        if kept[giver] < 1:
            small.append(large.pop())
    return (np.minimum(kept, 0.9999999) * 2.0**32).astype(np.int64) << 32 | alias


@numba.njit(cache=True)
def _draw_keys(table: Any, seed: Any, keys: Any) -> None:
    size = np.uint64(len(table))
    for n in range(len(keys)):
        seed += _INCREMENT
        place = (_mix(seed) >> _HALF) * size
        column = place >> _HALF
        packed = np.uint64(table[column])
        keys[n] = column if (place & _LOW) < (packed >> _HALF) else packed & _LOW


@numba.njit(cache=True)
def _draw_times(mean_gap: float, seed: Any, times: Any) -> None:
    now = 0.0
    for n in range(len(times)):
        seed += _INCREMENT
        now -= math.log((np.int64(_mix(seed) >> np.uint64(12)) + 0.5) * 2.0**-52) * mean_gap
        times[n] = int(now)


@numba.njit(inline="always")
def _mix(seed: Any) -> Any:
    """Return the random bits of one state of SplitMix64: Steele, Lea and Flood (2014)."""
    bits = (seed ^ (seed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
