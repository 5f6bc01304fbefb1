"""Processor time that doors add to a request under stock servers and the load generator wrk."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from importlib.util import find_spec
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple, Self
from urllib.error import URLError
from urllib.request import urlopen

import click
from http_server import REPORT_PORT
from timing import Bar, Figure, median_difference, median_ratio, processor_pin

from ratelab.errors import InputError

STARTS = 5
"""Each server of the first group is started this often, since processes differ by more than the middleware adds."""

FURTHER_STARTS = 2
"""How often each server of the other groups is started."""

ROUNDS = 5
"""After each start, the servers are loaded in turn this often; figures are medians over all rounds."""

LOAD_S = 1
CONNECTIONS = 32
SERVER = Path(__file__).with_name("http_server.py")
STARTUP_TIMEOUT_S = 30
SHUTDOWN_TIMEOUT_S = 5

ADDED_BAR = Bar("<=", 22, "%")
"""The middleware adds at most this part of the bare application's processor time for a request."""

SHARE_BAR = Bar(">=", 0.85)
"""A WSGI service answers at least this share of the bare one's requests."""

DEPENDENCY_BAR = Bar("<=", 8, "us")
"""A dependency of FastAPI takes at most this much longer than an empty one."""

DJANGO_BAR = Bar("<=", 10, "%")
"""The middleware adds at most this part of a bare view's processor time for a request."""

PEER_BAR = Bar(">=", 3, baseline="ratelab's")


class Limited(NamedTuple):
    """An application behind ratelab."""

    label: str
    app: str
    added: Bar | None = None
    share: Bar | None = None
    """The bars of the added time and of the share of requests that are left."""
    needs: tuple[str, ...] = ()


class Peer(NamedTuple):
    """An application behind another package, which is compared with the first one behind ratelab."""

    package: str
    app: str
    module: str
    """The name by which the package is imported."""


class Group(NamedTuple):
    """A bare application, and the same one behind limits, which are loaded in turn."""

    server: str
    bare: str
    limited: tuple[Limited, ...]
    peers: tuple[Peer, ...] = ()
    needs: tuple[str, ...] = ()


def _wsgi_group(server: str, bar: Bar | None = None) -> Group:
    outcomes = [Limited(f"WSGI, {each}", f"http_apps.wsgi_{each}", share=bar) for each in ("admitted", "denied")]
    return Group(server, "http_apps.wsgi", (*outcomes,))


GROUPS = (
    Group(
        "uvicorn",
        "http_apps.asgi",
        (
            Limited("admitted", "http_apps.asgi_admitted", ADDED_BAR),
            Limited("denied", "http_apps.asgi_denied", ADDED_BAR),
        ),
    ),
    Group(
        "serve",
        "http_apps.asgi",
        (Limited("admitted", "http_apps.asgi_admitted"), Limited("denied", "http_apps.asgi_denied")),
    ),
    Group(
        "granian",
        "http_apps.asgi",
        (Limited("admitted", "http_apps.asgi_admitted"), Limited("denied", "http_apps.asgi_denied")),
    ),
    Group(
        "uvicorn",
        "http_apps.starlette",
        (Limited("Starlette", "http_apps.starlette_limited"),),
        (Peer("slowapi", "peers_http.slowapi", "slowapi"), Peer("traffik", "peers_http.traffik", "traffik")),
        ("starlette",),
    ),
    Group(
        "uvicorn",
        "peers_http.public_client",
        (Limited("public client", "peers_http.public_client_limited"),),
        (Peer("asgi-ratelimit", "peers_http.asgi_ratelimit", "ratelimit"),),
        ("ratelimit",),
    ),
    Group(
        "uvicorn",
        "http_apps.litestar",
        (Limited("Litestar", "http_apps.litestar_limited"),),
        (Peer("litestar", "peers_http.litestar_own", "litestar"),),
        ("litestar",),
    ),
    Group(
        "uvicorn",
        "http_apps.fastapi",
        (Limited("FastAPI dependency", "http_apps.fastapi_limited", DEPENDENCY_BAR, needs=("ratelab.fastapi",)),),
        (
            Peer("fastapi-limiter", "peers_http.fastapi_limiter", "fastapi_limiter"),
            Peer("throttled-py", "peers_http.throttled_fastapi", "throttled.asyncio.contrib.fastapi"),
        ),
        ("fastapi",),
    ),
    _wsgi_group("gunicorn gthread", SHARE_BAR),
    _wsgi_group("waitress", SHARE_BAR),
    _wsgi_group("gunicorn sync"),
    _wsgi_group("granian wsgi"),
    Group(
        "gunicorn gthread",
        "http_apps.flask",
        (
            Limited("Flask view", "http_apps.flask_limited"),
            Limited("Flask middleware", "http_apps.flask_behind_middleware"),
        ),
        (
            Peer("flask-limiter", "peers_http.flask_limiter", "flask_limiter"),
            Peer("throttled-py", "peers_http.throttled_flask", "throttled.contrib.flask"),
        ),
        ("flask",),
    ),
    Group(
        "gunicorn gthread",
        "http_apps.django",
        (
            Limited("Django view", "http_apps.django_decorated"),
            Limited("Django middleware", "http_apps.django_behind_middleware", DJANGO_BAR),
        ),
        (
            Peer("django-ratelimit", "peers_http.django_ratelimit", "django_ratelimit"),
            Peer("django-smart-ratelimit", "peers_http.django_smart_ratelimit", "django_smart_ratelimit"),
        ),
        ("django", "ratelab.django"),
    ),
    Group(
        "gunicorn gthread",
        "http_apps.startproject",
        (Limited("Django project", "http_apps.startproject_behind_middleware", DJANGO_BAR),),
        (),
        ("django", "ratelab.django"),
    ),
    Group(
        "gunicorn gthread",
        "http_apps.rest",
        (Limited("REST throttle", "http_apps.rest_limited"),),
        (Peer("djangorestframework", "peers_http.rest_own", "rest_framework"),),
        ("rest_framework", "ratelab.django"),
    ),
)
"""All groups in their order; the first one also has latencies."""

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
    """Load each bare application and the same one behind limits in turn.

    A line on standard error names each package that is not installed; its rows are left out. The server and the load
    generator each have a processor, if the system can pin them. Raise `InputError` without wrk.
    """
    if shutil.which("wrk") is None:
        raise InputError("the http benchmark needs the load generator wrk: apt install wrk, or brew install wrk")
    for group in GROUPS:
        yield from _measure(group, STARTS if group is GROUPS[0] else FURTHER_STARTS)


