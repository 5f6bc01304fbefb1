"""What ratelab costs: each figure beside the floor that it cannot go below, measured in the same run."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from threading import Lock
from typing import NamedTuple

import numpy as np

from ratelab.algorithms import ALGORITHMS, create
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.stores.memory import MemoryLimiter

ROUNDS = 7
"""Each figure is the median of so many rounds, its floor measured in turn with it."""


class Figure(NamedTuple):
    """One line of the table."""

    what: str
    measured: float
    unit: str
    floor: float | None
    """What the same work costs at least, in the same unit."""
    ratio: float | None
    """How many times its floor it costs; the median over the rounds."""
    bar: str
    """What it should reach."""


def hit() -> Iterator[Figure]:
    """Time `MemoryLimiter.hit` against a bare lock, clock and dict."""
    for keys in (1, 100_000):
        names = [f"client-{number}" for number in range(keys)] * (100_000 // keys)
        limiter = MemoryLimiter(create("token-bucket", "100/s", burst=100))
        seconds, floors = _in_turn(_calling(limiter.hit, names), _calling(_bare(names), names))
        label = "1 key" if keys == 1 else f"{keys:,} keys"
        yield _figure(f"hit, token-bucket, {label}", seconds, floors, len(names) / 1e9, "ns", "<= 3x")


def memory() -> Iterator[Figure]:
    """Weigh a million keys of the token bucket; the names themselves are the caller's."""
    names = [f"client-{number}" for number in range(1_000_000)]
    limiter = MemoryLimiter(create("token-bucket", "5/day"))
    tracemalloc.start()
    for name in names:
        limiter.hit(name)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield Figure("a key of token-bucket, at 1,000,000", size / len(names), "bytes", None, None, "<= 260 bytes")


def replays() -> Iterator[Figure]:
    """Time the plain-Python replay of half a million requests against a script's empty loop of as many turns.

    60x is half a million requests a second on a machine whose empty loop makes thirty million turns.
    """
    random = np.random.default_rng(1)
    requests = 500_000
    times = np.sort(random.integers(0, 100 * 10**9, requests))
    clients = random.zipf(1.3, requests) % 10_000
    ones = np.ones(requests, np.int64)
    names = tuple(map(str, range(10_000)))
    traffic = Traffic(times, clients, ones, names, np.arange(10_000), 100 * 10**9)
    for name in ALGORITHMS:
        algorithm = create(name, "10/s", burst=20)
        seconds, floors = _in_turn(partial(replay, algorithm, traffic), partial(_spin, requests), rounds=3)
        yield _figure(f"replay, {name}", seconds, floors, requests / 1e9, "ns", "<= 60x")


def start() -> Iterator[Figure]:
    """Time whole commands against the imports that they cannot do without."""
    with TemporaryDirectory() as folder:
        scenario = Path(folder) / "burst.yaml"
        scenario.write_text(_SCENARIO)
        for label, arguments, imports, bar in (
            ("ratelab --help", ["--help"], "click", "<= 2x"),
            ("ratelab simulate", ["simulate", str(scenario)], "numpy, click, rich", "<= 5x"),
        ):
            command, floor = partial(_run, "-m", "ratelab", *arguments), partial(_run, "-c", f"import {imports}")
            seconds, floors = _in_turn(command, floor, rounds=11)
            yield _figure(label, seconds, floors, 1e-3, "ms", bar)


BENCHMARKS: dict[str, Callable[[], Iterator[Figure]]] = {
    "hit": hit,
    "memory": memory,
    "replay": replays,
    "start": start,
}
"""The benchmarks by the names that the command line knows."""

_SCENARIO = """\
name: burst
duration: 10s
quota: {rate: 2/s, burst: 5}
clients:
  - name: alice
    traffic: [{pattern: steady, rate: 1/s}, {pattern: burst, at: 3s, size: 20, spacing: 10ms}]
"""


def _bare(names: Sequence[str]) -> Callable[[str], int | None]:
    lock, clock, counts = Lock(), time.monotonic_ns, dict.fromkeys(names, 1)

    def look(key: str) -> int | None:
        with lock:
            clock()
            return counts.get(key)

    return look


def _calling(function: Callable[[str], object], names: Sequence[str]) -> Callable[[], None]:
    def call() -> None:
        for name in names:
            function(name)

    return call


def _spin(turns: int) -> None:
    """Run an empty loop as a script would, its variable a global one."""
    exec("for turn in range(turns): pass", {"turns": turns})  # noqa: S102  (our own text)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)  # noqa: S603


def _in_turn(
    work: Callable[[], object], floor: Callable[[], object], rounds: int = ROUNDS
) -> tuple[list[float], list[float]]:
    """Time both in turn, after a first round that is not counted, so that a slow moment hits them alike."""
    timed = [(_seconds(work), _seconds(floor)) for _ in range(rounds + 1)][1:]
    return [one for one, _ in timed], [other for _, other in timed]


def _seconds(work: Callable[[], object]) -> float:
    begun = time.perf_counter()
    work()
    return time.perf_counter() - begun


def _figure(what: str, seconds: list[float], floors: list[float], scale: float, unit: str, bar: str) -> Figure:
    ratio = median(one / other for one, other in zip(seconds, floors, strict=True))
    return Figure(what, median(seconds) / scale, unit, median(floors) / scale, ratio, bar)
