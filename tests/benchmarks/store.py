"""Speed and size of decisions in a store, next to bare script calls, other clients and other packages.

Client and server share one processor, since waking up a second one takes longer than all else.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from inspect import getfile
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from http_load import load_in_turn, request_rate
from peers_valkey import ALGORITHM, UNREACHED_PER_SECOND, Hit, installed_peers
from timing import Bar, Figure, median_ratio, processor_pin, rate_figure, time_in_turn

from ratelab.algorithms import ALGORITHMS, Policy
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

ROUNDS = 15
CALLS = 2_000
"""Decisions in each round."""

TASKS = 50
SERVICE_STARTS = 2

RATE, BURST = "20000/s", 10_000
"""A quota that one connection cannot use up, with a log of thousands."""

SECOND = Policy.create(ALGORITHM, RATE, BURST, name="second")
DAY = Policy.create("fixed-window", "100000000/day", name="day")

SCRIPTED = [name for name, kind in ALGORITHMS.items() if Path(getfile(kind)).with_suffix(".lua").exists()]
"""Algorithms that can run in a store."""

SCRIPT_BAR = Bar(">=", 0.85)
LARGE_LOG_BAR = Bar("<=", 2)
TWO_POLICIES_BAR = Bar("<=", 1.25)
TWO_POLICIES_IN_TASKS_BAR = Bar("<=", 1.7)
SERVICE_BAR = Bar(">=", 0.5)


def store() -> Iterator[Figure]:
    """Time decisions on an embedded server, measure its keys, and load a service that uses it if wrk is installed."""
    with _pinned_to(0), _server() as port:
        yield from _single_connection(port)
        yield from _two_policies(port)
        yield from _concurrent_tasks(port)
        yield from _packages(port)
        yield from _key_sizes(port)
    if shutil.which("wrk") and find_spec("uvicorn") and find_spec("httptools"):
        yield _service()


def _single_connection(port: int) -> Iterator[Figure]:
    """Compare each algorithm with the cheapest script call, and the largest log with the default algorithm."""
    from valkey import Valkey

    with Valkey(port=port) as client:
        sha = client.script_load("return 1")
        for name in SCRIPTED:
            with _limiter(port, name) as hit:
                yield _hit_rate(f"{name}, one connection", hit, partial(client.evalsha, sha, 0), SCRIPT_BAR)
    with _limiter(port, "sliding-log") as hit, _limiter(port, ALGORITHM) as default_hit:
        seconds, floors = time_in_turn(_repeat(hit), _repeat(default_hit), ROUNDS)
        measured, floor = median(seconds) / CALLS * 1e6, median(floors) / CALLS * 1e6
        label = f"sliding-log of {BURST:,} to {ALGORITHM}"
        yield Figure(label, measured, "us", floor, median_ratio(seconds, floors), LARGE_LOG_BAR)


def _two_policies(port: int) -> Iterator[Figure]:
    """Compare two policies in one call with one of them, on one connection and in tasks."""
    with (
        closing(ValkeyLimiter(_url(port), SECOND, deadline=1, name="one")) as one,
        closing(ValkeyLimiter(_url(port), [SECOND, DAY], deadline=1, name="two")) as two,
    ):
        hits = _repeat(lambda: two.hit("client")), _repeat(lambda: one.hit("client"))
        yield _compare_policies("two policies, one connection", *hits, TWO_POLICIES_BAR)
    with (
        asyncio.Runner() as runner,
        closing(AsyncValkeyLimiter(_url(port), SECOND, name="one")) as one_in_tasks,
        closing(AsyncValkeyLimiter(_url(port), [SECOND, DAY], name="two")) as two_in_tasks,
    ):
        hits_in_tasks = (
            _repeat_in_tasks(runner, lambda: two_in_tasks.hit("client")),
            _repeat_in_tasks(runner, lambda: one_in_tasks.hit("client")),
        )
        yield _compare_policies(f"two policies, {TASKS} tasks", *hits_in_tasks, TWO_POLICIES_IN_TASKS_BAR)


def _compare_policies(label: str, two: Callable[[], None], one: Callable[[], None], bar: Bar) -> Figure:
    seconds, floors = time_in_turn(two, one, ROUNDS)
    measured, floor = median(seconds) / CALLS * 1e6, median(floors) / CALLS * 1e6
    return Figure(label, measured, "us", floor, median_ratio(seconds, floors), bar)


def _concurrent_tasks(port: int) -> Iterator[Figure]:
    """Compare the hits of concurrent tasks, which ratelab sends in batches, with those of the peers."""
    with (
        asyncio.Runner() as runner,
        closing(AsyncValkeyLimiter(_url(port), ALGORITHM, f"{UNREACHED_PER_SECOND}/s")) as limiter,
    ):
        for name, peer in installed_peers().items():
            peer_hits = _repeat_in_tasks(runner, runner.run(_await_hit(peer.for_tasks(port))))
            hits = _repeat_in_tasks(runner, lambda: limiter.hit("client"))
            seconds, floors = time_in_turn(hits, peer_hits, ROUNDS)
            yield rate_figure(f"{TASKS} tasks to {name}", seconds, floors, CALLS, "/s", peer.bar)


def _packages(port: int) -> Iterator[Figure]:
    for name, peer in installed_peers().items():
        if peer.for_threads is not None:
            with _limiter(port, ALGORITHM) as hit:
                yield _hit_rate(f"one connection to {name}", hit, peer.for_threads(port), peer.bar)


def _key_sizes(port: int) -> Iterator[Figure]:
    """Measure the memory of a key with half of its burst of 100 spent."""
    from valkey import Valkey

    with Valkey(port=port) as client:
        for name in SCRIPTED:
            client.flushall()
            with closing(ValkeyLimiter(_url(port), name, "100/h", deadline=1)) as limiter:
                limiter.hit("client", cost=50)
            size = sum(client.memory_usage(key) for key in client.scan_iter())
            yield Figure(f"{name}, a key", size, "bytes")


def _service() -> Figure:
    """Load `ratelab serve` with its store on the load generator's processor, as if on another machine."""
    with ExitStack() as stack:
        with _pinned_to(1):
            port = stack.enter_context(_server())
        stored, bare = ("serve", "http_apps.asgi_stored", _url(port)), ("serve", "http_apps.asgi")
        loads = load_in_turn([stored, bare], SERVICE_STARTS)
    return request_rate("ratelab serve with a store: requests", loads[stored], loads[bare], SERVICE_BAR)


