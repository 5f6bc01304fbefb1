"""Speed of the event loop of closed loops, in plain Python and compiled, and its memory."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Iterator

import numpy as np
from timing import Bar, Figure

from ratelab.algorithms import create
from ratelab.lab.closed_loop import state
from ratelab.lab.closed_loop.behavior import Behavior, Delay, Population, Retry
from ratelab.lab.closed_loop.engine import Engine
from ratelab.lab.closed_loop.outcome import create_engine
from ratelab.lab.replay import has_compiler
from ratelab.lab.traffic import Traffic
from ratelab.quota import NS_PER_S

CLIENTS, MANY_CLIENTS = 100_000, 1_000_000
PLAIN_EVENTS, COMPILED_EVENTS, EVENTS_PER_RUN = 300_000, 5_000_000, 50_000

PLAIN_BAR, COMPILED_BAR = Bar(">=", 0.4, "M/s"), Bar(">=", 5, "M/s")
MEMORY_BAR = Bar("<=", 4_000, "MB")


def loop() -> Iterator[Figure]:
    """Time serial clients that think for a second, and try again with full jitter; the memory is of the process."""
    yield _time_events("plain", CLIENTS, PLAIN_EVENTS, PLAIN_BAR, compiled=False)
    if has_compiler():
        from ratelab.lab.compiled import tune_process  # Numba is optional

        tune_process()  # as commands do
        yield _time_events("compiled", CLIENTS, COMPILED_EVENTS, COMPILED_BAR, compiled=True)
        yield _time_events(f"compiled, {MANY_CLIENTS:,} clients,", MANY_CLIENTS, COMPILED_EVENTS, None, compiled=True)
        unit = 1 if sys.platform == "darwin" else 1024
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
        yield Figure(f"memory, {MANY_CLIENTS:,} clients", memory, "MB", bar=MEMORY_BAR)


def _time_events(label: str, clients: int, events: int, bar: Bar | None, compiled: bool) -> Figure:
    """Time events after the first ones, in processor time."""
    engine = create_engine(create("token-bucket", "1/s", 1), create_population(clients), compiled)
    engine.run(EVENTS_PER_RUN)
    before, start = _count_events(engine), time.process_time()
    for _ in range(events // EVENTS_PER_RUN):
        engine.run(EVENTS_PER_RUN)
    seconds = time.process_time() - start
    return Figure(f"{label} events", (_count_events(engine) - before) / seconds / 1e6, "M/s", bar=bar)


def _count_events(engine: Engine) -> int:
    return int(engine.world.totals[state.EVENTS])


def create_population(clients: int) -> Population:
    """Return serial clients, each with a key of its own."""
    empty = np.empty(0, np.int64)
    traffic = Traffic(empty, empty, empty, tuple(map(str, range(clients))), np.arange(clients), 100 * NS_PER_S)
    behavior = Behavior("serial", think=Delay(NS_PER_S, "exponential"), retry=Retry("full-jitter", attempts=5))
    return Population(traffic, (behavior,), np.zeros(clients, np.int64), 1)
