"""uvicorn on sockets that are already bound, with the settings of `ratelab serve`."""

from __future__ import annotations

import errno
import os
import signal
import socket
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Literal

import uvicorn

from ratelab.errors import InputError, format_reason, short_repr
from ratelab.http.asgi import App
from ratelab.http.uvicorn_protocol import IDLE_TIMEOUT_S, GuardedProtocol, UvicornServer

SHUTDOWN_TIMEOUT_S = 10
"""Seconds that requests in flight have to finish at shutdown."""


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
        name = short_repr(host)[1:-1] or "an empty host"
        raise InputError(f"cannot listen on port {port} of {name} ({format_reason(error)}): {remedy}") from None
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
    on_hangup: Callable[[], object] | None = None,
) -> None:
    """Serve until SIGTERM, SIGHUP, SIGINT or end of file at `supervisor_pipe`; then finish the requests in flight.

    `on_stop` is called with their number. Those that have not finished after `SHUTDOWN_TIMEOUT_S` are cancelled.

    If `on_hangup` is given, SIGHUP calls it instead, as a signal handler, unless the terminal of the process is gone.
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
    terminals = list_terminals()

    def handle_hangup(number: int, frame: FrameType | None) -> None:
        if on_hangup is None or terminals != list_terminals():
            server.handle_exit(number, frame)
        else:
            on_hangup()

    with _handle_hangup(handle_hangup):
        server.run(sockets=list(listeners))


def list_terminals() -> list[int]:
    """Return the standard descriptors that are open terminals."""
    return [descriptor for descriptor in range(3) if os.isatty(descriptor)]


@contextmanager
def _handle_hangup(handler: Callable[[int, FrameType | None], object]) -> Iterator[None]:
    """Call `handler` at SIGHUP, which a closed terminal sends and uvicorn does not handle, unless it is ignored."""
    number = getattr(signal, "SIGHUP", None)  # not on Windows
    before = signal.getsignal(number) if number else signal.SIG_IGN
    if number is None or before is signal.SIG_IGN:
        yield
        return
    signal.signal(number, handler)
    try:
        yield
    finally:
        signal.signal(number, before)


def _raise_file_limit() -> None:
    """Raise the limit of open files to the hard limit: each connection is one, and shells often allow only 1,024."""
    try:
        import resource
    except ImportError:  # Windows
        return
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
