"""One server of the HTTP benchmark, in its own process: `python http_server.py SERVER MODULE.FUNCTION [ARGUMENT]...`.

It prints its port. The process that serves connects to the port in `REPORT_PORT`, and there answers each byte with a
line: the nanoseconds of processor time that it has spent.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import sys
import time
from collections.abc import Callable
from importlib import import_module
from threading import Thread
from typing import Any

APP, REPORT_PORT = "BENCHMARK_APP", "BENCHMARK_REPORT_PORT"
"""Environment variables for the process that serves: the application, and where to report."""

FACTORY = "http_server:create_app"


def create_app() -> Any:
    """Make the application, in the process that serves it, and report its processor time from now on."""
    name, *arguments = json.loads(os.environ[APP])
    module, _, function = name.rpartition(".")
    app = getattr(import_module(module), function)(*arguments)
    connection = socket.create_connection(("127.0.0.1", int(os.environ[REPORT_PORT])))
    Thread(target=report_processor_time, args=(connection,), daemon=True).start()
    return app


def report_processor_time(connection: socket.socket) -> None:
    """Answer each byte that the benchmark sends."""
    while connection.recv(1):
        connection.sendall(b"%d\n" % time.process_time_ns())


def run_uvicorn(app: Any, listener: socket.socket) -> None:
    """Serve as `uvicorn.run(app, access_log=False)` does; only the port is chosen before."""
    import uvicorn

    config = uvicorn.Config(app, http="httptools", loop="uvloop", access_log=False, log_level="error")
    uvicorn.Server(config).run(sockets=[listener])


def run_serve(app: Any, listener: socket.socket) -> None:
    """Serve as `ratelab serve` does: uvicorn with timeouts and size limits."""
    from ratelab.http import server

    server.run(app, [listener], lifespan="auto")


def run_waitress(app: Any, listener: socket.socket) -> None:
    """Serve as `waitress.serve(app)` does, without a warning for each request that waits for a thread."""
    logging.getLogger("waitress.queue").setLevel(logging.ERROR)
    import_module("waitress").serve(app, sockets=[listener])


def run_gunicorn(listener: socket.socket, *options: str) -> None:
    """Serve as the command `gunicorn` does."""
    sys.argv = ["gunicorn", f"--bind=fd://{listener.fileno()}", *options, "--log-level=error", f"{FACTORY}()"]
    import_module("gunicorn.app.wsgiapp").run()


def run_granian(listener: socket.socket, interface: str) -> None:
    """Serve as the command `granian` does; the port of the listener is opened again."""
    port = listener.getsockname()[1]
    listener.close()
    module = import_module("granian")
    module.Granian(FACTORY, port=port, interface=interface, factory=True, log_level="error").serve()


SERVERS: dict[str, Callable[[socket.socket], None]] = {
    "uvicorn": lambda listener: run_uvicorn(create_app(), listener),
    "serve": lambda listener: run_serve(create_app(), listener),
    "granian": lambda listener: run_granian(listener, "asgi"),
    "gunicorn sync": lambda listener: run_gunicorn(listener, "--worker-class=sync"),
    "gunicorn gthread": lambda listener: run_gunicorn(listener, "--worker-class=gthread", "--threads=4"),
    "waitress": lambda listener: run_waitress(create_app(), listener),
    "granian wsgi": lambda listener: run_granian(listener, "wsgi"),
}
"""Each has one process that serves; all but `ratelab serve` are stock servers."""

NEEDED = {
    "uvicorn": "uvicorn",
    "serve": "uvicorn",
    "waitress": "waitress",
    "granian": "granian",
    "gunicorn": "gunicorn",
}
"""The module of each server, by the first word of its name."""


def main(server: str, *app: str) -> None:
    """Serve an application on a free port, and print that."""
    os.environ[APP] = json.dumps(app)
    folder = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (folder, os.environ.get("PYTHONPATH"))))
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    listener.set_inheritable(True)
    print(listener.getsockname()[1], flush=True)  # noqa: T201  (read by the benchmark)
    SERVERS[server](listener)


if __name__ == "__main__":
    main(*sys.argv[1:])
