"""Limits of views of Flask under gunicorn, waitress and the server of Werkzeug."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from door_conformance import FILE
from http_servers import started

if TYPE_CHECKING:
    from ratelab.stores.valkey.server import ValkeyServer

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")]

APP = "limited_flask:app"
SERVERS: Mapping[str, list[str]] = {
    "werkzeug": ["-m", "flask", "--app", APP, "run", "--port", "{port}"],
    "gthread": ["-m", "gunicorn", "-k", "gthread", "--threads", "4", "-b", "127.0.0.1:{port}", APP],
    "waitress": ["-m", "waitress", "--listen", "127.0.0.1:{port}", APP],
}
"""By server: the arguments of Python that start it on a port."""


@pytest.mark.parametrize("name", SERVERS)
def test_views_have_their_quotas_bodies_and_denials(name: str, tmp_path: Path) -> None:
    with started(SERVERS[name], tmp_path) as server:
        assert [server.get("/remaining").body for _ in range(5)] == [b"4", b"3", b"2", b"1", b"0"]
        denied = server.get("/remaining")
        assert (denied.status, denied.of("content-type")) == (429, ["application/problem+json"])
        head = server.get("/remaining", method="HEAD")
        assert (head.status, head.body, head.of("content-length")) == (429, b"", [str(len(denied.body))])
        assert [server.get(path).body for path in ("/stream", "/file")] == [b"onetwo", FILE]
        assert [server.status("/fail") for _ in range(6)] == [500] * 5 + [429]


def test_processes_share_the_quota_of_a_view_in_a_store(tmp_path: Path, store: ValkeyServer) -> None:
    environment = {"STORE": store.url, "RATE": "50/h", "RATELAB_KEY_SECRET": "a secret"}
    with (
        started(SERVERS["gthread"], tmp_path, ("--workers", "2"), environment) as server,
        ThreadPoolExecutor(8) as pool,
    ):
        for path in ("/ping", "/remaining"):
            statuses = pool.map(lambda _, path=path: server.status(path), range(80))
            assert Counter(statuses) == {200: 50, 429: 30}
