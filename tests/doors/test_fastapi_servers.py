"""Limits of FastAPI under uvicorn, hypercorn and granian: responses, WebSockets and processes."""

import socket
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from door_conformance import FILE
from http_servers import Server, started
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, Event, RejectConnection, RejectData, Request, TextMessage

from ratelab.stores.valkey.server import ValkeyServer

pytestmark = pytest.mark.slow

APP = "limited_fastapi:app"
SERVERS: Mapping[str, list[str]] = {
    "uvicorn": ["-m", "uvicorn", "--no-proxy-headers", "--ws", "wsproto", "--port", "{port}", APP],
    "hypercorn": ["-m", "hypercorn", "-b", "127.0.0.1:{port}", APP],
    "granian": ["-m", "granian", "--interface", "asgi", "--port", "{port}", APP],
}
"""By server: the arguments of Python that start it on a port."""


class Client:
    """A client of a WebSocket that waits for each event."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._protocol = WSConnection(ConnectionType.CLIENT)
        self._events: list[Event] = []

    def send(self, event: Event) -> None:
        """Send an event."""
        self._socket.sendall(self._protocol.send(event))

    def next(self) -> Any:
        """Return the next event."""
        while not self._events:
            self._protocol.receive_data(self._socket.recv(65_536) or None)
            self._events += self._protocol.events()
        return self._events.pop(0)

    def echo(self, text: str) -> Any:
        """Send a text, and return the next event."""
        self.send(TextMessage(text))
        return self.next()


@contextmanager
def connected(server: Server) -> Iterator[Client]:
    with closing(socket.create_connection(("127.0.0.1", int(server.address)), 60)) as connection:
        client = Client(connection)
        client.send(Request(host="localhost", target="/ws"))
        yield client


@pytest.mark.parametrize("name", SERVERS)
def test_responses_and_websockets_are_limited(name: str, tmp_path: Path) -> None:
    with started(SERVERS[name], tmp_path) as server:
        check_pages(server)
        check_websockets(server)


def check_pages(server: Server) -> None:
    """Check the responses to requests of one client with a limit of five."""
    for path, body in (("/stream", b"onetwo"), ("/file", FILE), ("/later", b'""')):
        reply = server.get(path, {"X-Forwarded-For": f"198.51.100.{len(body) % 200}"})
        assert (reply.status, reply.body, len(reply.of("ratelimit"))) == (200, body, 1)
    failed = server.get("/fail")
    assert (failed.status, failed.of("ratelimit")) == (500, ['"pages 5/h";r=1;t=2880'])
    assert server.get("/ping", method="HEAD").of("ratelimit") == ['"pages 5/h";r=0;t=3600']
    denied, head = server.get("/ping"), server.get("/ping", method="HEAD")
    assert (denied.status, denied.of("content-type")) == (429, ["application/problem+json"])
    assert (head.status, head.body) == (429, b"")
    assert server.status("/missing") == 404


def check_websockets(server: Server) -> None:
    """Check two connections of one client with limits of two connections and two messages, and then a third one."""
    with connected(server) as client:
        assert isinstance(client.next(), AcceptConnection)
        assert [client.echo(text).data for text in ("a", "b")] == ["a", "b"]
        close = client.echo("c")
        assert isinstance(close, CloseConnection)
        assert (close.code, close.reason) == (1013, "Try again in 1800 s.")
    with connected(server) as client:
        assert isinstance(client.next(), AcceptConnection)
    with connected(server) as client:
        rejected = client.next()
        assert isinstance(rejected, RejectConnection)
        assert rejected.status_code in (403, 429)
        if rejected.status_code == 429:
            fields = dict(rejected.headers)
            assert fields[b"retry-after"] == b"1800"
            body = client.next()
            assert isinstance(body, RejectData)
            assert b"#quota-exceeded" in body.data


def test_processes_share_a_quota_in_a_store(tmp_path: Path, store: ValkeyServer) -> None:
    with ExitStack() as stack:
        environment = {"STORE": store.url, "RATE": "60/h", "RATELAB_KEY_SECRET": "a secret"}
        servers = []
        for number in range(2):
            folder = tmp_path / str(number)
            folder.mkdir()
            servers.append(stack.enter_context(started(SERVERS["uvicorn"], folder, (), environment)))
        with ThreadPoolExecutor(8) as pool:
            statuses = Counter(pool.map(lambda number: servers[number % 2].status("/ping"), range(100)))
        assert statuses == {200: 60, 429: 40}
        assert [refused(server) for server in servers for _ in range(2)] == [False, False, True, True]


def refused(server: Server) -> bool:
    """Return whether the server refuses a connection."""
    with connected(server) as client:
        return isinstance(client.next(), RejectConnection)


def test_workers_of_one_server_share_a_quota_in_a_store(tmp_path: Path, store: ValkeyServer) -> None:
    environment = {"STORE": store.url, "RATE": "60/h", "RATELAB_KEY_SECRET": "a secret"}
    with started(SERVERS["uvicorn"], tmp_path, ("--workers", "2"), environment) as server:
        with ThreadPoolExecutor(8) as pool:
            statuses = Counter(pool.map(lambda _: server.status("/ping"), range(100)))
        assert statuses == {200: 60, 429: 40}
