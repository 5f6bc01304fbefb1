"""Server whose responses have the error that the query of the URL names; started as a program."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from itertools import count
from subprocess import PIPE, Popen

from ratelab import MemoryLimiter, create
from ratelab.http.app import ping_app
from ratelab.http.asgi import Field, Message, Receive, Scope, Send
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.http.server import format_url, listen, run

RATE, BURST = "2/30s", 2

_numbers = count()


def falsify(error: str, fields: Iterable[Field]) -> Iterator[Field]:
    """Yield a response's header fields with the error."""
    for name, value in fields:
        match error, name:
            case ("no-ratelimit", b"ratelimit" | b"ratelimit-policy") | ("no-retry-after", b"retry-after"):
                continue
            case "half-a-second", b"retry-after":
                yield name, b"0.5"
            case "early", b"retry-after":
                yield name, b"1"
            case "late", b"retry-after":
                yield name, b"60"
            case "rising", b"ratelimit":
                yield name, b'"sliding-log";r=%d;t=1' % next(_numbers)
            case "file-name", b"ratelimit-policy":
                yield name, b'"toll.py:Toll";q=2;w=30'
            case "unknown-name", b"ratelimit-policy":
                yield name, b'"tolken-bucket";q=2;w=30'
            case _:
                yield name, value
    if error == "redirecting":
        yield b"location", b"?none"


honest = RateLimitMiddleware(ping_app, MemoryLimiter(create("sliding-log", RATE, BURST)), "header:X-Client")


async def app(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one request."""
    error = scope["query_string"].decode()

    async def send_falsified(message: Message) -> None:
        if message["type"] == "http.response.start":
            status = {"redirecting": 302, "failing": 503 if next(_numbers) % 2 else 200}.get(error, message["status"])
            message = {**message, "headers": [*falsify(error, message["headers"])], "status": status}
        await send(message)

    await honest(scope, receive, send_falsified)


@contextmanager
def run_dishonest_server() -> Iterator[str]:
    """Run the server, and yield the URL of its page."""
    with Popen([sys.executable, __file__], stdout=PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().strip()
        finally:
            process.kill()


if __name__ == "__main__":
    listener = listen("127.0.0.1", 0)
    print(f"{format_url(listener)}/ping", flush=True)  # noqa: T201  (`run_dishonest_server` reads it)
    run(app, [listener])
