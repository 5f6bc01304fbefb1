"""Processor time that the middleware adds to a request, under the load generator wrk."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self
from urllib.request import urlopen

from peers_http import installed_peers
from timing import Bar, Figure, median_difference, median_ratio, processor_pin

from ratelab.errors import InputError

STARTS = 5
"""Each server is started this often, since processes differ by more than the middleware adds."""

SERVE_STARTS = 2
PEER_STARTS = 1

ROUNDS = 5
"""After each start, the servers are loaded in turn this often; figures are medians over all rounds."""

LOAD_S = 1
CONNECTIONS = 32
SERVER = Path(__file__).with_name("http_server.py")

ADDED_BAR = Bar("<=", 22, "%")
"""The middleware adds at most this part of the bare application's processor time for a request."""

PEER_BAR = Bar(">=", 3, baseline="ratelab's")

OUTCOMES = ("admitted", "denied")

_REQUESTS = re.compile(r"(\d+) requests in ([\d.]+)(ms|s|m),")
_P99 = re.compile(r"99%\s+([\d.]+)(us|ms|s)")
_UNIT_S = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0}


class Load(NamedTuple):
    """One run of the load generator."""

    rate: float
    """Requests per second."""
    p99_s: float
    """99th percentile of the latency."""
    cost_s: float
    """Processor time of the server for each request."""

    @classmethod
    def parse(cls, output: str, server_s: float) -> Self:
        """Parse the output of wrk; the server spent `server_s` seconds of processor time meanwhile."""
        count, length, unit = _REQUESTS.search(output).groups()  # type: ignore[union-attr]
        p99, p99_unit = _P99.search(output).groups()  # type: ignore[union-attr]
        seconds = float(length) * _UNIT_S[unit]
        return cls(int(count) / seconds, float(p99) * _UNIT_S[p99_unit], server_s / int(count))


def http() -> Iterator[Figure]:
    """Load the bare and the limited application in turn, then each installed peer and its own bare application.

    The server and the load generator each have a processor, if the system can pin them. Raise `InputError` without wrk.
    """
    if shutil.which("wrk") is None:
        raise InputError("the http benchmark needs the load generator wrk: apt install wrk, or brew install wrk")
    loads = load_in_turn(["uvicorn bare", *(f"uvicorn {outcome}" for outcome in OUTCOMES)], STARTS)
    bare = loads["uvicorn bare"]
    for outcome in OUTCOMES:
        yield request_rate(f"uvicorn, {outcome}: requests", loads[f"uvicorn {outcome}"], bare)
    for outcome in OUTCOMES:
        yield _latency(f"uvicorn, {outcome}: 99th percentile", loads[f"uvicorn {outcome}"], bare)
    for outcome in OUTCOMES:
        yield _added_time(f"uvicorn, {outcome}: added", loads[f"uvicorn {outcome}"], bare, ADDED_BAR)
    added = _added_us(loads["uvicorn admitted"], bare)

    loads = load_in_turn(["serve bare", *(f"serve {outcome}" for outcome in OUTCOMES)], SERVE_STARTS)
    for outcome in OUTCOMES:
        yield _added_time(f"ratelab serve, {outcome}: added", loads[f"serve {outcome}"], loads["serve bare"])

    for name, peer in installed_peers().items():
        bare_app, limited_app = f"uvicorn {peer.bare.__name__}", f"uvicorn {peer.limited.__name__}"
        loads = load_in_turn([bare_app, limited_app], PEER_STARTS)
        peer_added = _added_us(loads[limited_app], loads[bare_app])
        ratio = peer_added / added if peer_added and added else None
        yield Figure(f"uvicorn, {name}: added", peer_added, "us", added, ratio, PEER_BAR)


def load_in_turn(servers: Sequence[str], starts: int) -> dict[str, list[Load]]:
    """Load servers in turn; each is the arguments of `http_server.py`."""
    loads: dict[str, list[Load]] = {server: [] for server in servers}
    for _ in range(starts):
        with ExitStack() as stack:
            running = {server: RunningServer(server) for server in servers}
            for process in running.values():
                stack.callback(process.stop)
            for process in running.values():
                process.warm_up()
            for _, server in product(range(ROUNDS), servers):
                loads[server].append(running[server].load())
    return loads


def request_rate(label: str, loads: Sequence[Load], floors: Sequence[Load], bar: Bar | None = None) -> Figure:
    """Compare the requests per second of two servers that were loaded in turn."""
    rates, floor_rates = [load.rate for load in loads], [load.rate for load in floors]
    return Figure(label, median(rates), "/s", median(floor_rates), median_ratio(rates, floor_rates), bar)


def _latency(label: str, loads: Sequence[Load], floors: Sequence[Load]) -> Figure:
    p99s, floor_p99s = [load.p99_s * 1e6 for load in loads], [load.p99_s * 1e6 for load in floors]
    return Figure(label, median(p99s), "us", median(floor_p99s), median_ratio(p99s, floor_p99s))


def _added_time(label: str, loads: Sequence[Load], floors: Sequence[Load], bar: Bar | None = None) -> Figure:
    """Compare the processor time that is added to a request with that of the bare application."""
    added, floor = _added_us(loads, floors), median(load.cost_s for load in floors) * 1e6
    percentage = None if added is None else added / floor * 100
    return Figure(label, added, "us", floor, percentage, bar, "%")


def _added_us(loads: Sequence[Load], floors: Sequence[Load]) -> float | None:
    """Return the processor time that is added to a request; None if noise hides it."""
    return median_difference([load.cost_s * 1e6 for load in loads], [load.cost_s * 1e6 for load in floors])


class RunningServer:
    """A server in its own process, pinned to the first processor."""

    def __init__(self, arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), *arguments.split()],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=processor_pin(0),
        )

    def warm_up(self) -> None:
        """Wait until the server admits a request, then load it once."""
        self._port = int(self._read_line())
        urlopen(f"http://127.0.0.1:{self._port}/ping").close()
        self._run_wrk()

    def load(self) -> Load:
        """Load the server once."""
        before = self._processor_s()
        output = self._run_wrk()
        return Load.parse(output, self._processor_s() - before)

    def stop(self) -> None:
        """Stop the server and wait for its end."""
        self._process.terminate()
        self._process.communicate()

    def _run_wrk(self) -> str:
        """Request /ping as fast as the responses arrive; return the report."""
        url = f"http://127.0.0.1:{self._port}/ping"
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LOAD_S}", "--latency", url]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=processor_pin(1))
        return done.stdout

    def _processor_s(self) -> float:
        """Return the seconds of processor time that the server has spent since it was started."""
        assert self._process.stdin is not None
        self._process.stdin.write(".")
        self._process.stdin.flush()
        return int(self._read_line()) / 1e9

    def _read_line(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline()
