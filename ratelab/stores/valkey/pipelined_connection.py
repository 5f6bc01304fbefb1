"""Connections of an event loop, each of which carries many commands at a time."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from math import inf
from typing import Any
from weakref import WeakSet

from ratelab.errors import StoreError
from ratelab.stores.fork import reset_in_children
from ratelab.stores.valkey.connection import Address, StoreUrl
from ratelab.stores.valkey.error_kinds import classify_error
from ratelab.stores.valkey.resp import ReplyError, parse_reply
from ratelab.stores.valkey.session import ASKING, Command, SlotMap

OnReply = Callable[[Any], None]
"""Called with a reply, or with the exception that replaces it."""


class PipelinedConnection(asyncio.Protocol):
    """A connection that opens on construction; it sends each command once, without waiting for earlier replies."""

    def __init__(self, url: StoreUrl, address: Address | None) -> None:
        self.closed = False
        """Whether no more commands can be sent."""
        self._url, self._address = url, address
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._writer: Any = None
        self._unsent: list[bytes] = []
        self._handshakes = len(url.handshake)  # commands of the handshake without a reply yet
        self._pending: deque[tuple[OnReply, float]] = deque((self._receive_handshake, inf) for _ in url.handshake)
        self._buffer = b""
        self._opening = asyncio.ensure_future(self._open())

    def send(self, command: Command, on_reply: OnReply, due: float) -> None:
        """Send a command, at once or after the handshake; call `on_reply` with its reply or a `StoreError`.

        The reply is expected until the loop's time is `due`.
        """
        data = command.data
        if command.asking:
            data = ASKING + data
            refusals: list[Exception] = []
            self._pending.append((partial(_keep_error, refusals), due))
            self._pending.append((lambda reply: on_reply(refusals[0] if refusals else reply), due))
        else:
            self._pending.append((on_reply, due))
        if self._transport is None or self._handshakes:
            self._unsent.append(data)
        else:
            self._transport.write(data)

    def is_overdue(self, now: float) -> bool:
        """Return whether a reply is overdue."""
        return any(due <= now for _, due in self._pending)

    def retire(self, due: float) -> None:
        """Accept no more commands; close after the pending replies, or when the loop's time is `due`."""
        self.closed = True
        self._loop.call_at(due, self.close, StoreError("timeout", "the store did not answer in time"))
        self._close_if_done()

    def close(self, error: Exception) -> None:
        """Close at once; pending commands fail with `error`, unless their event loop has been closed."""
        self.closed = True
        if self._loop.is_closed():
            self._close_without_loop()
            return
        self._opening.cancel()
        if self._transport is not None:
            self._transport.abort()
        while self._pending:
            on_reply, _ = self._pending.popleft()
            on_reply(error)

    def disown(self) -> None:
        """Detach a forked child process from the socket of its parent, whose event loop must not notice it."""
        self.closed = True
        opened = self._transport and self._transport.get_extra_info("socket")
        if opened and opened.fileno() >= 0:
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, opened.fileno())  # closing it would also remove it from the parent's selector
            os.close(null)

    def data_received(self, data: bytes) -> None:
        """Pass on the replies that are complete."""
        data, start = self._buffer + data, 0
        try:
            while self._pending and (parsed := parse_reply(data, start)) is not None:
                reply, start = parsed
                on_reply, _ = self._pending.popleft()
                on_reply(reply)
                if isinstance(reply, ReplyError) and reply.closes:
                    self.close(reply)
        except StoreError as error:
            self.close(error)
        self._buffer = data[start:]
        if self._buffer and not self._pending:  # it would be taken for the reply to the next command
            self.close(StoreError("other", "unsolicited reply from the store"))
        self._close_if_done()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (asyncio's signature)
        """Fail the pending commands."""
        self.close(StoreError("unreachable", "the store closed the connection"))

    def _close_without_loop(self) -> None:
        self._pending.clear()
        if self._transport is None:
            return
        with suppress(OSError, AttributeError):
            self._transport.get_extra_info("socket").shutdown(socket.SHUT_RDWR)
        with suppress(RuntimeError):  # the transport calls its loop
            self._transport.abort()
        self._transport = self._writer = None  # the transport closes its socket when it is collected

    async def _open(self) -> None:
        try:
            self._writer = await self._url.open_writer(self._address)
        except Exception as error:
            self.close(classify_error(error))
            return
        transport = self._writer.transport  # the writer is kept, since it closes the transport when it is collected
        transport.set_protocol(self)
        self._transport = transport
        transport.write(b"".join(self._url.handshake))
        self._send_unsent()

    def _receive_handshake(self, reply: Any) -> None:
        """Close the connection if the server rejects the handshake; otherwise send the commands that wait for it."""
        if isinstance(reply, Exception):
            self.close(classify_error(reply))
        self._handshakes -= 1
        self._send_unsent()

    def _send_unsent(self) -> None:
        if self._pending and not self._handshakes and self._transport is not None:
            self._transport.write(b"".join(self._unsent))
            self._unsent.clear()

    def _close_if_done(self) -> None:
        if self.closed and not self._pending and self._transport is not None:
            self._transport.abort()


class Connections:
    """The connections of one event loop to a server, or to each node of a cluster; several limiters may use them."""

    def __init__(self, url: str | StoreUrl, slots: SlotMap | None = None) -> None:
        self.url = url if isinstance(url, StoreUrl) else StoreUrl(url, asynchronous=True)
        self.slots = SlotMap(self.url.cluster, self.url.seeds) if slots is None else slots
        self._loop: asyncio.AbstractEventLoop | None = None
        self._opened: dict[Address | None, PipelinedConnection] = {}
        self._users: WeakSet[object] = WeakSet()
        reset_in_children(self)

    def copy(self) -> Connections:
        """Return connections to the same servers for another event loop."""
        return Connections(self.url, self.slots)

    def remove_user(self, limiter: object, error: StoreError) -> None:
        """Close the connections if no other limiter uses them; pending commands fail with `error`."""
        self._users.discard(limiter)
        if not self._users:
            self._close(error)

    def are_used_outside(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Return whether another event loop uses the connections at the moment."""
        return self._loop is not None and self._loop is not loop and self._loop.is_running()

    def move_to(self, loop: asyncio.AbstractEventLoop, limiter: object) -> None:
        """Start over in another event loop; commands pending in the previous one never get a reply.

        The connections stay open until `limiter`, too, is removed or collected.
        """
        if loop is not self._loop:
            if self.are_used_outside(loop):
                raise RuntimeError("this limiter is in use in another event loop: create one limiter for each loop")
            self._close(StoreError("unreachable", "the event loop has ended"))
            self._loop = loop
        self._users.add(limiter)

    def send(self, command: Command, on_reply: OnReply, due: float, deadline: float) -> None:
        """Send a command as `PipelinedConnection.send` does.

        A connection that it replaces has `deadline` seconds to receive its replies.
        """
        connection = self._opened.get(command.address)
        if connection is None or connection.closed or command.reconnect:
            if connection is not None:
                connection.retire(asyncio.get_running_loop().time() + deadline)
            connection = self._opened[command.address] = PipelinedConnection(self.url, command.address)
        connection.send(command, on_reply, due)

    def close_overdue(self, now: float) -> None:
        """Close the connections with a reply that is overdue at the loop's time `now`."""
        for connection in [*self._opened.values()]:
            if connection.is_overdue(now):
                connection.close(StoreError("timeout", "the store did not answer other requests in time"))

    def reset_after_fork(self) -> None:
        """Let go of the connections, which belong to the parent process."""
        for connection in self._opened.values():
            connection.disown()
        self._opened.clear()
        self._loop = None

    def _close(self, error: StoreError) -> None:
        connections = [*self._opened.values()]
        self._opened.clear()
        for connection in connections:
            connection.close(error)


def _keep_error(errors: list[Exception], reply: Any) -> None:
    if isinstance(reply, Exception):
        errors.append(reply)
