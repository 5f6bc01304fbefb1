"""A `ratelab serve` process on free ports: requests down to the byte, metrics, signals and output."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.client import HTTPConnection
from math import inf
from pathlib import Path
from tempfile import TemporaryFile
from threading import Event, Timer
from typing import IO, NamedTuple
from urllib.parse import urlsplit

from cli_runner import PLAIN
from prometheus_client.parser import text_string_to_metric_families

GET = b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n"
MALFORMED = b"NONSENSE\r\n\r\n"

MAX_SERVER_LIFE_S = 1200
"""Seconds after which a server that was not stopped is killed."""

MAX_CONNECTION_S = 15
"""Seconds after which a connection counts as kept indefinitely: three times the server's timeout."""

STORE_DEADLINE = "10s"
"""Deadline of decisions in a store, so long that a busy machine does not exceed it."""

FILL_TIMEOUT_S = 60
"""Seconds in which the buffers of a client that does not read must be full, however slow the machine."""


class ExitResult(NamedTuple):
    """A server's exit status, and its output after the banner."""

    code: int
    stdout: str
    stderr: str


class HttpResponse(NamedTuple):
    """A response of a live server."""

    status: int
    headers: dict[str, str]
    """By name, in lower case."""
    body: bytes


class ServeProcess:
    """A running server; `banner` holds the lines that it printed at the start, by label."""

    def __init__(self, process: subprocess.Popen[str], stderr: IO[str]) -> None:
        self.process = process
        self._stderr = stderr
        self.banner: dict[str, str] = {}
        assert process.stdout is not None
        while "stop" not in self.banner:
            label, _, text = process.stdout.readline().partition(" ")
            assert label, f"the server exited: {self.stop()}"
            self.banner[label] = text.strip()
        self.host, self.port = _parse_address(self.banner["serving"])
        self.metrics_port = _parse_address(self.banner["metrics"])[1] if "metrics" in self.banner else 0
        assert self.get("/healthz").status == 200  # from now on, it also handles signals

    def get(self, path: str = "/ping", method: str = "GET", **headers: str) -> HttpResponse:
        """Send a request on a new connection; `X_API_Key="a"` is a header."""
        return send_request(self.host, self.port, path, method, **headers)

    def get_statuses(self, count: int, **headers: str) -> list[int]:
        """Send `count` requests for `/ping`, one after the other; return their statuses."""
        return [self.get(**headers).status for _ in range(count)]

    def get_metrics(self, path: str = "/metrics") -> HttpResponse:
        """Send a request to the port of the metrics."""
        return send_request("127.0.0.1", self.metrics_port, path)

    def read_metrics(self) -> dict[str, float]:
        """Parse `/metrics`: requests by outcome, errors by kind, and the rest by name without `ratelab_`."""
        text = self.get_metrics().body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {next(iter([*s.labels.values()][-1:]), s.name.removeprefix("ratelab_")): s.value for s in samples}

    def connect(self) -> socket.socket:
        """Open a connection with a timeout of 60 s."""
        return socket.create_connection((self.host, self.port), timeout=60)

    def send(self, *pieces: bytes) -> bytes:
        """Send pieces on a new connection; return all responses until the server closes it."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return read_until_closed(connection)

    def accepts_connections(self) -> bool:
        """Return whether a connection can still be opened."""
        try:
            self.connect().close()
        except ConnectionError:
            return False
        return True

    def read_memory(self) -> dict[str, int]:
        """Return the server's current (`RSS`) and peak (`HWM`) memory in kilobytes; empty without /proc."""
        status = Path(f"/proc/{self.process.pid}/status")
        text = status.read_text() if status.exists() else ""
        return {
            name: int(kilobytes) for name, kilobytes in re.findall(r"^Vm(RSS|HWM):\s+(\d+) kB$", text, re.MULTILINE)
        }

    def count_descriptors(self) -> int:
        """Return the number of the server's open files and sockets; 0 without /proc."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        return len([*folder.iterdir()]) if folder.exists() else 0

    def read_stderr(self) -> str:
        """Return the beginning of the server's standard error so far."""
        return os.pread(self._stderr.fileno(), 10_000, 0).decode()

    def stop(self, number: int = signal.SIGTERM) -> ExitResult:
        """Send a signal, and wait until the server has exited."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> ExitResult:
        """Wait until the server has exited."""
        stdout, _ = self.process.communicate(timeout=120)
        self._stderr.seek(0)
        return ExitResult(self.process.returncode, stdout, self._stderr.read())


@contextmanager
def run_server(*options: object, first: str = "", **environment: str) -> Iterator[ServeProcess]:
    """Run `ratelab serve` on free ports, and kill it after the block; `first` is code to run before, as of a mutant."""
    start = ["-c", f"{first}\nfrom ratelab.cli import main\nmain()"] if first else ["-m", "ratelab"]
    port = [] if "RATELAB_PORT" in environment else ["--port", "0"]
    command = [sys.executable, *start, "serve", *port, *map(str, options)]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("RATELAB_")}
    env = {name: text for name, text in inherited.items() if name not in PLAIN} | {"TERM": "dumb"} | environment
    if "--store" in options or "RATELAB_STORE" in environment:
        env.setdefault("RATELAB_STORE_DEADLINE", STORE_DEADLINE)
    with (
        TemporaryFile("w+") as stderr,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        watchdog = Timer(MAX_SERVER_LIFE_S, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield ServeProcess(process, stderr)
        finally:
            watchdog.cancel()
            process.kill()


# --- requests


def send_request(host: str, port: int, path: str, method: str = "GET", **headers: str) -> HttpResponse:
    """Send a request on a new connection; `X_API_Key="a"` is a header."""
    with closing(HTTPConnection(host, port, timeout=60)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in headers.items()})
        response = connection.getresponse()
        return HttpResponse(
            response.status, {name.lower(): text for name, text in response.getheaders()}, response.read()
        )


def statuses_in(responses: bytes) -> list[int]:
    """Return the statuses of all responses that came on a connection."""
    return [*map(int, re.findall(rb"HTTP/1\.1 (\d{3}) ", responses))]


def read_until_closed(connection: socket.socket, timeout: float = 60) -> bytes:
    """Read until the other side closes or resets the connection; raise `TimeoutError` if it takes longer."""
    received, deadline = bytearray(), time.monotonic() + timeout
    while (rest := deadline - time.monotonic()) > 0:
        connection.settimeout(rest)
        try:
            piece = connection.recv(65536)
        except ConnectionError:
            return bytes(received)
        if not piece:
            return bytes(received)
        received += piece
    raise TimeoutError(f"the connection is still open after {timeout} s; received {bytes(received)!r}")


async def send_while_reading(server: ServeProcess, requests: bytes) -> bytes:
    """Send more than the buffers hold while reading the responses; return these."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(requests)
    responses = await reader.read()
    writer.close()
    return responses


