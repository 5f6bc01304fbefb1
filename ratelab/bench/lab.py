"""What the limiter and the commands cost."""

from __future__ import annotations

import subprocess
import sys
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Lock

from ratelab.algorithms import create
from ratelab.bench.figure import Figure, figure, in_turn
from ratelab.stores.memory import MemoryLimiter


def hit() -> Iterator[Figure]:
    """Time `MemoryLimiter.hit` against a bare lock, clock and dict."""
    for keys in (1, 100_000):
        names = [f"client-{number}" for number in range(keys)] * (100_000 // keys)
        limiter = MemoryLimiter(create("token-bucket", "100/s", burst=100))
        seconds, floors = in_turn(_calling(limiter.hit, names), _calling(_bare(names), names))
        label = "1 key" if keys == 1 else f"{keys:,} keys"
        yield figure(f"hit, token-bucket, {label}", seconds, floors, len(names) / 1e9, "ns", "<= 3x")


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
            seconds, floors = in_turn(command, floor, rounds=11)
            yield figure(label, seconds, floors, 1e-3, "ms", bar)


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


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)  # noqa: S603
