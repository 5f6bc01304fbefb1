"""A connection of an event loop: requests go out as they come, replies come back in the same order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from ratelab.errors import StoreError
from ratelab.stores.valkey.connecting import Address, Place, failure
from ratelab.stores.valkey.wire import parse

Hear = Callable[[Any], None]
"""Takes a reply, or the exception that stands in its place."""


class Stream(asyncio.Protocol):
    """A connection to a server, opened when it is made; a request is sent once, and never again on another."""

    def __init__(self, place: Place, address: Address | None) -> None:
        self.closed = False
        """Whether no request can be sent any more."""
        self._place, self._address = place, address
        self._transport: asyncio.Transport | None = None
        self._writer: Any = None
        self._unsent: list[bytes] = []
        self._expecting: deque[Hear] = deque()
        self._held = b""
        self._opening = asyncio.ensure_future(self._open())
        for command in place.greeting:
            self.ask(command, self._greeted)

    def ask(self, command: bytes, hear: Hear) -> None:
        """Send a request, at once or when the connection is open; `hear` is told the reply, or why there is none."""
        self._expecting.append(hear)
        if self._transport is None:
            self._unsent.append(command)
        else:
            self._transport.write(command)

    def leave(self) -> None:
        """Take no more requests, and close when those on their way are answered."""
        self.closed = True
        self._close_if_done()

    def close(self, error: StoreError) -> None:
        """Close at once; all that is on its way fails with `error`."""
        self.closed = True
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._expecting:
            self._expecting.popleft()(error)

    def data_received(self, data: bytes) -> None:
        """Pass on the replies that are complete."""
        data, start = self._held + data, 0
        try:
            while self._expecting and (parsed := parse(data, start)) is not None:
                reply, start = parsed
                self._expecting.popleft()(reply)
        except StoreError as error:
            self.close(error)
        self._held = data[start:]
        self._close_if_done()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Fail what is on its way."""
        self.close(StoreError("unreachable", "the store closed the connection"))

    async def _open(self) -> None:
        connection = self._place.connection(self._address)
        try:
            await connection.connect()
        except Exception as error:
            self.close(failure(error))
            return
        self._writer, connection._reader, connection._writer = connection._writer, None, None
        transport = self._writer.transport  # the writer is kept, for it closes the transport when it goes
        transport.set_protocol(self)  # the client's own reader is slower than the server
        transport.write(b"".join(self._unsent))
        self._transport = transport
        self._unsent.clear()

    def _greeted(self, reply: Any) -> None:
        """Give up a connection that the server does not want."""
        if isinstance(reply, Exception):
            self.close(failure(reply))

    def _close_if_done(self) -> None:
        if self.closed and not self._expecting and self._transport is not None:
            self._transport.abort()
