"""uvicorn's HTTP protocol with header timeouts and size limits, and its server with a graceful shutdown.

All undocumented parts of uvicorn that ratelab uses are here; `tests/test_private_apis.py` names them.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import Callable
from http import HTTPStatus
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

IDLE_TIMEOUT_S = 5.0
"""Seconds in which a request head must arrive, and a client that stopped reading must continue."""

MAX_HEAD_BYTES = 16_384
"""Largest request head, to within `PARSE_CHUNK_BYTES`."""

MAX_REQUEST_BYTES = 1_048_576
"""Largest request, head and body; the body is not kept, because the application does not read it."""

PARSE_CHUNK_BYTES = 1024
"""Bytes that are parsed at a time, which limits the number of parsed requests that wait on a connection."""

ORPHAN_SHUTDOWN_TIMEOUT_S = 2
"""Seconds that requests in flight have to finish in a worker whose supervisor has died."""


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

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
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


class UvicornServer(uvicorn.Server):
    """A server for which a signal to stop is not a failure, and which can also stop with its supervisor."""

    supervisor_pipe: int | None = None
    """A descriptor at which end of file means that the supervisor has died."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[int], object]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start serving, and watch the supervisor's pipe."""
        await super().startup(sockets)
        if self.supervisor_pipe is not None:
            asyncio.get_running_loop().add_reader(self.supervisor_pipe, self._stop_as_orphan, self.supervisor_pipe)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Report the number of requests in flight, then finish them."""
        self._on_stop(len(self.server_state.tasks))
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # cancelled requests get 503 and need no report
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (uvicorn's signature)
        """Stop gracefully, or at once at a second SIGINT.

        uvicorn's own method would raise the signal again after the shutdown, so that the process fails.
        """
        self.force_exit |= self.should_exit and sig == signal.SIGINT  # a later SIGTERM does not undo it
        self.should_exit = True

    def _stop_as_orphan(self, supervisor_pipe: int) -> None:
        asyncio.get_running_loop().remove_reader(supervisor_pipe)
        self.config.timeout_graceful_shutdown = ORPHAN_SHUTDOWN_TIMEOUT_S
        self.should_exit = True
