"""Processor time of a replay in plain Python, as machine code, and in other packages on the same requests."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace as replace_fields
from functools import partial
from statistics import median

import numpy as np
import peers_memory
from timing import Bar, Figure, duration_figure, time_in_turn

from ratelab.algorithms import ALGORITHMS, create, traits_of
from ratelab.lab.decisions import ADMISSION_FIELDS, FIGURE_FIELDS
from ratelab.lab.policies.engine import allocate_joint_columns
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.replay import allocate_columns, decide_in_python, has_compiler
from ratelab.lab.replay import replay as replay_policy
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS, Algorithm

PLAIN_REQUESTS = 500_000
COMPILED_REQUESTS = 10_000_000
PEER_REQUESTS = 200_000
"""Other packages decide this many requests, the first of those for machine code."""

RATE, BURSTS = "1/s", {"sliding-log": 100}

PLAIN_BAR = Bar("<=", 60)
"""At 60x, a machine that runs an empty loop thirty million times a second decides half a million requests."""

DRAWING_BAR = Bar("<=", 20, "ns")
PEER_BAR = Bar(">=", 200)
COMPILED_BARS = {
    "token-bucket": Bar("<=", 2.7),
    "leaky-bucket": Bar("<=", 3.6),
    "fixed-window": Bar("<=", 3.1),
    "sliding-log": Bar("<=", 6.3),
    "sliding-counter": Bar("<=", 5.6),
    "gcra": Bar("<=", 2.2),
}
JOINT_BAR = Bar("<=", 1.2)


def replay() -> Iterator[Figure]:
    """Time replays against the least that their loops can take, and other packages against the replays."""
    yield from _plain()
    if has_compiler():
        yield from _compiled()


def _plain() -> Iterator[Figure]:
    """Time plain Python against an empty loop of as many iterations."""
    random = np.random.default_rng(1)
    times = np.sort(random.integers(0, 100 * 10**9, PLAIN_REQUESTS))
    clients, costs = random.zipf(1.3, PLAIN_REQUESTS) % 10_000, np.ones(PLAIN_REQUESTS, np.int64)
    traffic = Traffic(times, clients, costs, tuple(map(str, range(10_000))), np.arange(10_000), 100 * 10**9)
    for name in ALGORITHMS:
        algorithm = create(name, "10/s", burst=20).algorithm
        columns = allocate_columns(traffic, ROW_FIELDS)
        work = partial(decide_in_python, algorithm, traffic, columns, lambda _: None)
        seconds, floors = time_in_turn(work, partial(_spin, PLAIN_REQUESTS), rounds=3, clock=time.process_time)
        yield duration_figure(f"plain {name}", seconds, floors, PLAIN_REQUESTS / 1e9, "ns", PLAIN_BAR)


def _compiled() -> Iterator[Figure]:
    """Time machine code against a pass that reads key and time and writes a state and a byte.

    The columns are allocated once, since new memory would cost more than some algorithms do.
    """
    from ratelab.lab import compiled  # it needs Numba

    compiled.tune_process()  # as commands do
    import workload

    traffic = workload.draw_traffic(COMPILED_REQUESTS)
    floor = partial(workload.run_floor, traffic.request_keys, traffic.times)
    draw = partial(workload.draw_traffic, COMPILED_REQUESTS)
    seconds, floors = time_in_turn(draw, floor, clock=time.process_time)
    yield duration_figure("drawing the requests", seconds, floors, COMPILED_REQUESTS / 1e9, "ns", DRAWING_BAR)
    costs = {}
    for name in ALGORITHMS:
        algorithm = create(name, RATE, burst=BURSTS.get(name, peers_memory.BURST)).algorithm
        seconds, floors = time_in_turn(_prepare(algorithm, traffic), floor, clock=time.process_time)
        bar = COMPILED_BARS.get(name)
        yield duration_figure(f"compiled {name}", seconds, floors, COMPILED_REQUESTS / 1e9, "ns", bar)
        costs[name] = median(seconds) / COMPILED_REQUESTS
    yield from _compiled_pairs(traffic)
    yield from _peers(traffic, costs)


def _prepare(algorithm: Algorithm, traffic: Traffic) -> Callable[[], None]:
    """Return a compiled replay whose columns are allocated."""
    from ratelab.lab import compiled  # it needs Numba

    columns = allocate_columns(traffic, FIGURE_FIELDS if traits_of(algorithm).queues else ADMISSION_FIELDS)
    return partial(compiled.decide, algorithm, traffic, columns, lambda _: None)


def _call_all(functions: Sequence[Callable[[], None]]) -> None:
    for function in functions:
        function()


def _compiled_pairs(traffic: Traffic) -> Iterator[Figure]:
    """Time two policies together against both one after the other, for each algorithm and the next."""
    from ratelab.lab.compiled import joint  # it needs Numba

    for names in zip(ALGORITHMS, [*ALGORITHMS, *ALGORITHMS][1:], strict=False):
        bursts = [factor * BURSTS.get(name, peers_memory.BURST) for factor, name in enumerate(names, 1)]
        policies = [create(name, RATE, burst=burst) for name, burst in zip(names, bursts, strict=True)]
        parts = [PolicyTraffic(policy, None, traffic, None) for policy in policies]
        columns = allocate_joint_columns(parts, traffic, FIGURE_FIELDS)
        together = partial(joint.decide, parts, traffic, columns, lambda _: None)
        alone = [_prepare(policy.algorithm, traffic) for policy in policies]
        seconds, floors = time_in_turn(together, partial(_call_all, alone), rounds=3, clock=time.process_time)
        yield duration_figure(" and ".join(names), seconds, floors, COMPILED_REQUESTS / 1e9, "ns", JOINT_BAR)


def _peers(traffic: Traffic, costs: dict[str, float]) -> Iterator[Figure]:
    """Let other packages decide the first requests; count the decisions that agree with ratelab's."""
    first = replace_fields(
        traffic,
        times=traffic.times[:PEER_REQUESTS],
        clients=traffic.clients[:PEER_REQUESTS],
        costs=traffic.costs[:PEER_REQUESTS],
    )
    for package, (name, decide) in peers_memory.installed_peers().items():
        policy = create(name, RATE, burst=peers_memory.BURST)
        expected = replay_policy(policy, first, ADMISSION_FIELDS).decisions["allowed"][:]
        start = time.process_time()
        decided = decide(first)
        cost = (time.process_time() - start) / PEER_REQUESTS
        agreement = np.count_nonzero(decided == expected) / PEER_REQUESTS
        label = f"{package}, {agreement:.2%} agree"
        yield Figure(label, cost * 1e9, "ns", costs[name] * 1e9, cost / costs[name], PEER_BAR)


def _spin(iterations: int) -> None:
    """Run an empty loop over a global variable, as a script does."""
    exec("for iteration in range(iterations): pass", {"iterations": iterations})  # noqa: S102  (a constant text)
