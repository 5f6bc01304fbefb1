"""What a hit of the limiter costs, and where its time goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from statistics import median
from threading import Lock

from timing import Figure, figure, in_turn

from ratelab.algorithms import create
from ratelab.limiter import Algorithm, Decision
from ratelab.stores.memory import MemoryLimiter

Asked = Callable[[str], object]


def hit() -> Iterator[Figure]:
    """Time `MemoryLimiter.hit` against a bare lock, clock and dict; then each thing that it does."""
    algorithm = create("token-bucket", "100/s", burst=100)
    for keys in (1, 100_000):
        names = [f"client-{number}" for number in range(keys)] * (100_000 // keys)
        floor = _grown(algorithm, names)["dict"]
        seconds, floors = in_turn(_calling(MemoryLimiter(algorithm).hit, names), _calling(floor, names))
        label = "1 key" if keys == 1 else f"{keys:,} keys"
        yield figure(f"hit, token-bucket, {label}", seconds, floors, len(names) / 1e9, "ns", "<= 3x")
    yield from _split(algorithm, ["client"] * 100_000)


def _split(algorithm: Algorithm, names: Sequence[str]) -> Iterator[Figure]:
    """Time functions that do one thing more each, and tell by how much each takes longer than the one before."""
    grown = {**_grown(algorithm, names), "shards and checks": MemoryLimiter(algorithm).hit}
    for (_, less), (what, more) in pairwise(grown.items()):
        seconds, floors = in_turn(_calling(more, names), _calling(less, names))
        added = median(one - other for one, other in zip(seconds, floors, strict=True))
        yield Figure(f"of 1 key: {what}", added / len(names) * 1e9, "ns", None, None, "")


def _grown(algorithm: Algorithm, names: Sequence[str]) -> dict[str, Asked]:
    """Return functions of a key by what each does beyond the one before."""
    lock, clock, make, step = Lock(), time.monotonic_ns, tuple.__new__, algorithm.step
    states = {name: algorithm.start(clock()) for name in names}

    def called(_: str) -> None:
        pass

    def locked(_: str) -> None:
        with lock:
            pass

    def timed(_: str) -> None:
        with lock:
            clock()

    def found(key: str) -> object:
        with lock:
            clock()
            return states.get(key)

    def stepped(key: str) -> object:
        with lock:
            return step(states[key], clock(), 1)

    def told(key: str) -> object:
        with lock:
            return make(Decision, step(states[key], clock(), 1))

    return {"call": called, "lock": locked, "clock": timed, "dict": found, "step": stepped, "Decision": told}


def _calling(function: Asked, names: Sequence[str]) -> Callable[[], None]:
    def call() -> None:
        for name in names:
            function(name)

    return call
