"""What the limiter weighs, and how long the commands take."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

from timing import Figure, figure, in_turn

from ratelab.algorithms import create
from ratelab.stores.memory import MemoryLimiter


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


def _run(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], stdout=subprocess.DEVNULL, check=True)
