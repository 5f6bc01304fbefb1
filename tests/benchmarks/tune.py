"""Processor time and memory of the needs of all clients, at every rate and at given ones."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

import workload
from timing import Bar, Figure

from ratelab.errors import InputError
from ratelab.lab.replay import has_compiler
from ratelab.lab.tune import measure_frontier
from ratelab.quota import Quota

REQUESTS = 10_000_000
RATES = 16

FRONTIER_BAR, RATES_BAR, MEMORY_BAR = Bar("<=", 12, "s"), Bar("<=", 1.5, "s"), Bar("<=", 500, "MB")


def tune() -> Iterator[Figure]:
    """Time the needs of the clients of a Zipf law; the memory is that of the process, with the traffic."""
    if not has_compiler():
        raise InputError("the tune benchmark needs numba: pip install '.[fast]'")
    traffic = workload.draw_traffic(REQUESTS)
    measure_frontier(traffic[: min(REQUESTS, 100_000)])  # compiles
    start = time.process_time()
    frontier = measure_frontier(traffic)
    yield Figure(f"all needs of {REQUESTS:,} requests", time.process_time() - start, "s", bar=FRONTIER_BAR)
    start = time.process_time()
    for number in range(RATES):
        frontier.find_needs(Quota.parse(f"{10 * (number + 1)}/min"))
    yield Figure(f"needs at {RATES} rates", time.process_time() - start, "s", bar=RATES_BAR)
    unit = 1 if sys.platform == "darwin" else 1024  # bytes of ru_maxrss
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    yield Figure("peak memory, with the traffic", peak, "MB", bar=MEMORY_BAR)
