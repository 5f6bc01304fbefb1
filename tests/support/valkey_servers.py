"""Stores of the tests' own: servers, what is asked of them directly, and what they have charged."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from valkey import Valkey

from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer

PLENTY = 10_000
"""A burst that no test uses up, at a rate that gives nothing back meanwhile."""

AMPLE = 30
"""Seconds of a deadline that no machine is too slow for: what fails at once is told at once."""


@contextmanager
def running(*options: str, port: int = 0) -> Iterator[ValkeyServer]:
    """Run a server in a directory whose name is short enough for a socket."""
    with TemporaryDirectory(prefix="rl-") as directory:
        server = ValkeyServer(Path(directory), port, options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def ask(url: str, *words: str | int) -> Any:
    """Have a store do something, on a connection of its own."""
    with Valkey.from_url(url) as client:
        return client.execute_command(*words)


def plenty(url: str, deadline: float = AMPLE) -> ValkeyLimiter:
    return ValkeyLimiter(url, "token-bucket", "1/day", PLENTY, deadline)


def plenty_async(url: str, deadline: float = AMPLE) -> AsyncValkeyLimiter:
    return AsyncValkeyLimiter(url, "token-bucket", "1/day", PLENTY, deadline)


def charged(url: str, key: str = "alice") -> int:
    """Return what `plenty` has charged a key, as the store itself knows it."""
    limiter = plenty(url)
    try:
        return PLENTY - limiter.hit(key, 0).remaining
    finally:
        limiter.close()


def calls(url: str, command: str) -> int:
    """Return how often the server was asked for a command since its counters began, but for what it refused."""
    with Valkey.from_url(url) as client:
        told: dict[str, Any] = client.info("commandstats").get(f"cmdstat_{command}", {})
    return int(told.get("calls", 0))


def free_port(below: int = 65_536) -> int:
    """Return a port of 127.0.0.1 that nobody has now."""
    while True:
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            port: int = listener.getsockname()[1]
        if port < below:
            return port
