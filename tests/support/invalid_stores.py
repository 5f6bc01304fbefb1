"""Stores that do not decide, each with the kind of its `StoreError`: given a server, they yield a URL."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from threading import Thread

from flaky_proxy import run_flaky_proxy
from valkey_servers import free_port, send_command

from ratelab.stores.valkey.server import ValkeyServer

InvalidStore = Callable[[ValkeyServer], AbstractContextManager[str]]


def _with_password(url: str, password: str) -> str:
    return url.replace("://", f"://:{password}@")


@contextmanager
def stopped(server: ValkeyServer) -> Iterator[str]:
    """Stop the process with a signal; its socket still accepts connections."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield server.url
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextmanager
def black_hole(server: ValkeyServer) -> Iterator[str]:
    """Listen with a full backlog, so that no connection is established."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as connections:
        for _ in range(8):
            connection = connections.enter_context(socket.socket())
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.connect(listener.getsockname())
        yield f"valkey://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def unused_port(server: ValkeyServer) -> Iterator[str]:
    yield f"valkey://127.0.0.1:{free_port()}"


@contextmanager
def missing_socket(server: ValkeyServer) -> Iterator[str]:
    yield f"{server.url}-elsewhere"


@contextmanager
def _configure(server: ValkeyServer, option: str, value: str, after: str = "", password: str = "") -> Iterator[None]:
    """Set an option of the server during the block; then set it to `after`, authenticated by `password`."""
    send_command(server.url, "CONFIG", "SET", option, value)
    try:
        yield
    finally:
        url = _with_password(server.url, password) if password else server.url
        send_command(url, "CONFIG", "SET", option, after)


@contextmanager
def wrong_password(server: ValkeyServer) -> Iterator[str]:
    with _configure(server, "requirepass", "right", password="right"):  # noqa: S106  (of a test server)
        yield _with_password(server.url, "wrong")


@contextmanager
def missing_password(server: ValkeyServer) -> Iterator[str]:
    with _configure(server, "requirepass", "right", password="right"):  # noqa: S106  (of a test server)
        yield server.url


@contextmanager
def needless_password(server: ValkeyServer) -> Iterator[str]:
    """Send a password to a server that requires none."""
    yield _with_password(server.url, "needless")


@contextmanager
def replica(server: ValkeyServer) -> Iterator[str]:
    """Make the server a read-only replica of another."""
    send_command(server.url, "REPLICAOF", "127.0.0.1", free_port())
    try:
        yield server.url
    finally:
        send_command(server.url, "REPLICAOF", "NO", "ONE")


@contextmanager
def out_of_memory(server: ValkeyServer) -> Iterator[str]:
    """Leave no room for a new key."""
    with _configure(server, "maxmemory", "1", "0"):
        yield server.url


@contextmanager
def missing_database(server: ValkeyServer) -> Iterator[str]:
    yield f"{server.url}?db=99"


@contextmanager
def dripping(server: ValkeyServer) -> Iterator[str]:
    """Reply in single bytes, each well before the deadline."""
    with run_flaky_proxy(server.url, then=("drip",)) as (url, _):
        yield url


@contextmanager
def _last_reply(reply: bytes, close: bool) -> Iterator[str]:
    """Reply once on each connection, and close it then or at the next data."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    with closing(listener.accept()[0]) as connection:
                        connection.recv(65536)
                        connection.sendall(reply)
                        if not close:
                            connection.recv(65536)

        thread = Thread(target=answer)
        thread.start()
        try:
            yield f"valkey://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@contextmanager
def http_server(server: ValkeyServer) -> Iterator[str]:
    """Reply to every command as an HTTP server would."""
    with _last_reply(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n", close=True) as url:
        yield url


@contextmanager
def slow_to_close(server: ValkeyServer) -> Iterator[str]:
    """Refuse long commands before authentication as a server does that closes the connection later."""
    with _last_reply(b"-ERR Protocol error: unauthenticated multibulk length\r\n", close=False) as url:
        yield url


INVALID_STORES: dict[InvalidStore, str] = {
    stopped: "timeout",
    black_hole: "timeout",
    dripping: "timeout",
    unused_port: "unreachable",
    missing_socket: "unreachable",
    wrong_password: "refused",
    missing_password: "refused",
    needless_password: "refused",
    slow_to_close: "refused",
    replica: "readonly",
    out_of_memory: "full",
    missing_database: "misconfigured",
    http_server: "other",
}
"""The kind of `StoreError` that each causes."""
