"""A blocking connection with one deadline for all that it does; the client's own are for each read by itself."""

from __future__ import annotations

import socket
import time
from functools import cache
from math import inf
from typing import TYPE_CHECKING, Any

from ratelab.stores.valkey.conversation import Address

if TYPE_CHECKING:
    from valkey.connection import Connection


class Deadline:
    """A socket that is waited for until `due`, however little comes at a time."""

    def __init__(self, inner: socket.socket) -> None:
        self._inner = inner
        self.due = inf
        self.shutdown, self.close = inner.shutdown, inner.close

    def recv(self, size: int) -> bytes:
        """Receive what is there, or wait for something."""
        self._limit()
        return self._inner.recv(size)

    def sendall(self, data: bytes) -> None:
        """Send everything; a request is too short for the other side to take it bit by bit."""
        self._limit()
        self._inner.sendall(data)

    def has_ended(self) -> bool:
        """Say whether there is something to read before anything was asked: the end, most likely."""
        self._inner.settimeout(0)
        try:
            self._inner.recv(1)
        except OSError as error:
            return not isinstance(error, BlockingIOError) and type(error).__name__ != "SSLWantReadError"
        return True

    def _limit(self) -> None:
        left = self.due - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._inner.settimeout(left)


class Patient:
    """A connection of the client that keeps to a deadline, opened when it is first used."""

    def __init__(self, settings: dict[str, Any], address: Address | None) -> None:
        from valkey.connection import Connection

        given = {name: value for name, value in settings.items() if name != "connection_class"}
        if address is not None:
            given["host"], given["port"] = address
        self._connection = _dated(settings.get("connection_class", Connection))(**given)
        self.disconnect = self._connection.disconnect

    @property
    def pid(self) -> int:
        """The process that made it; a fork must not use it."""
        return int(self._connection.pid)

    def exchange(self, command: tuple[Any, ...], due: float, anew: bool) -> Any:
        """Send a command and return the reply, before `time.monotonic` says `due`; connect `anew` if told to."""
        connection = self._connection
        open_socket = connection._sock
        if open_socket is not None and (anew or open_socket.has_ended()):
            connection.disconnect()
        if connection._sock is None:
            connection.due = due
        else:
            connection._sock.due = due
        connection.send_command(*command)
        return connection.read_response(disable_decoding=True)


@cache
def _dated(kind: type[Connection]) -> Any:
    """Make a kind of connection open sockets that have a deadline; connecting has it, too."""

    class Dated(kind):  # type: ignore[valid-type,misc]
        due = inf

        def _connect(self) -> Deadline:
            self.socket_timeout = self.socket_connect_timeout = max(0.001, self.due - time.monotonic())
            opened = Deadline(super()._connect())
            opened.due = self.due
            return opened

    return Dated
