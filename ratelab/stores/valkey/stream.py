"""A connection of an event loop: requests go out as they come, replies come back in the same order."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from typing import Any

from ratelab.errors import StoreError
from ratelab.stores.valkey.connection import Address, Place, failure
from ratelab.stores.valkey.resp import parse

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
        self._greetings = len(place.greeting)  # that are not answered
        self._expecting: deque[tuple[Hear, float]] = deque((self._greeted, inf) for _ in place.greeting)
        self._held = b""
        self._opening = asyncio.ensure_future(self._open())

    def ask(self, command: bytes, hear: Hear, due: float) -> None:
        """Send a request, at once or when the server knows us; `hear` is told the reply, or why there is none.

        A reply is of use until the loop's time is `due`.
        """
        self._expecting.append((hear, due))
        if self._transport is None or self._greetings:
            self._unsent.append(command)
        else:
            self._transport.write(command)

    def is_late(self, now: float) -> bool:
        """Say whether a reply is due that has not come."""
        return any(due <= now for _, due in self._expecting)

    def leave(self, due: float) -> None:
        """Take no more requests, and close when those on their way are answered or the loop's time is `due`."""
        self.closed = True
        asyncio.get_running_loop().call_at(due, self.close, StoreError("timeout", "the store did not answer in time"))
        self._close_if_done()

    def close(self, error: StoreError) -> None:
        """Close at once; all that is on its way fails with `error`."""
        self.closed = True
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._expecting:
            hear, _ = self._expecting.popleft()
            hear(error)

    def data_received(self, data: bytes) -> None:
        """Pass on the replies that are complete."""
        data, start = self._held + data, 0
        try:
            while self._expecting and (parsed := parse(data, start)) is not None:
                reply, start = parsed
                hear, _ = self._expecting.popleft()
                hear(reply)
        except StoreError as error:
            self.close(error)
        self._held = data[start:]
        if self._held and not self._expecting:
            self.close(StoreError("other", "the store said what it was not asked"))  # and it would answer the next
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
        self._transport = transport
        transport.write(b"".join(self._place.greeting))
        self._send_unsent()

    def _greeted(self, reply: Any) -> None:
        """Give up a connection that the server does not want; without a right or a database nothing is asked."""
        if isinstance(reply, Exception):
            self.close(failure(reply))
        self._greetings -= 1
        self._send_unsent()

    def _send_unsent(self) -> None:
        if self._expecting and not self._greetings and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _close_if_done(self) -> None:
        if self.closed and not self._expecting and self._transport is not None:
            self._transport.abort()
