"""Clients on the page about pacing, against a service with a limit."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from manual import block

from ratelab import MemoryLimiter, create


class Handler(BaseHTTPRequestHandler):
    """Answer 200 or, beyond the limit, 429."""

    limiter: MemoryLimiter

    def do_GET(self) -> None:
        decision = self.limiter.hit("client")
        self.send_response(200 if decision.allowed else 429)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def urls() -> Iterator[list[str]]:
    handler = type("LimitedHandler", (Handler,), {"limiter": MemoryLimiter(create("token-bucket", "100/s", 5))})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield [f"http://127.0.0.1:{server.server_address[1]}/"] * 10
        server.shutdown()
        thread.join()


def load(name: str) -> Callable[..., Any]:
    names: dict[str, Any] = {}
    exec(compile(block("python", f"def {name}("), "fetch.py", "exec"), names)  # noqa: S102  (our own text)
    function: Callable[..., Any] = names[name]
    return function


@pytest.mark.parametrize("name", ["fetch_all", "fetch_by_requests"])
def test_clients_that_retry_are_admitted_in_the_end(name: str, urls: list[str]) -> None:
    assert load(name)(urls) == [200] * 10


@pytest.mark.parametrize("name", ["fetch_together", "fetch_by_aiohttp"])
def test_asynchronous_clients_are_admitted_in_the_end(name: str, urls: list[str]) -> None:
    assert asyncio.run(load(name)(urls)) == [200] * 10


def test_threads_are_paced(urls: list[str]) -> None:
    assert load("fetch_in_threads")(urls) == [200] * 10
