"""Other libraries that decide in memory, driven over recorded times by a clock of ours; measured where installed.

Each reads its clock from a module that it imports, and is given another one there while it plays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.traffic import Traffic

PER_SECOND, BURST = 1, 10
"""What each client is granted."""

Play = Callable[[Traffic], NDArray[np.bool_]]
"""Decides each request, and returns which were allowed."""


class Player(NamedTuple):
    """A library that decides as one of ratelab's algorithms should."""

    algorithm: str
    play: Play


def token_bucket(traffic: Traffic) -> NDArray[np.bool_]:
    """Decide by the one algorithm of token-bucket."""
    module = import_module("token_bucket")
    limiter = module.Limiter(PER_SECOND, BURST, module.MemoryStorage())
    with _clock("token_bucket.storage") as clock:
        return _played(traffic, limiter.consume, clock)


def limits(traffic: Traffic) -> NDArray[np.bool_]:
    """Decide by the fixed window of limits, its cheapest."""
    limiter = import_module("limits.strategies").FixedWindowRateLimiter(import_module("limits.storage").MemoryStorage())
    item = import_module("limits").RateLimitItemPerSecond(BURST, BURST // PER_SECOND)
    with _clock("limits.storage.memory") as clock:
        return _played(traffic, lambda name: limiter.hit(item, name), clock)


PLAYERS = {
    "token-bucket": ("token_bucket", Player("token-bucket", token_bucket)),
    "limits": ("limits", Player("fixed-window", limits)),
}
"""Others by the name of their package, and what it is imported by."""


def installed() -> dict[str, Player]:
    """Return those that can be measured here, by the name of their package."""
    return {name: player for name, (module, player) in PLAYERS.items() if find_spec(module)}


class _Clock:
    now = 0.0


@contextmanager
def _clock(module: str) -> Iterator[_Clock]:
    """Let a module that has imported `time` read a clock that is set by hand."""
    clock, where = _Clock(), vars(import_module(module))
    real = where["time"]

    def read() -> float:
        return clock.now

    where["time"] = SimpleNamespace(time=read, monotonic=read)
    try:
        yield clock
    finally:
        where["time"] = real


def _played(traffic: Traffic, hit: Callable[[str], Any], clock: _Clock) -> NDArray[np.bool_]:
    names, made = traffic.names, []
    for now, client in zip((traffic.times / 1e9).tolist(), traffic.clients.tolist(), strict=True):
        clock.now = now
        made.append(hit(names[client]))
    return np.array(made, np.bool_)
