"""Candidates of `ratelab judge token-bucket` and so on: the built-in algorithms, in memory and in a store.

Each is also an example of an adapter. A leaky bucket is judged by its decisions; its delays are left to the caller.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from math import inf
from typing import TYPE_CHECKING, Any

from ratelab.algorithms import ALGORITHMS, create
from ratelab.quota import NS_PER_S, Quota
from ratelab.stores.memory import MemoryLimiter

if TYPE_CHECKING:
    from ratelab.limiter import Decision
    from ratelab.stores.valkey import ValkeyLimiter

Pair = tuple[bool, float | None]

DEADLINE_S = 1.0
"""Seconds in which a busy machine, too, gets the reply of a server that works."""


class BuiltIn:
    """The factory for one algorithm."""

    def __init__(self, algorithm: str) -> None:
        self._algorithm = algorithm
        self._stores: dict[str, ValkeyLimiter] = {}

    def __call__(self, limit: int, period: float, burst: int) -> Callable[..., Pair]:
        """Return the `hit` of a limiter in memory."""
        return _adapt(MemoryLimiter(create(self._algorithm, _make_quota(limit, period, burst))).hit)

    def several(self, limits: Sequence[tuple[int, float, int]]) -> Callable[..., Pair]:
        """Return the `hit` of a limiter in memory that enforces several limits together."""
        policies = [create(self._algorithm, _make_quota(*each)) for each in limits]
        named = [replace(policy, name=f"limit-{number}") for number, policy in enumerate(policies)]
        return _adapt(MemoryLimiter(named).hit)

    def store(self, url: str, limit: int, period: float, burst: int) -> Callable[..., Pair]:
        """Return the `hit` of a limiter on the server at `url`."""
        from ratelab.stores.valkey import ValkeyLimiter

        quota = _make_quota(limit, period, burst)
        shared = self._stores.get(url, url)  # limiters may share connections
        limiter = ValkeyLimiter(shared, self._algorithm, quota, deadline=DEADLINE_S)
        self._stores.setdefault(url, limiter)
        return _adapt(limiter.hit)


def _make_quota(limit: int, period: float, burst: int) -> Quota:
    return Quota(limit, round(period * NS_PER_S), burst)


def _adapt(hit: Callable[..., Decision]) -> Callable[..., Pair]:
    def adapted(key: str, cost: int = 1) -> Pair:
        decision = hit(key, cost)
        wait: Any = None if decision.retry_after == inf else decision.retry_after
        return decision.allowed, wait

    return adapted


def __getattr__(name: str) -> BuiltIn:
    """Return the factory for the algorithm of this name, which has underscores in place of hyphens."""
    algorithm = name.replace("_", "-")
    if algorithm not in ALGORITHMS:
        raise AttributeError(name)
    return BuiltIn(algorithm)
