"""What a decision in a store costs: client and server share a processor, since waking another hides all else."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import http_load
from peers_valkey import ALGORITHM, LIMIT, Hit, installed
from timing import Figure, in_turn

from ratelab.algorithms import ALGORITHMS
from ratelab.stores.server import Server
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter

ROUNDS = 15
CALLS = 2_000
"""In each round."""

TASKS = 50
SITTINGS = 2
"""The contestants of the HTTP benchmark are started so often anew."""

QUOTA = "20000/s"
BURST = 10_000
"""Not used up by one connection, and a log of thousands."""


def store() -> Iterator[Figure]:
    """Time decisions on a server of our own against bare script calls, other clients and other libraries."""
    with _on_processor(0), _server() as port:
        yield from _one_connection(port)
        yield from _many_tasks(port)
        yield from _libraries(port)
        yield from _sizes(port)
    if shutil.which("wrk") and find_spec("uvicorn") and find_spec("httptools"):
        yield _service()


def _one_connection(port: int) -> Iterator[Figure]:
    """Compare each algorithm with the least that a script call takes, and the dearest with the usual one."""
    from valkey import Valkey

    with Valkey(port=port) as client:
        sha = client.script_load("return 1")
        for name in ALGORITHMS:
            with _limiter(port, name) as hit:
                yield _rates(f"{name}, one connection", hit, partial(client.evalsha, sha, 0), ">= 0.85x")
    with _limiter(port, "sliding-log") as hit, _limiter(port, ALGORITHM) as usual:
        seconds, floors = in_turn(_calling(hit), _calling(usual), ROUNDS)
        ratio = median(one / other for one, other in zip(seconds, floors, strict=True))
        took, floor = median(seconds) / CALLS * 1e6, median(floors) / CALLS * 1e6
        yield Figure(f"sliding-log of {BURST:,} to {ALGORITHM}", took, "us", floor, ratio, "<= 2x")


def _many_tasks(port: int) -> Iterator[Figure]:
    """Compare the hits of tasks that wait together with whatever else tasks can do here."""
    with asyncio.Runner() as runner, closing(AsyncValkeyLimiter(_url(port), ALGORITHM, f"{LIMIT}/s")) as limiter:
        for name, rival in installed().items():
            theirs = runner.run(_awaited(rival.for_tasks(port)))
            ours = _by_tasks(runner, lambda: limiter.hit("client"))
            yield _figure(f"{TASKS} tasks to {name}", *in_turn(ours, _by_tasks(runner, theirs), ROUNDS), rival.bar)


def _libraries(port: int) -> Iterator[Figure]:
    for name, rival in installed().items():
        if rival.for_threads is not None:
            with _limiter(port, ALGORITHM) as hit:
                yield _rates(f"one connection to {name}", hit, rival.for_threads(port), rival.bar)


def _sizes(port: int) -> Iterator[Figure]:
    """Weigh a key whose burst of 100 is half spent."""
    from valkey import Valkey

    with Valkey(port=port) as client:
        for name in ALGORITHMS:
            client.flushall()
            with closing(ValkeyLimiter(_url(port), name, "100/h", deadline=1)) as limiter:
                limiter.hit("client", cost=50)
            size = sum(client.memory_usage(key) for key in client.scan_iter())
            yield Figure(f"{name}, a key", size, "bytes", None, None, "")


def _service() -> Figure:
    """Load the service with its store on the load generator's processor: another machine would have it, too."""
    with ExitStack() as stopping:
        with _on_processor(1):
            port = stopping.enter_context(_server())
        stored = f"stored {_url(port)}"
        loads = http_load.load_in_turn((stored, "bare"), SITTINGS)
    return http_load.rates("/ping with a store, requests", loads[stored], loads["bare"], ">= 0.5x")


def _rates(what: str, hit: Hit, other: Hit, bar: str) -> Figure:
    return _figure(what, *in_turn(_calling(hit), _calling(other), ROUNDS), bar)


def _figure(what: str, seconds: list[float], floors: list[float], bar: str) -> Figure:
    """Sum up decisions a second, and how many times those of the other they are."""
    ratio = median(other / one for one, other in zip(seconds, floors, strict=True))
    return Figure(what, CALLS / median(seconds), "/s", CALLS / median(floors), ratio, bar)


def _calling(hit: Hit) -> Callable[[], None]:
    def call() -> None:
        for _ in range(CALLS):
            hit()

    return call


def _by_tasks(runner: asyncio.Runner, hit: Hit) -> Callable[[], None]:
    async def task() -> None:
        for _ in range(CALLS // TASKS):
            await hit()

    async def tasks() -> None:
        await asyncio.gather(*(task() for _ in range(TASKS)))

    return lambda: runner.run(tasks())


async def _awaited(what: Awaitable[Hit]) -> Hit:
    return await what


@contextmanager
def _limiter(port: int, algorithm: str) -> Iterator[Hit]:
    with closing(ValkeyLimiter(_url(port), algorithm, QUOTA, BURST, deadline=1)) as limiter:
        yield lambda: limiter.hit("client")


@contextmanager
def _server() -> Iterator[int]:
    """Run a server; yield its port."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with TemporaryDirectory() as directory:
        server = Server(Path(directory), port)
        try:
            server.start()
            yield port
        finally:
            server.stop()


@contextmanager
def _on_processor(number: int) -> Iterator[None]:
    """Keep this thread, and what it starts meanwhile, on one processor, where the system can be told so."""
    pin = http_load.on_processor(number)
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