def _hit_rate(label: str, hit: Hit, other: Hit, bar: Bar) -> Figure:
    seconds, floors = time_in_turn(_repeat(hit), _repeat(other), ROUNDS)
    return rate_figure(label, seconds, floors, CALLS, "/s", bar)


def _repeat(hit: Hit) -> Callable[[], None]:
    def run() -> None:
        for _ in range(CALLS):
            hit()

    return run


def _repeat_in_tasks(runner: asyncio.Runner, hit: Hit) -> Callable[[], None]:
    async def task() -> None:
        for _ in range(CALLS // TASKS):
            await hit()

    async def run_tasks() -> None:
        await asyncio.gather(*(task() for _ in range(TASKS)))

    return lambda: runner.run(run_tasks())


async def _await_hit(hit: Awaitable[Hit]) -> Hit:
    """Await in a coroutine, since a runner takes no other awaitable."""
    return await hit


@contextmanager
def _limiter(port: int, algorithm: str) -> Iterator[Hit]:
    with closing(ValkeyLimiter(_url(port), algorithm, RATE, BURST, deadline=1)) as limiter:
        yield lambda: limiter.hit("client")


@contextmanager
def _server() -> Iterator[int]:
    """Run a server; yield its port."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    with TemporaryDirectory() as directory:
        server = ValkeyServer(Path(directory), port)
        try:
            server.start()
            yield port
        finally:
            server.stop()


@contextmanager
def _pinned_to(number: int) -> Iterator[None]:
    """Pin this thread, and the processes that it starts, to one processor, if the system can pin."""
    pin = processor_pin(number)
    if pin is None:
        yield
        return
    before = os.sched_getaffinity(0)
    pin()
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _url(port: int) -> str:
    return f"valkey://127.0.0.1:{port}"
