"""Store of a trial: valkey-server under libfaketime, whose time is that of the fake clock, and a proxy that fails."""

from __future__ import annotations

import shlex
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event, Thread
from typing import Literal

from ratelab.errors import InputError
from ratelab.judge.fake_clock import FakeClock
from ratelab.quota import NS_PER_S
from ratelab.stores.valkey.server import ValkeyServer, find_program

LIBRARY_FOLDERS = ("/usr/lib", "/usr/lib64", "/usr/local/lib", "/opt/homebrew/lib")

MAX_STALL_S = 2.0
"""Real seconds that a stalled reply is held back, unless the client closes the connection before."""

Fault = Literal["drop", "stall"]

_wait = Event.wait  # in real time


class NoStore(Exception):  # noqa: N818  (a result, not an error)
    """There is no server with a fake clock on this machine; the message names the missing part."""


def find_faketime() -> Path:
    """Return the path of libfaketime; raise `NoStore` if it is not installed."""
    for folder in LIBRARY_FOLDERS:
        for pattern in ("*/faketime/libfaketime.so.1", "faketime/libfaketime*.*"):
            if found := next(iter(sorted(Path(folder).glob(pattern))), None):
                return found
    raise NoStore("skipped: libfaketime is not installed, so a store cannot follow the fake clock")


def write_wrapper(program: str, directory: Path, time_file: Path, **variables: object) -> Path:
    """Write a script that runs a program under libfaketime, which reads the time from a file, and return its path."""
    variables |= {"LD_PRELOAD": find_faketime(), "FAKETIME_TIMESTAMP_FILE": time_file, "FAKETIME_NO_CACHE": 1}
    exports = "".join(f"export {name}={shlex.quote(str(value))}\n" for name, value in variables.items())
    script = directory / "program"
    script.write_text(f'#!/bin/sh\n{exports}exec {shlex.quote(program)} "$@"\n')
    script.chmod(0o700)
    return script


class StoreServer:
    """A running valkey-server; `url` is that of the server itself."""

    def __init__(self, server: ValkeyServer, time_file: Path, port: int) -> None:
        self.server = server
        self._time_file = time_file
        self.port = port
        self.url = f"redis://127.0.0.1:{port}/0"

    def set_time(self, utc_ns: int) -> None:
        """Set the time of the server, which stands still until the next call."""
        seconds, rest = divmod(utc_ns, NS_PER_S)
        moment = datetime.fromtimestamp(seconds, UTC)
        written = self._time_file.with_suffix(".new")
        written.write_text(f"{moment:%Y-%m-%d %H:%M:%S}.{rest:09d}\n")
        written.replace(self._time_file)  # the server never reads half a file

    def restart(self) -> None:
        """End the server, which loses all data, and start it again."""
        self.server.stop()
        self.server.start()


@contextmanager
def run_store_server(clock: FakeClock) -> Iterator[StoreServer]:
    """Run a server whose time follows `clock`; raise `NoStore` if one is not possible here."""
    try:
        program = find_program()
    except InputError as error:
        raise NoStore(f"skipped: {error}") from None
    with TemporaryDirectory(prefix="rl-") as directory:
        time_file = Path(directory, "time")
        script = write_wrapper(program, Path(directory), time_file, TZ="UTC")
        port = _find_free_port()
        store = StoreServer(ValkeyServer(Path(directory), port, program=str(script)), time_file, port)
        store.set_time(clock.utc_ns)
        store.restart()
        clock.on_change = lambda: store.set_time(clock.utc_ns)
        try:
            yield store
        finally:
            clock.on_change = lambda: None
            store.server.stop()


def _find_free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class FailingProxy:
    """A proxy in front of a server, which passes everything until `fail` or `go_down`."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"redis://127.0.0.1:{self._listener.getsockname()[1]}/0"
        self.is_down = False
        """Whether connections are closed at once."""
        self._faults: list[Fault | None] = []  # of the next replies
        self._open: set[socket.socket] = set()
        Thread(target=self._accept, daemon=True).start()

    def fail(self, fault: Fault, number: int) -> None:
        """Apply a fault to one reply: with 1, to the next one."""
        self._faults = [*[None] * (number - 1), fault]

    def pass_all(self) -> None:
        """Fail no more."""
        self._faults = []
        self.is_down = False

    def go_down(self) -> None:
        """Close all connections, and new ones at once."""
        self.is_down = True
        self._close_all()

    def close(self) -> None:
        """End the proxy."""
        self.go_down()
        self._listener.close()

    def _close_all(self) -> None:
        for connection in [*self._open]:
            _close(connection)

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self.is_down:
                    client.close()
                    continue
                server = socket.create_connection(("127.0.0.1", self._port))
                for connection in (client, server):
                    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._open |= {client, server}
                Thread(target=self._pass_requests, args=(client, server), daemon=True).start()
                Thread(target=self._pass_replies, args=(server, client), daemon=True).start()

    def _pass_requests(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while data := client.recv(65536):
                server.sendall(data)
        self._end(client, server)

    def _pass_replies(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while data := server.recv(65536):
                fault = self._faults.pop(0) if self._faults else None
                if fault == "drop":
                    break
                if fault == "stall":
                    _wait(Event(), MAX_STALL_S)
                client.sendall(data)
        self._end(client, server)

    def _end(self, *connections: socket.socket) -> None:
        for connection in connections:
            self._open.discard(connection)
            _close(connection)


def _close(connection: socket.socket) -> None:
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)
    connection.close()
