"""The middleware under uvicorn, gunicorn, hypercorn and granian: peers, mount points, and Trio."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")]

SUPPORT = Path(__file__).parents[1] / "support"
APP = "limited_service:app"
STARTUP_TIMEOUT_S = 60

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

FORGED = [f"203.0.113.{number}" for number in range(20)]


class UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=30)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(30)
        self.sock.connect(self.path)


class Server:
    """A running server, at a port or at the path of a Unix socket."""

    def __init__(self, address: int | str, output: Path) -> None:
        self.address, self.output = address, output

    def status(self, path: str = "/", forwarded_for: str | None = None) -> int:
        """Send a request on a new connection; return the status of the response."""
        if isinstance(self.address, str):
            connection: HTTPConnection = UnixConnection(self.address)
        else:
            connection = HTTPConnection("127.0.0.1", self.address, timeout=30)
        with closing(connection):
            connection.request("GET", path, headers={"X-Forwarded-For": forwarded_for} if forwarded_for else {})
            return connection.getresponse().status

    def admitted(self) -> int:
        """Return how many of the requests with made-up addresses are admitted."""
        return [self.status(forwarded_for=address) for address in FORGED].count(200)

    def warnings(self) -> int:
        """Return the number of warnings that name the remedies for servers that replace the peer."""
        return self.output.read_text(encoding="utf-8").count("--forwarded-allow-ips ''")


@contextmanager
def started(
    arguments: list[str], folder: Path, options: tuple[str, ...] = (), environment: Mapping[str, str] | None = None
) -> Iterator[Server]:
    """Start a server for the block, once it answers."""
    module = arguments[1]
    for name in (module, "uvicorn_worker" if module == "gunicorn" else module):
        if find_spec(name) is None:
            pytest.skip(f"needs {name}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    path = str(folder / "s")
    command = [part.format(port=port, path=path) for part in (*arguments[:-1], *options, arguments[-1])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), **(environment or {})}
    server = Server(path if "{path}" in "".join(arguments) else port, folder / "output")
    with server.output.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=output, stderr=output, cwd=folder, env=variables, start_new_session=True
        )
    try:
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while True:
            try:
                assert server.status("/healthz") == 200
                break
            except OSError:
                assert process.poll() is None, server.output.read_text(encoding="utf-8")
                assert time.monotonic() < deadline, server.output.read_text(encoding="utf-8")
                time.sleep(0.05)
        yield server
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()


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
