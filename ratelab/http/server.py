"""uvicorn, driven from code: listening sockets of our own, a stop that finishes what it has begun."""

from __future__ import annotations

import asyncio
import errno
import logging
import signal
import socket
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from types import FrameType
from typing import Literal

import uvicorn

from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import App
from ratelab.http.uvicorn_protocol import IDLE_TIMEOUT_S, GuardedProtocol

GRACE = 10
"""Seconds that requests in flight are given when the server stops."""

ORPHANS_GRACE = 2
"""The same, when the process that made this one has ended."""


class UvicornServer(uvicorn.Server):
    """A server that stops when it is told to, and for which that is a success."""

    lifeline: int | None = None
    """A descriptor; when it reads as ended, the server stops, too."""

    def __init__(self, config: uvicorn.Config, on_stop: Callable[[int], object]) -> None:
        super().__init__(config)
        self._on_stop = on_stop

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to serve, and to look after the lifeline."""
        await super().startup(sockets)
        if self.lifeline is not None:
            asyncio.get_running_loop().add_reader(self.lifeline, self._stop_as_orphan, self.lifeline)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Tell how many requests are in flight, and finish them."""
        self._on_stop(len(self.server_state.tasks))
        logging.getLogger("uvicorn.error").setLevel(logging.CRITICAL)  # what is cut off is answered, not reported
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:  # noqa: ARG002  (uvicorn's signature)
        """Stop; at a second interrupt, without waiting. uvicorn would end by the signal once more, as a failure."""
        self.force_exit |= self.should_exit and sig == signal.SIGINT  # which a SIGTERM beside it does not take back
        self.should_exit = True

    def _stop_as_orphan(self, lifeline: int) -> None:
        asyncio.get_running_loop().remove_reader(lifeline)
        self.config.timeout_graceful_shutdown = ORPHANS_GRACE
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one. Raises `InputError` if that cannot be."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(2048)
        except OSError:
            listener.close()
            raise
    except (OSError, UnicodeError) as error:  # the latter for what cannot be a name
        number = getattr(error, "errno", None)
        elsewhere = number not in (errno.EADDRINUSE, errno.EACCES)
        remedy = "give an address of this machine" if elsewhere else "choose another port, or 0 for any that is free"
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"cannot listen on port {port} of {short_repr(host)[1:-1] or 'no address'} ({reason}): {remedy}"
        ) from None
    return listener


def url_of(listener: socket.socket) -> str:
    """Write where a listening socket is reached from this machine."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (told, not bound)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: App,
    listeners: Sequence[socket.socket],
    every_second: Callable[[], Awaitable[None]] | None = None,
    on_stop: Callable[[int], object] = lambda _: None,
    lifespan: Literal["auto", "on", "off"] = "off",
    lifeline: int | None = None,
) -> None:
    """Serve until SIGTERM or an interrupt, then finish the requests in flight, for up to `GRACE` seconds.

    `on_stop` is then told how many these are. The end of the descriptor `lifeline` stops the server as well.
    """
    _allow_open_files()
    config = uvicorn.Config(
        app,
        interface="asgi3",
        http=GuardedProtocol,
        ws="none",
        lifespan=lifespan,
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=int(IDLE_TIMEOUT_S),
        timeout_graceful_shutdown=GRACE,
        callback_notify=every_second,
        timeout_notify=0,
    )
    server = UvicornServer(config, on_stop)
    server.lifeline = lifeline
    server.run(sockets=list(listeners))


def _allow_open_files() -> None:
    """Take as many connections as the system allows, since each is an open file; a shell often passes on 1,024."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
