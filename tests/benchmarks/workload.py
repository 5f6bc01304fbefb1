"""Traffic for benchmarks, drawn as machine code, and the least that can be done with it."""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from ratelab.lab.traffic import Traffic

KEYS, EXPONENT = 100_000, 1.1
"""The key of rank r sends in proportion to r ** -EXPONENT, Zipf's law."""

PER_SECOND = 10_000
"""Requests of all keys together."""


def drawn(requests: int, seed: int = 1) -> Traffic:
    """Draw a Poisson process of so many requests of cost 1 over keys by Zipf's law; a seed gives the same ones here."""
    shares = np.arange(1, KEYS + 1) ** -EXPONENT
    times, clients = np.empty(requests, np.int64), np.empty(requests, np.int64)
    _draw_times(1e9 / PER_SECOND, np.uint64(seed), times)
    _draw_keys(_alias(shares / shares.mean()), np.uint64(2**63 + seed), clients)
    ones = np.broadcast_to(np.int64(1), requests)
    names = tuple(map(str, range(KEYS)))
    return Traffic(times, clients, ones, names, np.arange(KEYS), int(times[-1]) + 1)


def least(keys: NDArray[np.uint32], times: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Read each request's key and time, and write a state and a byte: no replay in order of arrival can do less."""
    states, made = np.zeros(KEYS, np.int64), np.empty(len(keys), np.bool_)
    _least(keys, times, states, made)
    return made


@numba.njit(cache=True)
def _least(keys: Any, times: Any, states: Any, made: Any) -> None:
    for n in range(len(keys)):
        made[n] = times[n] > states[keys[n]]
        states[keys[n]] = times[n]


@numba.njit(cache=True)
def _alias(shares: Any) -> Any:
    """Return Walker's table for `shares` of mean 1: how much of a column is its own, and whose the rest is."""
    kept, other = shares.copy(), np.arange(len(shares))
    poor = [n for n in range(len(shares)) if shares[n] < 1]
    rich = [n for n in range(len(shares)) if shares[n] >= 1]
    while poor and rich:
        taker, giver = poor.pop(), rich[-1]
        other[taker] = giver
        kept[giver] -= 1 - kept[taker]
        if kept[giver] < 1:
            poor.append(rich.pop())
    return (np.minimum(kept, 0.9999999) * 2.0**32).astype(np.int64) << 32 | other


@numba.njit(cache=True)
def _draw_keys(table: Any, seed: Any, keys: Any) -> None:
    size = np.uint64(len(table))
    for n in range(len(keys)):
        seed += _STEP
        place = (_mixed(seed) >> _HALF) * size
        column = place >> _HALF
        packed = np.uint64(table[column])
        keys[n] = column if (place & _LOW) < (packed >> _HALF) else packed & _LOW


@numba.njit(cache=True)
def _draw_times(mean_gap: float, seed: Any, times: Any) -> None:
    now = 0.0
    for n in range(len(times)):
        seed += _STEP
        now -= math.log((np.int64(_mixed(seed) >> np.uint64(12)) + 0.5) * 2.0**-52) * mean_gap
        times[n] = int(now)


_STEP, _HALF, _LOW = np.uint64(0x9E3779B97F4A7C15), np.uint64(32), np.uint64(2**32 - 1)


@numba.njit(inline="always")
def _mixed(seed: Any) -> Any:
    """Return the random bits of one state of SplitMix64: Steele, Lea and Flood (2014)."""
    bits = (seed ^ (seed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return bits ^ (bits >> np.uint64(31))
