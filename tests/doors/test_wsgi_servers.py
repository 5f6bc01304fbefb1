"""The WSGI middleware under gunicorn, waitress and wsgiref: bodies, peers, threads and processes."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any
from wsgiref.simple_server import WSGIRequestHandler, make_server
from wsgiref.validate import validator

import pytest
import wsgi_door
from door_conformance import FILE
from http_servers import Server, started

from ratelab import MemoryLimiter, create
from ratelab.wsgi import RateLimitMiddleware

if TYPE_CHECKING:
    from ratelab.stores.valkey.server import ValkeyServer

slow = pytest.mark.slow
unix = pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")

APP = "limited_wsgi:app"
TCP: Mapping[str, list[str]] = {
    "sync": ["-m", "gunicorn", "-b", "127.0.0.1:{port}", APP],
    "gthread": ["-m", "gunicorn", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:{port}", APP],
    "waitress": ["-m", "waitress", "--listen", "127.0.0.1:{port}", APP],
}
"""By server: the arguments of Python that start it on a port."""

UNIX: Mapping[str, list[str]] = {
    "gthread": ["-m", "gunicorn", "-k", "gthread", "-b", "unix:{path}", APP],
    "waitress": ["-m", "waitress", "--unix-socket", "{path}", APP],
}
"""By server: the arguments of Python that start it on a Unix socket."""

KEEP_FORWARDED = "--no-clear-untrusted-proxy-headers"


# --- bodies


def check_bodies(server: Server) -> None:
    """Check the responses to requests of one client with a limit of five."""
    assert [server.status("/remaining") for _ in range(3)] == [200, 200, 429]
    for path, body in (("/stream", b"onetwo"), ("/file", FILE)):
        reply = server.get(path)
        assert (reply.status, reply.body, len(reply.of("ratelimit"))) == (200, body, 1)
    assert [server.get(path, method="HEAD").body for path in ("/ping", "/unknown")] == [b"", b""]
    assert server.status("/fail") == 500
    denied = server.get("/ping")
    assert (denied.status, denied.of("content-type")) == (429, ["application/problem+json"])
    head = server.get("/ping", method="HEAD")
    assert (head.status, head.body, head.of("content-length")) == (429, b"", [str(len(denied.body))])


@slow
@unix
@pytest.mark.parametrize("name", TCP)
def test_bodies_failures_and_denials_arrive(name: str, tmp_path: Path) -> None:
    with started(TCP[name], tmp_path) as server:
        check_bodies(server)
        assert server.admitted() == 0  # the local peer stays one client


class QuietHandler(WSGIRequestHandler):
    """A handler without an access log."""

    def log_message(self, *arguments: Any) -> None:
        """Log nothing."""


@pytest.fixture
def wsgiref_server(tmp_path: Path) -> Iterator[Server]:
    """Run the server of the standard library, in a thread, between two checks of PEP 3333."""
    app = validator(RateLimitMiddleware(validator(wsgi_door.site), MemoryLimiter(create("gcra", "5/h"))))
    with make_server("127.0.0.1", 0, app, handler_class=QuietHandler) as server:
        server.set_app(app)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield Server(server.server_port, tmp_path / "output")
        server.shutdown()
        thread.join()


def test_the_server_of_the_standard_library_serves_it(wsgiref_server: Server) -> None:
    assert wsgiref_server.get("/ping").of("ratelimit") == ['"gcra";r=4;t=720']
    assert wsgiref_server.get("/stream").body == b"onetwo"
    assert wsgiref_server.get("/ping", method="HEAD").body == b""
    assert [wsgiref_server.status("/ping") for _ in range(3)] == [200, 200, 429]


# --- peers


@slow
def test_a_server_that_replaces_the_peer_is_reported_once(tmp_path: Path) -> None:
    proxy = ("--trusted-proxy", "127.0.0.1", "--trusted-proxy-headers", "x-forwarded-for")
    with started(TCP["waitress"], tmp_path, proxy) as server:
        assert (server.admitted(), server.warnings()) == (20, 1)


@slow
@unix
@pytest.mark.parametrize(("name", "options"), [("gthread", ()), ("waitress", (KEEP_FORWARDED,))])
def test_clients_behind_a_trusted_proxy_have_their_own_quotas(
    name: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    with started(TCP[name], tmp_path, options, {"TRUSTED": "127.0.0.1"}) as server:
        assert (server.admitted(), server.warnings()) == (20, 0)


@slow
@unix
@pytest.mark.parametrize(("name", "options"), [("gthread", ()), ("waitress", (KEEP_FORWARDED,))])
def test_peers_on_a_unix_socket_are_one_client_unless_trusted(
    name: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    with started(UNIX[name], tmp_path, options) as server:
        assert (server.admitted(), server.warnings()) == (5, 0)
    (tmp_path / "trusted").mkdir()
    with started(UNIX[name], tmp_path / "trusted", options, {"TRUSTED": "unix"}) as server:
        assert (server.admitted(), server.warnings()) == (20, 0)


# --- threads and processes


def send_all(server: Server, requests: int) -> Counter[int]:
    """Send requests from eight threads; count the statuses."""
    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(lambda _: server.status("/ping"), range(requests)))


@slow
@unix
@pytest.mark.parametrize("name", ["gthread", "waitress"])
def test_threads_of_a_server_share_one_quota_exactly(name: str, tmp_path: Path) -> None:
    with started([*TCP[name][:-1], "limited_wsgi:limit"], tmp_path, environment={"RATE": "100/h"}) as server:
        assert send_all(server, 160) == {200: 99, 429: 61}  # one was the request that found the server ready


@slow
@unix
@pytest.mark.parametrize("name", ["sync", "gthread"])
def test_processes_forked_after_the_limit_was_made_share_a_quota_in_a_store(
    name: str, tmp_path: Path, store: ValkeyServer
) -> None:
    environment = {"STORE": store.url, "RATE": "100/h", "RATELAB_KEY_SECRET": "a secret"}
    with started(TCP[name], tmp_path, ("--workers", "3", "--preload"), environment) as server:
        assert send_all(server, 160) == {200: 100, 429: 60}


@slow
@unix
def test_a_reload_keeps_the_quota_in_a_store(tmp_path: Path, store: ValkeyServer) -> None:
    environment = {"STORE": store.url, "RATELAB_KEY_SECRET": "a secret"}
    with started(TCP["gthread"], tmp_path, environment=environment) as server:
        before = [server.status("/ping") for _ in range(3)]
        os.kill(server.pid, signal.SIGHUP)
        server.wait_for_output("Worker exiting", 1)
        after = [server.status("/ping") for _ in range(3)]
    assert (before, after) == ([200] * 3, [200, 200, 429])


@slow
@unix
def test_each_process_has_its_own_quota_without_a_store(tmp_path: Path) -> None:
    arguments = [*TCP["sync"][:-1], "limited_wsgi:limit"]
    with started(arguments, tmp_path, ("--workers", "2", "--preload")) as server:
        # One process may answer all of these, or few, and the request that found the server ready was one of another.
        assert 4 <= send_all(server, 60)[200] <= 9
        assert "each process of the server has its own quota in memory" in server.output.read_text(encoding="utf-8")
