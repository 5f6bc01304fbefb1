"""A connection that is not waited for for ever: uvicorn's protocol with a deadline and a bound on the head."""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import TYPE_CHECKING

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

IDLE_TIMEOUT_S = 5.0
"""Seconds in which a head must have come, and a client that stopped reading must have gone on."""

MAX_HEAD_BYTES = 16_384
"""Bytes that the head of a request may have, to within `PARSE_CHUNK_BYTES`."""

MAX_REQUEST_BYTES = 1_048_576
"""Bytes that a whole request may have; its body, which nobody reads, is not kept."""

PARSE_CHUNK_BYTES = 1024
"""Bytes that are parsed at a time, which bounds how many requests can queue on a connection."""


class GuardedProtocol(HttpToolsProtocol):
    """Serve a connection; close it after `IDLE_TIMEOUT_S` without data, answer 431 to a head over `MAX_HEAD_BYTES`.

    The deadline runs while the client is waited for: from the connection, or the end of an answer, to the end of the
    next head, however slowly that drips in; and while the client does not read what it asked for. uvicorn itself has
    a timer for idle connections only (encode/uvicorn#157).

    Requests that come before the answers to earlier ones are answered in turn, and wait as bytes: parsed, as uvicorn
    has them wait, they take a hundred times the room. What the parser does not take is answered in its turn, too.
    """

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first head."""
        super().connection_made(transport)
        self._held = bytearray()
        self._size, self._in_head = 0, True
        self._refusal: HTTPStatus | None = None
        self._upgrading = False
        self._answered: RequestResponseCycle | None = None
        self._waiting_since: float | None = self.loop.time()
        self._timer = self.loop.call_later(IDLE_TIMEOUT_S, self._check_deadline)

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting, and have nothing more written: uvicorn tells only the last of the requests that queue."""
        self._timer.cancel()
        self._held.clear()
        self.pipeline.clear()
        if self._answered is not None:
            self._answered.disconnected = True
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Take what has come, unless the connection has been refused, or is asked to change, and only drains."""
        if self._refusal is not None or self._upgrading:
            return
        if self._held or self.pipeline or len(data) > PARSE_CHUNK_BYTES:
            self._held += data
            self._feed_held()
        else:
            self._feed(data)

    def on_message_begin(self) -> None:
        """Begin a head."""
        self._size, self._in_head = 0, True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Stop waiting, unless earlier answers have still to be read: the application has the word."""
        self._in_head = False
        if not self.flow.write_paused:
            self._waiting_since = None
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Begin to wait for the next head, and go on with what has come already."""
        super().on_response_complete()
        if self.cycle.response_complete:
            self._waiting_since = self.loop.time()
            if self._refusal is not None:
                self._say(self._refusal)
        if self._held:
            self._feed_held()
        if self.pipeline:
            self.flow.pause_reading()  # uvicorn reads on after each answer, however many requests queue

    def pause_writing(self) -> None:
        """Begin to wait for a client that does not read."""
        self._waiting_since = self.loop.time()
        super().pause_writing()

    def resume_writing(self) -> None:
        """Go on, or go on waiting for a head."""
        answering = self.cycle is not None and not self.cycle.response_complete
        self._waiting_since = None if answering else self.loop.time()
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002  (uvicorn's signature)
        """Refuse what the parser did not take."""
        self._refuse(HTTPStatus.BAD_REQUEST)

    def _unsupported_upgrade_warning(self) -> None:
        """Answer the request, and close: what follows it may be in another protocol."""
        self._held.clear()
        self._upgrading, self.cycle.keep_alive = True, False

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    def _feed_held(self) -> None:
        """Feed the parser what is held, but not while requests queue."""
        while self._held and not self.pipeline and self._refusal is None:
            piece = bytes(self._held[:PARSE_CHUNK_BYTES])
            del self._held[:PARSE_CHUNK_BYTES]
            self._feed(piece)

    def _feed(self, piece: bytes) -> None:
        """Feed the parser, which tells nobody how long a line or a body is that it has not come to the end of."""
        super().data_received(piece)
        self._size += len(piece)
        if self._in_head and self._size >= MAX_HEAD_BYTES:
            self._refuse(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        elif self._size > MAX_REQUEST_BYTES:
            self.transport.abort()

    def _refuse(self, status: HTTPStatus) -> None:
        """Parse no more, and answer when what came before has been answered."""
        self._refusal, self._in_head = status, False
        self._held.clear()
        if self.cycle is None or self.cycle.response_complete:
            self._say(status)

    def _say(self, status: HTTPStatus) -> None:
        """Answer and close for writing; reading goes on until the deadline, or a reset would overtake the answer."""
        self._waiting_since = self.loop.time()
        if not self.transport.is_closing():
            body = f"{status.phrase}\n".encode()
            self.transport.write(
                b"HTTP/1.1 %d %s\r\ncontent-type: text/plain\r\ncontent-length: %d\r\nconnection: close\r\n\r\n%s"
                % (status, status.phrase.encode(), len(body), body)
            )
            self.transport.write_eof()

    def _check_deadline(self) -> None:
        """Cut off a client that has been waited for too long, else look again when that could be so."""
        now = self.loop.time()
        due = (now if self._waiting_since is None else self._waiting_since) + IDLE_TIMEOUT_S
        if due <= now:
            self.transport.abort()
        else:
            self._timer = self.loop.call_later(due - now, self._check_deadline)
