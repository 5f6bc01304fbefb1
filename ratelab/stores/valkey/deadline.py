"""A blocking connection with one deadline for all that it does, however little comes at a time."""

from __future__ import annotations

import os
import select
import time
from typing import Any

from ratelab.errors import StoreError
from ratelab.stores.valkey.connecting import Address, Place
from ratelab.stores.valkey.wire import parse

_PIECE = 65_536


class Link:
    """A connection to a server, opened when it is first used, and anew when it has ended."""

    def __init__(self, place: Place, address: Address | None) -> None:
        self._place, self._address = place, address
        self._socket: Any = None
        self._process = 0

    def exchange(self, command: bytes, due: float, anew: bool) -> Any:
        """Send a command and return the reply, before `time.monotonic` says `due`; connect `anew` if told to.

        Raises the error that the server answers.
        """
        if self._socket is None or anew or self._process != os.getpid() or self._has_ended():
            self._open(due)
        return self._exchange(command, due)

    def close(self) -> None:
        """Close the connection."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _open(self, due: float) -> None:
        self.close()
        connection = self._place.connection(self._address, timeout=max(0.001, due - time.monotonic()))
        connection.connect()
        self._socket, connection._sock = connection._sock, None  # the client's reader knows no deadline
        self._socket.setblocking(False)
        self._process = os.getpid()
        for command in self._place.greeting:
            self._exchange(command, due)

    def _has_ended(self) -> bool:
        """Say whether there is something to read before anything was asked: the end, most likely."""
        try:
            self._socket.recv(1)
        except OSError as error:
            return not _not_yet(error)
        return True

    def _exchange(self, command: bytes, due: float) -> Any:
        try:
            self._send(command, due)
            value = self._receive(due)
        except BaseException:
            self.close()  # what is still to come would be taken for the answer to something else
            raise
        if isinstance(value, Exception):
            raise value
        return value

    def _send(self, command: bytes, due: float) -> None:
        while command:
            try:
                command = command[self._socket.send(command) :]
            except OSError as error:
                self._wait(error, due, select.POLLOUT)

    def _receive(self, due: float) -> Any:
        data, parsed = b"", None
        while parsed is None:
            try:
                piece = self._socket.recv(_PIECE)
            except OSError as error:
                self._wait(error, due, select.POLLIN)
            else:
                if not piece:
                    raise StoreError("unreachable", "the store closed the connection")
                data += piece
                parsed = parse(data)
        return parsed[0]

    def _wait(self, error: OSError, due: float, for_what: int) -> None:
        """Wait until the socket can go on, if that is what `error` asks for; else raise it."""
        if not _not_yet(error):
            raise error
        left = due - time.monotonic()
        poll = select.poll()
        poll.register(self._socket, for_what)
        if left <= 0 or not poll.poll(1000 * left):
            raise TimeoutError


def _not_yet(error: OSError) -> bool:
    return isinstance(error, BlockingIOError) or type(error).__name__ in ("SSLWantReadError", "SSLWantWriteError")
