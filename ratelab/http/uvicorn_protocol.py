"""uvicorn's HTTP protocol with header timeouts and a size limit."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

IDLE_TIMEOUT_S = 5.0
"""Seconds in which a request head must arrive, and a client that stopped reading must continue."""

MAX_HEAD_BYTES = 16_384
"""Largest request head, to within `PARSE_CHUNK_BYTES`."""

MAX_REQUEST_BYTES = 1_048_576
"""Largest request, head and body; the body is not kept, because the application does not read it."""

PARSE_CHUNK_BYTES = 1024
"""Bytes that are parsed at a time, which limits the number of parsed requests that wait on a connection."""


class GuardedProtocol(HttpToolsProtocol):
    """A connection that is closed after `IDLE_TIMEOUT_S`, with 431 for a request head over `MAX_HEAD_BYTES`.

    The timer runs while the server waits for the client: from the start of the connection, or the end of a response, to
    the end of the next head, however slowly it arrives; and while the client does not read a response. uvicorn itself
    has a timer for idle connections only (encode/uvicorn#157).

    Pipelined requests wait as bytes and are answered in turn. uvicorn would parse them first, which takes a hundred
    times the memory. The rejection of malformed data also waits for its turn.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer for the first head."""
        super().connection_made(transport)
        self._held = bytearray()
        self._size, self._in_head = 0, True
        self._rejection: HTTPStatus | None = None
        self._upgrading = False
        self._current: RequestResponseCycle | None = None
        self._waiting_since: float | None = self.loop.time()
        self._timer = self.loop.call_later(IDLE_TIMEOUT_S, self._check_timeout)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the timer, drop waiting requests and mark the current one: uvicorn would only notify the last."""
        self._timer.cancel()
        self._held.clear()
        self.pipeline.clear()
        if self._current is not None:
            self._current.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Parse or hold received data; ignore it after a rejection or an upgrade request."""
        if self._rejection is not None or self._upgrading:
            return
        if self._held or self.pipeline or len(data) > PARSE_CHUNK_BYTES:
            self._held += data
            self._feed_held()
        else:
            self._feed(data)

    def on_message_begin(self) -> None:
        """Start measuring a head."""
        self._size, self._in_head = 0, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop the timer while the application runs, unless the client has still to read earlier responses."""
        self._in_head = False
        if not self.flow.write_paused:
            self._waiting_since = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Start the timer for the next head, and parse held data."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._waiting_since = self.loop.time()
            if self._rejection is not None:
                self._send_error(self._rejection)
        if self._held:
            self._feed_held()
        if self.pipeline:
            self.flow.pause_reading()  # uvicorn resumes reading after each response, however many requests wait

    def pause_writing(self) -> None:
        """Start the timer for a client that does not read."""
        self._waiting_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Stop the timer, or restart it for the next head."""
        answering = self.cycle is not None and not self.cycle.response_complete
        self._waiting_since = None if answering else self.loop.time()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's signature)
        """Reject data that the parser does not accept."""
        self._reject(HTTPStatus.BAD_REQUEST)

    def _unsupported_upgrade_warning(self) -> None:
        """Answer the request without an upgrade and close, because later data may be in the other protocol."""
        self._held.clear()
        self._upgrading, self.cycle.keep_alive = True, False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._current = cycle
        super()._start_asgi_task(cycle, app)

    def _feed_held(self) -> None:
        """Feed held data to the parser, but not while parsed requests wait."""
        while self._held and not self.pipeline and self._rejection is None:
            piece = bytes(self._held[:PARSE_CHUNK_BYTES])
            del self._held[:PARSE_CHUNK_BYTES]
            self._feed(piece)

    def _feed(self, piece: bytes) -> None:
        """Feed the parser and check sizes, since it has no limit for an unfinished line or body."""
        super().data_received(piece)
        self._size += len(piece)
        if self._in_head and self._size >= MAX_HEAD_BYTES:
            self._reject(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._size > MAX_REQUEST_BYTES:
            self.transport.abort()

    def _reject(self, status: HTTPStatus) -> None:
        """Stop parsing, and send an error response after those to earlier requests."""
        self._rejection, self._in_head = status, False
        self._held.clear()
        if self.cycle is None or self.cycle.response_complete:
            self._send_error(status)

    def _send_error(self, status: HTTPStatus) -> None:
        """Send an error response and close the write side.

        Reading goes on until the timeout, because a reset could overtake the response.
        """
        self._waiting_since = self.loop.time()
        if not self.transport.is_closing():
            body = f"{status.phrase}\n".encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, status.phrase.encode(), len(body), body)
            )
            self.transport.write_eof()

    def _check_timeout(self) -> None:
        """Drop a client that exceeded the timeout, or schedule the next check."""
        now = self.loop.time()
        due = (now if self._waiting_since is None else self._waiting_since) + IDLE_TIMEOUT_S
        if due <= now:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(due - now, self._check_timeout)
