"""Stores that do not decide, each with what their failure is called: given a server, they yield a URL."""

from __future__ import annotations

import os
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager, suppress
from threading import Thread

from flaky_proxy import network
from valkey_servers import ask, free_port

from ratelab.stores.valkey.server import ValkeyServer

BadStore = Callable[[ValkeyServer], AbstractContextManager[str]]


def _with(url: str, password: str) -> str:
    return url.replace("://", f"://:{password}@")


@contextmanager
def stopped(server: ValkeyServer) -> Iterator[str]:
    """Halt the server, which accepts connections all the same."""
    os.kill(server.pid, signal.SIGSTOP)
    try:
        yield server.url
    finally:
        os.kill(server.pid, signal.SIGCONT)


@contextmanager
def black_hole(server: ValkeyServer) -> Iterator[str]:
    """Listen where there is no room for a connection, so that what asks for one gets no answer."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as listener, ExitStack() as filling:
        for _ in range(8):
            connection = filling.enter_context(socket.socket())
            connection.setblocking(False)
            with suppress(BlockingIOError):
                connection.connect(listener.getsockname())
        yield f"valkey://127.0.0.1:{listener.getsockname()[1]}"


@contextmanager
def nobody(server: ValkeyServer) -> Iterator[str]:
    """Name a port where nobody listens."""
    yield f"valkey://127.0.0.1:{free_port()}"


@contextmanager
def no_socket(server: ValkeyServer) -> Iterator[str]:
    """Name a file that is not there."""
    yield f"{server.url}-elsewhere"


@contextmanager
def _set(server: ValkeyServer, option: str, value: str, after: str = "", password: str = "") -> Iterator[None]:
    ask(server.url, "CONFIG", "SET", option, value)
    try:
        yield
    finally:
        ask(_with(server.url, password) if password else server.url, "CONFIG", "SET", option, after)


@contextmanager
def wrong_password(server: ValkeyServer) -> Iterator[str]:
    """Ask for another password than is given."""
    with _set(server, "requirepass", "right", password="right"):  # noqa: S106  (the test's own)
        yield _with(server.url, "wrong")


@contextmanager
def no_password(server: ValkeyServer) -> Iterator[str]:
    """Ask for a password where none is given."""
    with _set(server, "requirepass", "right", password="right"):  # noqa: S106  (the test's own)
        yield server.url


@contextmanager
def needless_password(server: ValkeyServer) -> Iterator[str]:
    """Ask for no password where one is given."""
    yield _with(server.url, "needless")


@contextmanager
def replica(server: ValkeyServer) -> Iterator[str]:
    """Have the server follow another, and not write by itself."""
    ask(server.url, "REPLICAOF", "127.0.0.1", free_port())
    try:
        yield server.url
    finally:
        ask(server.url, "REPLICAOF", "NO", "ONE")


@contextmanager
def out_of_memory(server: ValkeyServer) -> Iterator[str]:
    """Leave no room for another key."""
    with _set(server, "maxmemory", "1", "0"):
        yield server.url


@contextmanager
def no_such_database(server: ValkeyServer) -> Iterator[str]:
    """Name a database that the server does not have."""
    yield f"{server.url}?db=99"


@contextmanager
def dripping(server: ValkeyServer) -> Iterator[str]:
    """Answer a byte now and then, each well before the deadline."""
    with network(server.url, then=("drip",)) as (url, _):
        yield url


@contextmanager
def of_another_kind(server: ValkeyServer) -> Iterator[str]:
    """Answer whoever connects as another server would."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            with suppress(OSError):
                while True:
                    with closing(listener.accept()[0]) as connection:
                        connection.recv(65536)
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")

        thread = Thread(target=answer)
        thread.start()
        try:
            yield f"valkey://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


BAD_STORES: dict[BadStore, str] = {
    stopped: "timeout",
    black_hole: "timeout",
    dripping: "timeout",
    nobody: "unreachable",
    no_socket: "unreachable",
    wrong_password: "refused",
    no_password: "refused",
    needless_password: "refused",
    replica: "readonly",
    out_of_memory: "full",
    no_such_database: "other",
    of_another_kind: "other",
}
"""What the `StoreError` of each is called."""
