"""Time of a hit in the memory limiter, and of each of its parts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import pairwise
from threading import Lock

from timing import Bar, Figure, duration_figure, median_difference, time_in_turn

from ratelab.algorithms import Policy, create
from ratelab.limiter import Decision
from ratelab.stores.memory import MemoryLimiter

HITS = MANY_KEYS = 100_000
"""Hits in each round, of one key or of many."""

MAX_RATIO = Bar("<=", 3)

MAX_RATIO_OF_TWO = Bar("<=", 2.2)
"""Two policies of a key, compared with one."""

Hit = Callable[[str], object]


def hit() -> Iterator[Figure]:
    """Time `MemoryLimiter.hit` against a bare lock, clock and dict, then each part of it."""
    policy = create("token-bucket", "100/s", burst=100)
    for count in (1, MANY_KEYS):
        keys = [f"client-{number}" for number in range(count)] * (HITS // count)
        floor = _partial_hits(policy, keys)["dict"]
        seconds, floors = time_in_turn(_repeat(MemoryLimiter(policy).hit, keys), _repeat(floor, keys))
        label = "1 key" if count == 1 else f"{count:,} keys"
        yield duration_figure(f"hit, token-bucket, {label}", seconds, floors, len(keys) / 1e9, "ns", MAX_RATIO)
    two = MemoryLimiter([replace(policy, name=name) for name in ("first", "second")])
    keys = ["client"] * HITS
    seconds, one = time_in_turn(_repeat(two.hit, keys), _repeat(MemoryLimiter(policy).hit, keys))
    yield duration_figure("hit, two policies of 1 key", seconds, one, len(keys) / 1e9, "ns", MAX_RATIO_OF_TWO)
    yield from _parts(policy, ["client"] * HITS)


def _parts(policy: Policy, keys: Sequence[str]) -> Iterator[Figure]:
    """Time each partial hit against the one before it, which does one thing less."""
    functions = {**_partial_hits(policy, keys), "shards and checks": MemoryLimiter(policy).hit}
    for (_, smaller), (part, larger) in pairwise(functions.items()):
        added = median_difference(*time_in_turn(_repeat(larger, keys), _repeat(smaller, keys)))
        yield Figure(f"part of 1 key: {part}", None if added is None else added / len(keys) * 1e9, "ns")


def _partial_hits(policy: Policy, keys: Sequence[str]) -> dict[str, Hit]:
    """Return functions of a key, by the one thing that each does and the function before it does not."""
    lock, clock, make, step = Lock(), time.monotonic_ns, tuple.__new__, policy.step
    states = {key: policy.start(clock()) for key in keys}

    def call(_: str) -> None:
        pass

    def acquire(_: str) -> None:
        with lock:
            pass

    def read_clock(_: str) -> None:
        with lock:
            clock()

    def look_up(key: str) -> object:
        with lock:
            clock()
            return states.get(key)

    def run_step(key: str) -> object:
        with lock:
            return step(states[key], clock(), 1)

    def make_decision(key: str) -> object:
        with lock:
            return make(Decision, step(states[key], clock(), 1))

    return {
        "call": call,
        "lock": acquire,
        "clock": read_clock,
        "dict": look_up,
        "step": run_step,
        "Decision": make_decision,
    }


def _repeat(function: Hit, keys: Sequence[str]) -> Callable[[], None]:
    def run() -> None:
        for key in keys:
            function(key)

    return run
