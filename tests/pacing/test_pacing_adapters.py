"""Adapters for httpx, requests and aiohttp, with their real clients."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from ratelab import InputError, RateLimitExceeded
from ratelab.pacing import AsyncPacedTransport, PacedAdapter, PacedMiddleware, PacedTransport, Pacer

RETRIED = [429, 200]


class Handler(BaseHTTPRequestHandler):
    """Answer with the next status of the path: `/429,200` is denied once, by `Retry-After: 1` if it ends in `!`."""

    protocol_version = "HTTP/1.1"
    seen: dict[str, list[bytes]]

    def do_GET(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        seen = self.server.seen.setdefault(self.path, [])  # type: ignore[attr-defined]
        statuses = self.path.strip("/!").split(",")
        status = int(statuses[min(len(seen), len(statuses) - 1)])
        seen.append(body)
        self.send_response(status)
        self.send_header("Content-Length", "2")
        if self.path.endswith("!"):
            self.send_header("Retry-After", "3600")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET  # noqa: N815

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def service() -> Iterator[ThreadingHTTPServer]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.seen = {}  # type: ignore[attr-defined]
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Call:
    """One request by each client: `call(path, method, body, retries, pacer)` returns the status."""

    @staticmethod
    def httpx(url: str, method: str, body: Any, retries: int, pacer: Pacer) -> int:
        with httpx.Client(transport=PacedTransport(pacer=pacer, retries=retries)) as client:
            return client.request(method, url, content=body).status_code

    @staticmethod
    def async_httpx(url: str, method: str, body: Any, retries: int, pacer: Pacer) -> int:
        async def main() -> int:
            async with httpx.AsyncClient(transport=AsyncPacedTransport(pacer=pacer, retries=retries)) as client:
                return (await client.request(method, url, content=body)).status_code

        return asyncio.run(main())

    @staticmethod
    def requests(url: str, method: str, body: Any, retries: int, pacer: Pacer) -> int:
        with requests.Session() as session:
            session.mount("http://", PacedAdapter(pacer, retries=retries))
            return session.request(method, url, data=body).status_code

    @staticmethod
    def aiohttp(url: str, method: str, body: Any, retries: int, pacer: Pacer) -> int:
        async def main() -> int:
            async with (
                aiohttp.ClientSession(middlewares=[PacedMiddleware(pacer, retries=retries)]) as session,
                session.request(method, url, data=body) as response,
            ):
                await response.read()
                return response.status

        return asyncio.run(main())


CLIENTS = [Call.httpx, Call.async_httpx, Call.requests, Call.aiohttp]


def url_of(service: ThreadingHTTPServer, path: str) -> str:
    return f"http://127.0.0.1:{service.server_address[1]}{path}"


@pytest.mark.parametrize("call", CLIENTS)
def test_a_denial_is_returned_unless_retries_are_asked_for(call: Any, service: Any) -> None:
    assert call(url_of(service, "/429,200"), "GET", None, 0, Pacer()) == 429
    assert call(url_of(service, "/429,429,200"), "GET", None, 2, Pacer()) == 200
    assert len(service.seen["/429,429,200"]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("call", CLIENTS)
@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("POST", "/429,200", 200), ("POST", "/503,200", 503), ("GET", "/503,200", 200), ("GET", "/500,200", 500)],
)
def test_only_requests_that_are_safe_to_repeat_are_retried(
    call: Any, method: str, path: str, status: int, service: Any
) -> None:
    assert call(url_of(service, path), method, b"body" if method == "POST" else None, 1, Pacer()) == status
    assert {*service.seen[path]} == {b"body" if method == "POST" else b""}


@pytest.mark.parametrize("call", [Call.httpx, Call.requests])
def test_a_body_that_is_read_only_once_is_not_sent_again(call: Any, service: Any) -> None:
    assert call(url_of(service, "/429,200"), "POST", iter([b"bo", b"dy"]), 1, Pacer()) == 429


@pytest.mark.parametrize("call", CLIENTS)
def test_clients_with_one_pacer_share_what_they_learn(call: Any, service: Any) -> None:
    pacer = Pacer(timeout=5)
    assert Call.httpx(url_of(service, "/429!"), "GET", None, 0, pacer) == 429
    with pytest.raises(RateLimitExceeded, match="retry after 3"):
        call(url_of(service, "/200"), "GET", None, 0, pacer)
    assert "/200" not in service.seen


@pytest.mark.parametrize("call", CLIENTS)
def test_a_request_that_fails_holds_no_others(call: Any) -> None:
    pacer = Pacer(timeout=5)
    for _ in range(3):
        with pytest.raises((httpx.ConnectError, requests.ConnectionError, aiohttp.ClientError)):
            call("http://127.0.0.1:9", "GET", None, 0, pacer)


def test_hosts_are_paced_apart_and_keys_can_be_chosen() -> None:
    def respond(request: httpx.Request) -> httpx.Response:
        return httpx.Response(429 if request.url.host == "a" else 200, headers={"Retry-After": "3600"})

    pacer = Pacer(timeout=1)
    with httpx.Client(transport=PacedTransport(httpx.MockTransport(respond), pacer)) as client:
        assert [client.get(f"http://{host}/").status_code for host in "abbb"] == [429, 200, 200, 200]
        with pytest.raises(RateLimitExceeded):
            client.get("http://a/")
    one_key = PacedTransport(httpx.MockTransport(respond), pacer, key=lambda request: "a")
    with httpx.Client(transport=one_key) as client, pytest.raises(RateLimitExceeded):
        client.get("http://b/")


@pytest.mark.parametrize("retries", [-1, 1.5, True])
@pytest.mark.parametrize("adapter", [PacedTransport, AsyncPacedTransport, PacedAdapter, PacedMiddleware])
def test_invalid_retries_are_refused(adapter: Any, retries: Any) -> None:
    with pytest.raises(InputError, match="retries must be a whole number >= 0, got"):
        adapter(retries=retries)


@pytest.mark.parametrize("adapter", [PacedTransport, AsyncPacedTransport, PacedAdapter, PacedMiddleware])
def test_adapters_refuse_invalid_arguments(adapter: Any) -> None:
    with pytest.raises(InputError, match=r"pacer must be a Pacer, got 5: create it with Pacer\(\)"):
        adapter(pacer=5)
    with pytest.raises(InputError, match="key must be a function of the request that returns text, got 'host'"):
        adapter(key="host")


def test_a_transport_must_be_of_the_same_kind() -> None:
    with pytest.raises(InputError, match=r"transport must have the method handle_request, got <httpx.AsyncHTTPTransp"):
        PacedTransport(httpx.AsyncHTTPTransport())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="transport must have the method handle_async_request, got 5: pass one of"):
        AsyncPacedTransport(5)  # type: ignore[arg-type]
