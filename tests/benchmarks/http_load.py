"""What the middleware costs a service, under a real load generator."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self
from urllib.request import urlopen

from peers_http import installed
from timing import Figure

from ratelab.errors import InputError

SITTINGS = 5
"""Each contestant is started so often anew, since one process differs from the next by more than is measured."""

PEER_SITTINGS = 1
"""The same for the middleware of others, which differs by more."""

ROUNDS = 5
"""In a sitting each contestant is loaded so often, in turn; figures are medians over all rounds."""

SERVER = Path(__file__).with_name("http_server.py")
SECONDS = 1
CONNECTIONS = 32

_REQUESTS = re.compile(r"(\d+) requests in ([\d.]+)(ms|s|m),")
_P99 = re.compile(r"99%\s+([\d.]+)(us|ms|s)")
_IN_SECONDS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Load(NamedTuple):
    """What one run of the load generator saw, and what it cost the server."""

    rate: float
    """Requests a second."""
    p99: float
    """Seconds."""
    cost: float
    """Seconds of processor time for each request."""

    @classmethod
    def parse(cls, output: str, spent: float) -> Self:
        """Read what wrk prints; `spent` are the seconds of processor time that the server took meanwhile."""
        count, length, unit = _REQUESTS.search(output).groups()  # type: ignore[union-attr]
        p99, p99_unit = _P99.search(output).groups()  # type: ignore[union-attr]
        seconds = float(length) * _IN_SECONDS[unit]
        return cls(int(count) / seconds, float(p99) * _IN_SECONDS[p99_unit], spent / int(count))


def http() -> Iterator[Figure]:
    """Load the bare service and the limited one in turn, then each installed middleware of others and its own base.

    Server and generator have a processor each, where the system can be told so. Raises `InputError` without wrk.
    """
    if shutil.which("wrk") is None:
        raise InputError(
            "the http benchmark needs the load generator wrk: install it (apt install wrk, brew install wrk)"
        )
    loads = load_in_turn(("bare", "admitted", "denied"), SITTINGS)
    for outcome in ("admitted", "denied"):
        yield rates(f"{outcome}, requests", loads[outcome], loads["bare"], ">= 0.9x")
    for outcome in ("admitted", "denied"):
        yield _latencies(f"{outcome}, 99th percentile", loads[outcome], loads["bare"])
    for outcome in ("admitted", "denied"):
        yield Figure(f"{outcome}, added to each", _added(loads[outcome], loads["bare"]), "us", None, None, "<= 3.5 us")
    own = _added(loads["admitted"], loads["bare"])
    for name, peer in installed().items():
        others = load_in_turn((peer.base.__name__, peer.limited.__name__), PEER_SITTINGS)
        added = _added(others[peer.limited.__name__], others[peer.base.__name__])
        yield Figure(f"{name}, added to each", added, "us", own, added / own, ">= 3x ratelab's")


def load_in_turn(names: Sequence[str], sittings: int) -> dict[str, list[Load]]:
    """Load contestants in turn, each a name and what it is told after it."""
    loads: dict[str, list[Load]] = {name: [] for name in names}
    for _ in range(sittings):
        with ExitStack() as stopping:
            ports = {name: _start(name, stopping) for name in names}
            for _, name in product(range(ROUNDS), names):
                loads[name].append(_load(*ports[name]))
    return loads


def rates(what: str, loads: list[Load], floors: list[Load], bar: str) -> Figure:
    """Sum up the requests a second of two contestants that were loaded in turn."""
    ratio = median(one.rate / other.rate for one, other in zip(loads, floors, strict=True))
    rate, floor = median(one.rate for one in loads), median(one.rate for one in floors)
    return Figure(what, rate, "/s", floor, ratio, bar)


def _latencies(what: str, loads: list[Load], floors: list[Load]) -> Figure:
    ratio = median(one.p99 / other.p99 for one, other in zip(loads, floors, strict=True))
    p99, floor = median(one.p99 for one in loads), median(one.p99 for one in floors)
    return Figure(what, p99 * 1e6, "us", floor * 1e6, ratio, "<= 1.15x")


def _added(loads: list[Load], floors: list[Load]) -> float:
    """Return the microseconds of processor time that a request costs more."""
    return 1e6 * median(one.cost - other.cost for one, other in zip(loads, floors, strict=True))


def _start(name: str, stopping: ExitStack) -> tuple[int, int]:
    """Start a contestant and warm it up; return its port and the one that tells what it has spent."""
    command = [sys.executable, str(SERVER), *name.split()]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, preexec_fn=on_processor(0))
    server = stopping.enter_context(started)
    stopping.callback(server.terminate)
    assert server.stdout is not None
    public, private = map(int, server.stdout.readline().split())
    _wrk(public)
    return public, private


def _load(public: int, private: int) -> Load:
    """Load a contestant."""
    before = _spent(private)
    output = _wrk(public)
    return Load.parse(output, _spent(private) - before)


def _wrk(port: int) -> str:
    """Ask for /ping as fast as the answers come."""
    url = f"http://127.0.0.1:{port}/ping"
    command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{SECONDS}", "--latency", url]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=on_processor(1))
    return done.stdout


def _spent(port: int) -> float:
    """Return the seconds of processor time that a server has spent since it started."""
    with urlopen(f"http://127.0.0.1:{port}/") as answer:
        return int(answer.read()) / 1e9


def on_processor(number: int) -> Callable[[], None] | None:
    """Return what keeps a process on one processor, if there are several and the system can be told so."""
    if not hasattr(os, "sched_setaffinity"):
        return None
    processors = sorted(os.sched_getaffinity(0))
    return partial(os.sched_setaffinity, 0, {processors[number % len(processors)]})
