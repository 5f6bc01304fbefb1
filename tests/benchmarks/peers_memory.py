"""Other packages that decide in memory, for the replay benchmark.

Each reads its clock from a module that it imports. During a replay, that module is a manual clock.
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
"""Quota of each client."""

Decide = Callable[[Traffic], NDArray[np.bool_]]
"""Decides each request, and returns which are allowed."""


class MemoryPeer(NamedTuple):
    """A package, and the ratelab algorithm that it should agree with."""

    algorithm: str
    decide: Decide


def token_bucket(traffic: Traffic) -> NDArray[np.bool_]:
    """Decide with token-bucket by its only algorithm."""
    module = import_module("token_bucket")
    limiter = module.Limiter(PER_SECOND, BURST, module.MemoryStorage())
    with _manual_clock("token_bucket.storage") as clock:
        return _decide_all(traffic, limiter.consume, clock)


def limits(traffic: Traffic) -> NDArray[np.bool_]:
    """Decide with limits by its fixed window, the fastest of its algorithms."""
    limiter = import_module("limits.strategies").FixedWindowRateLimiter(import_module("limits.storage").MemoryStorage())
    item = import_module("limits").RateLimitItemPerSecond(BURST, BURST // PER_SECOND)
    with _manual_clock("limits.storage.memory") as clock:
        return _decide_all(traffic, lambda name: limiter.hit(item, name), clock)


PEERS = {
    "token-bucket": ("token_bucket", MemoryPeer("token-bucket", token_bucket)),
    "limits": ("limits", MemoryPeer("fixed-window", limits)),
}
"""Name of the module and peer, by the name of the package."""


def installed_peers() -> dict[str, MemoryPeer]:
    """Return the peers that are installed, by the name of the package."""
    return {name: peer for name, (module, peer) in PEERS.items() if find_spec(module)}


class _Clock:
    now = 0.0


@contextmanager
def _manual_clock(module: str) -> Iterator[_Clock]:
    """Replace `time` in a module that imports it by a clock that is set by hand."""
    clock, namespace = _Clock(), vars(import_module(module))
    original = namespace["time"]

    def read() -> float:
        return clock.now

    namespace["time"] = SimpleNamespace(time=read, monotonic=read)
    try:
        yield clock
    finally:
        namespace["time"] = original


def _decide_all(traffic: Traffic, hit: Callable[[str], Any], clock: _Clock) -> NDArray[np.bool_]:
    names, allowed = traffic.names, []
    for now, client in zip((traffic.times / 1e9).tolist(), traffic.clients.tolist(), strict=True):
        clock.now = now
        allowed.append(hit(names[client]))
    return np.array(allowed, np.bool_)
