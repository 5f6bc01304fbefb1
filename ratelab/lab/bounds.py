"""Bounds of the integers of an algorithm, for engines that have 64 bits for each."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ratelab.algorithms import traits_of
from ratelab.algorithms.penalty import Penalized
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, Algorithm


def check_bound(algorithm: Algorithm, traffic: Traffic, max_cost: int = 0) -> None:
    """Raise `OverflowError` if the algorithm's declared bound, or a sum with it, may exceed 64 bits.

    Costs are those of the traffic, and up to `max_cost`.
    """
    bound = traits_of(algorithm).bound
    if bound is None:
        return
    latest = traffic.origin + traffic.duration
    largest = bound(algorithm, latest, max(max_cost, traffic.max_cost), traffic.duration + 1)
    if largest + max(algorithm.start(latest)) + find_largest_number(algorithm) > NEVER:
        raise OverflowError


def find_largest_number(algorithm: Any) -> int:
    """Return the largest field of an algorithm; a table holds times, which a declared bound covers."""
    if isinstance(algorithm, Penalized):
        return find_largest_number(algorithm.inner)
    values = [getattr(algorithm, field.name) for field in fields(algorithm)]
    return max((value for value in values if isinstance(value, int)), default=0)
