"""One server of the HTTP benchmark, a process of its own: `python http_server.py CONTESTANT [ARGUMENT]...`."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable

import peers_http

from ratelab.http.app import site
from ratelab.http.asgi import App, Receive, Scope, Send
from ratelab.http.server import listen, run


def main(name: str, *arguments: str) -> None:
    """Serve a contestant; print its port and the one that tells the processor time that this process has spent."""
    app: App = getattr(peers_http, name)(*arguments)
    public, private = listen("127.0.0.1", 0), listen("127.0.0.1", 0)
    ports = public.getsockname()[1], private.getsockname()[1]
    clock = site({"/": lambda: (b"text/plain", b"%d" % time.process_time_ns())})

    def by_port(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        own = scope["type"] == "http" and scope["server"][1] == ports[1]
        return (clock if own else app)(scope, receive, send)

    print(*ports, flush=True)  # noqa: T201  (read by the benchmark)
    run(by_port, [public, private], lifespan="auto")


if __name__ == "__main__":
    main(*sys.argv[1:])
