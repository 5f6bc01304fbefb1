"""The middleware under uvicorn, gunicorn, hypercorn and granian: peers, mount points, and Trio."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from http_servers import started

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")]

APP = "limited_service:app"

TCP: Mapping[str, list[str]] = {
    "uvicorn": ["-m", "uvicorn", "--port", "{port}", APP],
    "gunicorn": ["-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "127.0.0.1:{port}", APP],
    "hypercorn": ["-m", "hypercorn", "-b", "127.0.0.1:{port}", APP],
    "granian": ["-m", "granian", "--interface", "asgi", "--port", "{port}", APP],
}
"""By server: the arguments of Python that start it on a port."""

UNIX: Mapping[str, list[str]] = {
    "uvicorn": ["-m", "uvicorn", "--uds", "{path}", APP],
    "gunicorn": ["-m", "gunicorn", "-k", "uvicorn_worker.UvicornWorker", "-b", "unix:{path}", APP],
    "hypercorn": ["-m", "hypercorn", "-b", "unix:{path}", APP],
    "granian": ["-m", "granian", "--interface", "asgi", "--uds", "{path}", APP],
}
"""By server: the arguments of Python that start it on a Unix socket."""

# --- peers


@pytest.mark.parametrize("name", ["uvicorn", "gunicorn"])
def test_a_server_that_replaces_the_peer_is_reported_once(name: str, tmp_path: Path) -> None:
    with started(TCP[name], tmp_path) as server:
        assert (server.admitted(), server.warnings()) == (20, 1)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("uvicorn", ("--no-proxy-headers",)),
        ("uvicorn", ("--forwarded-allow-ips", "")),
        ("gunicorn", ("--forwarded-allow-ips", "")),
        ("hypercorn", ()),
        ("granian", ()),
    ],
)
def test_with_the_remedies_a_local_client_cannot_name_itself(
    name: str, options: tuple[str, ...], tmp_path: Path
) -> None:
    with started(TCP[name], tmp_path, options) as server:
        assert (server.admitted(), server.warnings()) == (5, 0)


@pytest.mark.parametrize("name", UNIX)
def test_peers_on_a_unix_socket_are_one_client_unless_trusted(name: str, tmp_path: Path) -> None:
    with started(UNIX[name], tmp_path) as server:
        assert (server.admitted(), server.warnings()) == (5, 0)
    (tmp_path / "trusted").mkdir()
    with started(UNIX[name], tmp_path / "trusted", environment={"TRUSTED": "unix"}) as server:
        assert (server.admitted(), server.warnings()) == (20, 0)


# --- mount points


@pytest.mark.parametrize(
    ("name", "options", "path"),
    [
        ("uvicorn", ("--root-path", "/api"), "/search"),
        ("hypercorn", ("--root-path", "/api"), "/search"),
        ("hypercorn", ("--root-path", "/api"), "/api/search"),
        ("granian", ("--url-path-prefix", "/api"), "/search"),
        ("granian", ("--url-path-prefix", "/api"), "/api/search"),
    ],
)
def test_a_route_has_its_limit_below_a_root_path(
    name: str, options: tuple[str, ...], path: str, tmp_path: Path
) -> None:
    with started(TCP[name], tmp_path, options) as server:
        assert [server.status(path) for _ in range(4)] == [200, 200, 429, 429]
        assert {server.status(path.replace("search", "healthz")) for _ in range(9)} == {200}


# --- event loops


@pytest.mark.parametrize("loop", ["asyncio", "trio"])
def test_hypercorn_delays_requests_on_each_event_loop(loop: str, tmp_path: Path) -> None:
    if loop == "trio":
        pytest.importorskip("trio")
    queue = {"ALGORITHM": "leaky-bucket", "RATE": "10/s"}
    with started(TCP["hypercorn"], tmp_path, ("-k", loop), queue) as server:
        start = time.monotonic()
        assert {server.status() for _ in range(4)} == {200}
        assert time.monotonic() - start >= 0.29