def _measure(group: Group, starts: int) -> Iterator[Figure]:
    """Yield the figures of a group, as far as it is installed."""
    missing = _find_missing(group.server.split()[0].replace("serve", "uvicorn"), *group.needs)
    limited = [each for each in group.limited if not _find_missing(*each.needs)]
    peers = [each for each in group.peers if not _find_missing(each.module)]
    if missing or not limited:
        _report_missing(f"{group.server}, {group.limited[0].label}", missing or [*group.limited[0].needs])
        return
    for peer in group.peers:
        if peer not in peers:
            _report_missing(f"{group.server}, {peer.package}", [peer.package])
    apps = [group.bare, *(each.app for each in limited), *(peer.app for peer in peers)]
    loads = load_in_turn([(group.server, app) for app in apps], starts)
    bare = loads[group.server, group.bare]
    server = "ratelab serve" if group.server == "serve" else group.server
    for each in limited:
        yield _throughput(f"{server}, {each.label}: requests", loads[group.server, each.app], bare, each.share)
    for each in limited if group is GROUPS[0] else ():
        yield _latency(f"{server}, {each.label}: 99th percentile", loads[group.server, each.app], bare)
    for each in limited:
        yield _added_time(f"{server}, {each.label}: added", loads[group.server, each.app], bare, each.added)
    added = _added_us(loads[group.server, limited[0].app], bare)
    for peer in peers:
        peer_added = _added_us(loads[group.server, peer.app], bare)
        ratio = peer_added / added if peer_added and added else None
        yield Figure(f"{server}, {peer.package}: added", peer_added, "us", added, ratio, PEER_BAR)


def _find_missing(*modules: str) -> list[str]:
    """Return the modules that are not installed."""
    missing = []
    for module in modules:
        try:
            found = find_spec(module)
        except ModuleNotFoundError:  # of the package of a module
            found = None
        if found is None:
            missing.append(module)
    return missing


def _report_missing(label: str, packages: Sequence[str]) -> None:
    click.echo(f"http: {label} is not measured, install {' and '.join(packages)}", err=True)


Arguments = tuple[str, ...]
"""The arguments of `http_server.py`: a server, an application and its arguments."""


def load_in_turn(servers: Sequence[Arguments], starts: int) -> dict[Arguments, list[Load]]:
    """Load servers in turn."""
    loads: dict[Arguments, list[Load]] = {server: [] for server in servers}
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


def _throughput(label: str, loads: Sequence[Load], floors: Sequence[Load], bar: Bar | None) -> Figure:
    """Compare the requests per second of processor time, which other programs on the machine do not take away."""
    rates, floor_rates = [1 / load.cost_s for load in loads], [1 / load.cost_s for load in floors]
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

    def __init__(self, arguments: Arguments) -> None:
        self._arguments = arguments
        self._opened = ExitStack()
        self._reports = self._opened.enter_context(socket.create_server(("127.0.0.1", 0)))
        self._reports.settimeout(STARTUP_TIMEOUT_S)
        self._process = subprocess.Popen(
            [sys.executable, str(SERVER), *arguments],
            stdout=subprocess.PIPE,
            text=True,
            preexec_fn=processor_pin(0),
            env={**os.environ, REPORT_PORT: str(self._reports.getsockname()[1])},
        )

    def warm_up(self) -> None:
        """Wait until the server admits a request, then load it once."""
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline())
        with self._reports.accept()[0] as connection:
            self._report = self._opened.enter_context(connection.makefile("rwb", buffering=0))
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while True:
            try:
                urlopen(f"http://127.0.0.1:{self._port}/ping").close()
                break
            except URLError as error:
                if isinstance(error.reason, str) or time.monotonic() > deadline:  # a status, or no server
                    raise InputError(f"{' '.join(self._arguments)} does not answer ({error})") from error
                time.sleep(0.05)
        self._run_wrk()

    def load(self) -> Load:
        """Load the server once."""
        before = self._processor_s()
        output = self._run_wrk()
        return Load.parse(output, self._processor_s() - before)

    def stop(self) -> None:
        """Stop the server and wait for its end."""
        self._process.terminate()
        try:
            self._process.communicate(timeout=SHUTDOWN_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()
        self._opened.close()

    def _run_wrk(self) -> str:
        """Request /ping as fast as the responses arrive; return the report."""
        url = f"http://127.0.0.1:{self._port}/ping"
        command = ["wrk", "-t1", f"-c{CONNECTIONS}", f"-d{LOAD_S}", "--latency", url]
        done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, preexec_fn=processor_pin(1))
        return done.stdout

    def _processor_s(self) -> float:
        """Return the seconds of processor time that the process that serves has spent since it was started."""
        self._report.write(b".")
        return int(self._report.readline()) / 1e9
