"""A blocking connection with one deadline for all that it does, however little comes at a time."""

from __future__ import annotations

import os
import select
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

from ratelab.errors import StoreError
from ratelab.stores.valkey.connection import Address, Place
from ratelab.stores.valkey.resp import parse

_PIECE = 65_536
_GRAIN = 0.001  # seconds in which a system waits, so that there is no need to tell it less


class Link:
    """A connection to a server, opened when it is first used, and anew when it has ended."""

    def __init__(self, place: Place, address: Address | None) -> None:
        self._place, self._address = place, address
        self._socket: Any = None
        self._has_ended: Callable[[], object] = bool
        self._process = 0
        self._limited = 0.0

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
        self._process, self._has_ended, self._limited = os.getpid(), _readable(self._socket), 0.0
        try:
            for command in self._place.greeting:
                self._exchange(command, due)
        except BaseException:
            self.close()  # or the next hit would find it open, without a right or in another database
            raise

    def _exchange(self, command: bytes, due: float) -> Any:
        opened = self._socket
        try:
            self._limit(due)
            opened.sendall(command)
            data = opened.recv(_PIECE)
            while (parsed := parse(data)) is None:
                self._limit(due)  # which is for each piece by itself
                piece = opened.recv(_PIECE)
                if not piece:
                    raise StoreError("unreachable", "the store closed the connection")
                data += piece
        except BaseException:
            self.close()  # what is still to come would be taken for the answer to something else
            raise
        value, _ = parsed
        if isinstance(value, Exception):
            raise value
        return value

    def _limit(self, due: float) -> None:
        left = due - time.monotonic()
        if left <= 0:
            raise TimeoutError
        if abs(left - self._limited) > _GRAIN:
            self._socket.settimeout(left)
            self._limited = left


def _readable(opened: Any) -> Callable[[], object]:
    """Return what says whether there is something to read: before anything was asked the end, most likely."""
    if sys.platform == "win32":
        return lambda: select.select((opened,), (), (), 0)[0]
    poll = select.poll()  # elsewhere `select` knows no more than 1,024 files
    poll.register(opened, select.POLLIN)
    return partial(poll.poll, 0)
