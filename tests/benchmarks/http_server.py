"""One server of the HTTP benchmark, in its own process: `python http_server.py SERVER APP [ARGUMENT]...`.

It prints its port, then the nanoseconds of processor time that it has spent, once for each byte on its standard input.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from threading import Thread

import peers_http
import uvicorn

from ratelab.http import server
from ratelab.http.asgi import App


def run_uvicorn(app: App, listener: socket.socket) -> None:
    """Serve as `uvicorn.run(app, access_log=False)` does; only the port is chosen before."""
    config = uvicorn.Config(app, http="httptools", loop="uvloop", access_log=False, log_level="error")
    uvicorn.Server(config).run(sockets=[listener])


def run_serve(app: App, listener: socket.socket) -> None:
    """Serve as `ratelab serve` does: uvicorn with timeouts and size limits."""
    server.run(app, [listener], lifespan="auto")


SERVERS: dict[str, Callable[[App, socket.socket], None]] = {"uvicorn": run_uvicorn, "serve": run_serve}


def report_processor_time() -> None:
    """Answer each byte of the standard input with the processor time of this process."""
    while os.read(0, 1):
        print(time.process_time_ns(), flush=True)  # noqa: T201  (read by the benchmark)


def main(server_name: str, app_name: str, *arguments: str) -> None:
    """Serve an application of `peers_http`; print the port."""
    listener = server.listen("127.0.0.1", 0)
    print(listener.getsockname()[1], flush=True)  # noqa: T201  (read by the benchmark)
    Thread(target=report_processor_time, daemon=True).start()
    SERVERS[server_name](getattr(peers_http, app_name)(*arguments), listener)


if __name__ == "__main__":
    main(*sys.argv[1:])
