"""uvicorn on sockets that are already bound, with a graceful shutdown that counts as success."""

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

SHUTDOWN_TIMEOUT_S = 10
"""Seconds that requests in flight have to finish at shutdown."""

ORPHAN_SHUTDOWN_TIMEOUT_S = 2
"""The same, in a worker whose supervisor has died."""


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


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; port 0 is any free one. Raises `InputError` if the address cannot be bound."""
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
    except (OSError, UnicodeError) as error:  # UnicodeError: not a possible host name
        port_problem = isinstance(error, OSError) and error.errno in (errno.EADDRINUSE, errno.EACCES)
        remedy = "choose another port, or 0 for a free one" if port_problem else "give an address of this machine"
        reason = (isinstance(error, OSError) and error.strerror) or error
        name = short_repr(host)[1:-1] or "an empty host"
        raise InputError(f"cannot listen on port {port} of {name} ({reason}): {remedy}") from None
    return listener


def format_url(listener: socket.socket) -> str:
    """Format the URL at which this machine reaches a listening socket."""
    host, port = listener.getsockname()[:2]
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)  # noqa: S104  (formatted, not bound)
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def run(
    app: App,
    listeners: Sequence[socket.socket],
    every_second: Callable[[], Awaitable[None]] | None = None,
    on_stop: Callable[[int], object] = lambda _: None,
    lifespan: Literal["auto", "on", "off"] = "off",
    supervisor_pipe: int | None = None,
) -> None:
    """Serve until SIGTERM, SIGINT or end of file at `supervisor_pipe`; then finish the requests in flight.

    `on_stop` is called with their number. Those that have not finished after `SHUTDOWN_TIMEOUT_S` are cancelled.
    """
    _raise_file_limit()
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
        timeout_graceful_shutdown=SHUTDOWN_TIMEOUT_S,
        callback_notify=every_second,
        timeout_notify=0,
    )
    server = UvicornServer(config, on_stop)
    server.supervisor_pipe = supervisor_pipe
    server.run(sockets=list(listeners))


def _raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit: each connection is one, and shells often allow only 1,024."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
