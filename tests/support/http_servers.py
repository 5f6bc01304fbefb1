"""Servers of HTTP that a test starts, on a port or on a Unix socket, and requests to them."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from importlib.util import find_spec
from pathlib import Path

import pytest
from door_conformance import Reply
from valkey_servers import free_port

SUPPORT = Path(__file__).parent
STARTUP_TIMEOUT_S = 60

FORGED = [f"203.0.113.{number}" for number in range(20)]


class UnixConnection(HTTPConnection):
    """A connection to a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=60)
        self.path = path

    def connect(self) -> None:
        """Connect to the socket."""
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(60)
        self.sock.connect(self.path)


class Server:
    """A running server, at a port or at the path of a Unix socket."""

    def __init__(self, address: int | str, output: Path, pid: int = 0) -> None:
        self.address, self.output, self.pid = address, output, pid

    def status(self, path: str = "/", forwarded_for: str | None = None) -> int:
        """Send a request on a new connection; return the status of the response."""
        return self.get(path, {"X-Forwarded-For": forwarded_for} if forwarded_for else {}).status

    def get(self, path: str = "/", headers: Mapping[str, str] | None = None, method: str = "GET") -> Reply:
        """Send a request on a new connection; return the response."""
        if isinstance(self.address, str):
            connection: HTTPConnection = UnixConnection(self.address)
        else:
            connection = HTTPConnection("127.0.0.1", self.address, timeout=60)
        with closing(connection):
            connection.request(method, path, headers={**(headers or {})})
            response = connection.getresponse()
            fields = [(name.lower(), value) for name, value in response.getheaders()]
            return Reply(response.status, fields, response.read())

    def admitted(self) -> int:
        """Return how many of the requests with made-up addresses are admitted."""
        return [self.status(forwarded_for=address) for address in FORGED].count(200)

    def wait_for_output(self, text: str, times: int) -> None:
        """Wait until the server has printed a text this often."""
        deadline = time.monotonic() + STARTUP_TIMEOUT_S
        while self.output.read_text(encoding="utf-8").count(text) < times:
            assert time.monotonic() < deadline, self.output.read_text(encoding="utf-8")
            time.sleep(0.05)

    def warnings(self) -> int:
        """Return the number of warnings that name the remedies for servers that replace the peer."""
        return self.output.read_text(encoding="utf-8").count("--forwarded-allow-ips ''")


@contextmanager
def started(
    arguments: Sequence[str],
    folder: Path,
    options: Sequence[str] = (),
    environment: Mapping[str, str] | None = None,
) -> Iterator[Server]:
    """Start a server for the block, once it answers; skip the test without its packages."""
    for name in (arguments[1], *(["uvicorn_worker"] if "uvicorn_worker.UvicornWorker" in arguments else [])):
        if find_spec(name) is None:
            pytest.skip(f"needs {name}")
    port = free_port()
    path = str(folder / "s")
    command = [part.format(port=port, path=path) for part in (*arguments[:-1], *options, arguments[-1])]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path]), **(environment or {})}
    server = Server(path if "{path}" in "".join(arguments) else port, folder / "output")
    with server.output.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, *command], stdout=output, stderr=output, cwd=folder, env=variables, start_new_session=True
        )
        server.pid = process.pid
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
