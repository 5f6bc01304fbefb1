"""Memory of a million keys, and startup time of the commands."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import Bar, Figure, duration_figure, time_in_turn

from ratelab.algorithms import create
from ratelab.stores.memory import MemoryLimiter

KEYS = 1_000_000
ROUNDS = 11

SCENARIO = """\
name: burst
duration: 10s
quota: {rate: 2/s, burst: 5}
clients:
  - name: alice
    traffic: [{pattern: steady, rate: 1/s}, {pattern: burst, at: 3s, size: 20, spacing: 10ms}]
"""


def memory() -> Iterator[Figure]:
    """Measure the memory of a token bucket's key without its name, which belongs to the caller."""
    names = [f"client-{number}" for number in range(KEYS)]
    limiter = MemoryLimiter(create("token-bucket", "5/day"))
    tracemalloc.start()
    for name in names:
        limiter.hit(name)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    yield Figure(f"a key of token-bucket, at {KEYS:,}", size / KEYS, "bytes", bar=Bar("<=", 260, "bytes"))


def start() -> Iterator[Figure]:
    """Time whole commands against the imports that they need in any case."""
    with TemporaryDirectory() as folder:
        scenario = Path(folder) / "burst.yaml"
        scenario.write_text(SCENARIO)
        for label, arguments, imports, bar in (
            ("ratelab --help", ["--help"], "click", Bar("<=", 2)),
            ("ratelab simulate", ["simulate", str(scenario)], "numpy, click, rich", Bar("<=", 5)),
        ):
            command, floor = partial(_run, "-m", "ratelab", *arguments), partial(_run, "-c", f"import {imports}")
            seconds, floors = time_in_turn(command, floor, ROUNDS)
            yield duration_figure(label, seconds, floors, 1e-3, "ms", bar)


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
