"""What a replay costs: in plain Python, as machine code, and with other libraries on the same requests."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from statistics import median

import numpy as np
import peers_memory
from timing import Figure, figure, in_turn

from ratelab.algorithms import ALGORITHMS, create
from ratelab.lab import compiled, plain
from ratelab.lab.decisions import ADMITTED, FIGURED, unfilled
from ratelab.lab.replay import admitted
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Decision

PLAIN = 500_000
"""Requests for plain Python."""

REQUESTS = 10_000_000
"""Requests for machine code."""

PLAYED = 200_000
"""The first so many of them are for other libraries."""

RATE, BURSTS = "1/s", {"sliding-log": 100}
BARS = {
    "gcra": "<= 2x", "token-bucket": "<= 3x", "leaky-bucket": "<= 3x", "fixed-window": "<= 3x",
    "sliding-counter": "<= 5x", "sliding-log": "<= 8x",
}  # fmt: skip


def replay() -> Iterator[Figure]:
    """Time replays against the least that their loops could take, in processor time, and others against them."""
    yield from _plain()
    if compiled.is_installed():
        yield from _compiled()


def _plain() -> Iterator[Figure]:
    """Time plain Python against a script's empty loop of as many turns.

    60x is half a million requests a second on a machine whose empty loop makes thirty million turns.
    """
    random = np.random.default_rng(1)
    times = np.sort(random.integers(0, 100 * 10**9, PLAIN))
    clients, ones = random.zipf(1.3, PLAIN) % 10_000, np.ones(PLAIN, np.int64)
    traffic = Traffic(times, clients, ones, tuple(map(str, range(10_000))), np.arange(10_000), 100 * 10**9)
    for name in ALGORITHMS:
        algorithm = create(name, "10/s", burst=20)
        work = partial(plain.decide, algorithm, traffic, unfilled(traffic, Decision._fields), lambda _: None)
        seconds, floors = in_turn(work, partial(_spin, PLAIN), rounds=3, clock=time.process_time)
        yield figure(f"plain {name}", seconds, floors, PLAIN / 1e9, "ns", "<= 60x")


def _compiled() -> Iterator[Figure]:
    """Time machine code against a pass that reads key and time and writes a state and a byte.

    The columns to fill are there before, and filled in each round: new memory would cost more than some algorithms do.
    """
    import workload

    traffic = workload.drawn(REQUESTS)
    least = partial(workload.least, traffic.narrow_keys, traffic.times)
    seconds, floors = in_turn(partial(workload.drawn, REQUESTS), least, clock=time.process_time)
    yield figure("drawing the requests", seconds, floors, REQUESTS / 1e9, "ns", "<= 20 ns")
    costs = {}
    for name in ALGORITHMS:
        algorithm = create(name, RATE, burst=BURSTS.get(name, peers_memory.BURST))
        columns = unfilled(traffic, FIGURED if name == "leaky-bucket" else ADMITTED)  # the others delay nobody
        work = partial(compiled.decide, algorithm, traffic, columns, lambda _: None)
        seconds, floors = in_turn(work, least, clock=time.process_time)
        yield figure(f"compiled {name}", seconds, floors, REQUESTS / 1e9, "ns", BARS[name])
        costs[name] = median(seconds) / REQUESTS
    yield from _others(traffic, costs)


def _others(traffic: Traffic, costs: dict[str, float]) -> Iterator[Figure]:
    """Have other libraries decide the same requests by a clock that tells their times, and count what they agree on."""
    first = replace(
        traffic, times=traffic.times[:PLAYED], clients=traffic.clients[:PLAYED], costs=traffic.costs[:PLAYED]
    )
    for package, (name, play) in peers_memory.installed().items():
        expected = admitted(create(name, RATE, burst=peers_memory.BURST), first)
        begun = time.process_time()
        decided = play(first)
        cost = (time.process_time() - begun) / PLAYED
        alike = np.count_nonzero(decided == expected) / PLAYED
        yield Figure(
            f"{package}, {alike:.2%} alike", cost * 1e9, "ns", costs[name] * 1e9, cost / costs[name], ">= 200x"
        )


def _spin(turns: int) -> None:
    """Run an empty loop as a script would, its variable a global one."""
    exec("for turn in range(turns): pass", {"turns": turns})  # noqa: S102  (our own text)
