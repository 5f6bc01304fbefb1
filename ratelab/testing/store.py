"""Embedded store of tests, whose server decides by the time of a clock."""

from __future__ import annotations

import shutil
import socket
import socketserver
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from hashlib import sha1
from io import BufferedIOBase
from pathlib import Path
from tempfile import mkdtemp
from threading import Thread

from ratelab.quota import NS_PER_S, NS_PER_US
from ratelab.stores.valkey.lua_text import load_lua
from ratelab.stores.valkey.server import run_embedded_server

_READ_TIME = "local time = call('TIME')"
_STOPPED_TIME = """\
local time = {{ '{seconds}', '{microseconds}' }}
local call_server = call
call = function(name, ...)  -- keys do not expire while time stands still
  if name == 'PEXPIRE' then return 1 end
  if name ~= 'SET' or select(3, ...) ~= 'PX' then return call_server(name, ...) end
  local key, value = ...
  return call_server(name, key, value, select(5, ...))
end"""

SHUTDOWN_POLL_S = 0.05

_CHUNK_BYTES = 1 << 16


class EmbeddedStore:
    """An embedded valkey-server behind a proxy, which puts the time of a clock into the scripts of limiters.

    `utc_ns` returns that time in nanoseconds since 1970, or None for the time of the server. All processes that use
    the store decide by it.
    """

    def __init__(self, server: str, path: str, utc_ns: Callable[[], int | None]) -> None:
        self.path = path
        """The path of its Unix socket."""
        self._server = server
        self._utc_ns = utc_ns
        self._scripts: dict[bytes, str] = {}  # of limiters, by the name that the server gives to each

    @property
    def url(self) -> str:
        """The URL for limiters; `valkey` and `redis` take it, too."""
        return f"unix://{self.path}"

    def flush(self) -> None:
        """Delete all keys."""
        with self.connect() as connection:
            connection.sendall(b"FLUSHALL\r\n")
            connection.recv(_CHUNK_BYTES)

    def connect(self) -> socket.socket:
        """Return a connection to the server itself."""
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._server)
        return connection

    def rewrite(self, command: list[bytes]) -> list[bytes]:
        """Return a command of a client as the server must get it."""
        name, utc_ns = command[0].upper(), self._utc_ns()
        if name == b"EVAL" and (text := command[1].decode(errors="replace")).startswith(load_lua("prelude.lua")):
            self._scripts[_hash(text)] = text
            if utc_ns is not None:
                return [command[0], _stop_time(text, utc_ns).encode(), *command[2:]]
        if name == b"EVALSHA" and utc_ns is not None and command[1] in self._scripts:
            return [command[0], _hash(_stop_time(self._scripts[command[1]], utc_ns)), *command[2:]]
        return command


@contextmanager
def run_store(utc_ns: Callable[[], int | None]) -> Iterator[EmbeddedStore]:
    """Run an `EmbeddedStore` during the block. Raises `InputError` if the server is not installed or does not start."""
    directory = mkdtemp(prefix="ratelab-")
    try:
        with run_embedded_server() as url:
            store = EmbeddedStore(url.removeprefix("unix://"), str(Path(directory) / "s"), utc_ns)
            with _create_proxy(store) as proxy:
                Thread(target=proxy.serve_forever, args=(SHUTDOWN_POLL_S,), daemon=True).start()
                try:
                    yield store
                finally:
                    proxy.shutdown()
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def _create_proxy(store: EmbeddedStore) -> socketserver.ThreadingUnixStreamServer:
    class Handler(socketserver.StreamRequestHandler):
        """One connection of a client."""

        def handle(self) -> None:
            with store.connect() as server:
                replies = Thread(target=_copy, args=(server, self.connection), daemon=True)
                replies.start()
                with suppress(OSError):  # either side may close the connection
                    while command := _read_command(self.rfile):
                        server.sendall(_encode(store.rewrite(command)))
                for connection in (server, self.connection):
                    _shut_down(connection)
                replies.join()  # or it might read the replies of the next connection, whose descriptor is the same

    class Proxy(socketserver.ThreadingUnixStreamServer):
        """A thread for each connection; those that are open do not keep the program from ending."""

        daemon_threads = True
        block_on_close = False
        request_queue_size = 128

    return Proxy(store.path, Handler)


def _copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes until one of the connections is closed."""
    with suppress(OSError):
        while data := source.recv(_CHUNK_BYTES):
            target.sendall(data)
    _shut_down(target)


def _shut_down(connection: socket.socket) -> None:
    """End a connection, so that no thread waits for it."""
    with suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR)


def _read_command(file: BufferedIOBase) -> list[bytes]:
    """Return the words of the next command; none at the end of the connection."""
    line = file.readline()
    if not line.startswith(b"*"):
        return line.split()  # a command of plain words
    return [file.read(int(file.readline()[1:]) + 2)[:-2] for _ in range(int(line[1:]))]


def _encode(command: list[bytes]) -> bytes:
    return b"*%d\r\n" % len(command) + b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in command)


def _stop_time(text: str, utc_ns: int) -> str:
    """Return the text of a script that reads this time instead of that of the server."""
    time = {"seconds": utc_ns // NS_PER_S, "microseconds": utc_ns % NS_PER_S // NS_PER_US}
    return text.replace(_READ_TIME, _STOPPED_TIME.format_map(time), 1)


def _hash(text: str) -> bytes:
    return sha1(text.encode(), usedforsecurity=False).hexdigest().encode()
