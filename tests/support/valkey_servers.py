"""Valkey servers for tests, commands sent to them directly, and limiters whose quota no test exhausts."""

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

LARGE_BURST = 10_000
"""A burst that no test exhausts, at a rate that restores nothing during a test."""

AMPLE_DEADLINE = 30
"""Seconds within which any machine gets a reply, for errors that come at once."""


@contextmanager
def run_valkey(*options: str, port: int = 0) -> Iterator[ValkeyServer]:
    """Run a server during the block, in a directory whose path is short enough for a socket."""
    with TemporaryDirectory(prefix="rl-") as directory:
        server = ValkeyServer(Path(directory), port, options)
        server.start()
        try:
            yield server
        finally:
            server.stop()


def send_command(url: str, *words: str | int) -> Any:
    """Send one command over a new connection, and return the reply."""
    with Valkey.from_url(url) as client:
        return client.execute_command(*words)


def make_limiter(url: str, deadline: float = AMPLE_DEADLINE) -> ValkeyLimiter:
    return ValkeyLimiter(url, "token-bucket", "1/day", LARGE_BURST, deadline)


def make_async_limiter(url: str, deadline: float = AMPLE_DEADLINE) -> AsyncValkeyLimiter:
    return AsyncValkeyLimiter(url, "token-bucket", "1/day", LARGE_BURST, deadline)


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


def free_port() -> int:
    """Return a port of 127.0.0.1 on which no process listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
    return port