# --- slow clients


async def time_slow_sender(server: ServeProcess, at_once: bytes, byte_by_byte: bytes) -> float:
    """Return the seconds until the server drops a client that sends slowly; infinity after `MAX_CONNECTION_S`.

    After a malformed request, measure until the server stops reading instead.
    """
    start = time.monotonic()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(at_once)

    async def drip() -> None:
        for byte in byte_by_byte:
            await asyncio.sleep(0.25)
            writer.write(bytes([byte]))

    dripping = asyncio.ensure_future(drip())
    try:
        async with asyncio.timeout(MAX_CONNECTION_S):
            await (writer.wait_closed() if at_once == MALFORMED else reader.read())
    except ConnectionError:
        pass
    except TimeoutError:
        return inf
    finally:
        dripping.cancel()
        writer.transport.abort()
    return time.monotonic() - start


async def time_nonreading_client(server: ServeProcess) -> float:
    """Return the seconds until the server drops a client that reads no response.

    It is infinite if the server does not within `MAX_CONNECTION_S` after the buffers of the system are full.
    """
    request = GET.replace(b"\r\n\r\n", b"\r\nX: %s\r\n\r\n" % (b"a" * 1000))  # so long that few are parsed at once
    loop = asyncio.get_running_loop()
    sent = start = loop.time()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (server.host, server.port))
        try:
            async with asyncio.timeout(MAX_CONNECTION_S) as limit:
                while sent < start + FILL_TIMEOUT_S:
                    await loop.sock_sendall(client, request)
                    sent = loop.time()
                    limit.reschedule(sent + MAX_CONNECTION_S)
                raise AssertionError(f"the server still responds after {FILL_TIMEOUT_S} s")
        except ConnectionError:
            return loop.time() - start
        except TimeoutError:
            return inf


# --- processes


def wait_until(condition: Callable[[], object], timeout: float = 60) -> None:
    """Wait until `condition` returns a true value; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"the condition is false after {timeout} s"
        Event().wait(0.02)


def has_exited(pid: int) -> bool:
    """Return whether a process has exited, even if its parent has not waited for it."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it exited just now, or this system has no /proc
        return Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] == "Z"


def read_proc_file(path: Path) -> bytes:
    """Read a file of /proc; return nothing for a process that has exited."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _parse_address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname, url
    assert parts.port, url
    return parts.hostname, parts.port
