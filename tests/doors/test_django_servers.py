"""The Django middleware and decorator under gunicorn and uvicorn: bodies, peers, and processes with a store."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from door_conformance import FILE
from http_servers import Server, started

if TYPE_CHECKING:
    from ratelab.stores.valkey.server import ValkeyServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")]

SERVERS: Mapping[str, list[str]] = {
    "gunicorn": ["-m", "gunicorn", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:{port}", "limited_django:wsgi"],
    "uvicorn": ["-m", "uvicorn", "--no-proxy-headers", "--port", "{port}", "limited_django:asgi"],
}
"""By server: the arguments of Python that start it on a port."""


@pytest.fixture(params=SERVERS)
def command(request: pytest.FixtureRequest) -> list[str]:
    return SERVERS[request.param]


def count_statuses(server: Server, path: str, requests: int) -> Counter[int]:
    """Send requests from eight threads; count the statuses."""
    with ThreadPoolExecutor(8) as pool:
        return Counter(pool.map(lambda _: server.status(path), range(requests)))


def test_bodies_failures_and_denials_arrive(command: list[str], tmp_path: Path) -> None:
    with started(command, tmp_path, environment={"RATE": "5/h"}) as server:
        for path in ("/search", "/lookup"):
            found = [server.get(path) for _ in range(3)][-1 if path == "/search" else 0]
            assert len(found.of("ratelimit")) == 1
        assert server.get("/file").body == FILE
        denied = server.get("/stream")
        assert (denied.status, denied.of("content-type")) == (429, ["application/problem+json"])
        head = server.get("/stream", method="HEAD")
        assert (head.status, head.body, head.of("content-length")) == (429, b"", [str(len(denied.body))])
        assert server.status("/healthz") == 200
        assert server.admitted() == 0  # the local peer stays one client


def test_clients_behind_a_trusted_proxy_have_their_own_quotas(command: list[str], tmp_path: Path) -> None:
    with started(command, tmp_path, environment={"TRUSTED": "127.0.0.1"}) as server:
        assert (server.admitted(), server.warnings()) == (20, 0)


def test_processes_of_a_project_share_the_quotas_in_a_store(
    command: list[str], tmp_path: Path, store: ValkeyServer
) -> None:
    environment = {"STORE": store.url, "RATE": "100/h"}
    with started(command, tmp_path, ("--workers", "2"), environment) as server:
        assert [server.status(path) for path in ["/search", "/lookup"] * 3] == [200] * 4 + [429] * 2
        assert count_statuses(server, "/ping", 150) == {200: 96, 429: 54}
    (tmp_path / "again").mkdir()
    with started(command, tmp_path / "again", (), environment) as server:  # as after a reload
        assert {server.status(path) for path in ("/ping", "/search")} == {429}
