"""A `ratelab serve` of one's own: started on free ports, talked to down to the byte, stopped, and listened to."""

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
LONGEST = 120
"""Seconds after which a server that nobody stopped is killed."""

LONGEST_KEPT = 15
"""Seconds after which a connection counts as kept for ever: three times what it should be."""

STORE_DEADLINE = "10s"
"""The deadline of decisions in a store, so ample that a busy machine does not exceed it."""

PATIENCE = 60
"""Seconds in which a server must have come to wait for a client that reads no answer, however slow the machine."""

NONSENSE = b"NONSENSE\r\n\r\n"


class Ended(NamedTuple):
    """How a server ended, and all it said after its banner."""

    code: int
    stdout: str
    stderr: str


class Answer(NamedTuple):
    status: int
    fields: dict[str, str]
    """By name, in lower case."""
    body: bytes


class Served:
    """A server that runs; `banner` is what it said at first, by label."""

    def __init__(self, process: subprocess.Popen[str], stderr: IO[str], metrics: bool) -> None:
        self.process = process
        self._stderr = stderr
        self.banner: dict[str, str] = {}
        assert process.stdout is not None
        last = "metrics" if metrics else "stop"
        while last not in self.banner:
            label, _, text = process.stdout.readline().partition(" ")
            assert label, f"the server ended: {self.stop()}"
            self.banner[label] = text.strip()
        self.host, self.port = _address(self.banner["serving"])
        self.metrics_port = _address(self.banner["metrics"])[1] if metrics else 0
        assert self.get("/healthz").status == 200  # from here on, signals are heard, too

    def get(self, path: str = "/ping", method: str = "GET", **fields: str) -> Answer:
        """Ask for a page on a connection of its own; `X_API_Key="a"` is a header."""
        return ask(self.host, self.port, path, method, **fields)

    def get_metrics(self, path: str = "/metrics") -> Answer:
        """Ask for a page on the port of the metrics."""
        return ask("127.0.0.1", self.metrics_port, path)

    def statuses(self, count: int, **fields: str) -> list[int]:
        """Ask for `/ping` so many times, one after the other."""
        return [self.get(**fields).status for _ in range(count)]

    def figures(self) -> dict[str, float]:
        """Read `/metrics`: requests by outcome, errors by kind, and the rest by name without `ratelab_`."""
        text = self.get_metrics().body.decode()
        samples = [sample for family in text_string_to_metric_families(text) for sample in family.samples]
        return {next(iter([*s.labels.values()][-1:]), s.name.removeprefix("ratelab_")): s.value for s in samples}

    def connect(self) -> socket.socket:
        """Open a connection that is waited for no longer than 30 s."""
        return socket.create_connection((self.host, self.port), timeout=30)

    def listens(self) -> bool:
        """Say whether a connection can still be opened."""
        try:
            self.connect().close()
        except ConnectionError:
            return False
        return True

    def tell(self, *pieces: bytes) -> bytes:
        """Send pieces on a connection, and return what comes back until the server closes it."""
        with self.connect() as connection:
            for piece in pieces:
                connection.sendall(piece)
            return until_closed(connection)

    def resident(self) -> dict[str, int]:
        """Return the kilobytes of memory that the server has and has had at most, where Linux tells."""
        status = Path(f"/proc/{self.process.pid}/status")
        text = status.read_text() if status.exists() else ""
        return {
            name: int(kilobytes) for name, kilobytes in re.findall(r"^Vm(RSS|HWM):\s+(\d+) kB$", text, re.MULTILINE)
        }

    def descriptors(self) -> int:
        """Count the open files and sockets of the server, where Linux tells; else 0."""
        folder = Path(f"/proc/{self.process.pid}/fd")
        return len([*folder.iterdir()]) if folder.exists() else 0

    def stop(self, number: int = signal.SIGTERM) -> Ended:
        """Send a signal, and wait until the server has ended."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Ended:
        """Wait until the server has ended."""
        stdout, _ = self.process.communicate(timeout=30)
        self._stderr.seek(0)
        return Ended(self.process.returncode, stdout, self._stderr.read())


@contextmanager
def serving(*options: object, first: str = "", **environment: str) -> Iterator[Served]:
    """Run `ratelab serve` on free ports, with `first`, a mutant's code, run before it; whatever happens, end it."""
    start = ["-c", f"{first}\nfrom ratelab.cli import main\nmain()"] if first else ["-m", "ratelab"]
    port = [] if "RATELAB_PORT" in environment else ["--port", "0"]
    command = [sys.executable, *start, "serve", *port, *map(str, options)]
    inherited = {name: text for name, text in os.environ.items() if not name.startswith("RATELAB_")}
    env = {name: text for name, text in inherited.items() if name not in PLAIN} | {"TERM": "dumb"} | environment
    if "--store" in options or "RATELAB_STORE" in environment:
        env.setdefault("RATELAB_STORE_DEADLINE", STORE_DEADLINE)
    metrics = "--metrics-port" in options or "RATELAB_METRICS_PORT" in environment
    with (
        TemporaryFile("w+") as stderr,
        subprocess.Popen(command, env=env, stdout=subprocess.PIPE, stderr=stderr, text=True) as process,
    ):
        watchdog = Timer(LONGEST, process.kill)
        watchdog.daemon = True
        watchdog.start()
        try:
            yield Served(process, stderr, metrics)
        finally:
            watchdog.cancel()
            process.kill()


def ask(host: str, port: int, path: str, method: str = "GET", **fields: str) -> Answer:
    """Ask a server for a page."""
    with closing(HTTPConnection(host, port, timeout=30)) as connection:
        connection.request(method, path, headers={name.replace("_", "-"): text for name, text in fields.items()})
        answer = connection.getresponse()
        return Answer(answer.status, {name.lower(): text for name, text in answer.getheaders()}, answer.read())


def statuses_in(answers: bytes) -> list[int]:
    """Return the statuses of all answers that came on a connection."""
    return [*map(int, re.findall(rb"HTTP/1\.1 (\d{3}) ", answers))]


def until_closed(connection: socket.socket, seconds: float = 30) -> bytes:
    """Read until the other side closes or resets the connection, or has taken too long."""
    received, deadline = bytearray(), time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        connection.settimeout(left)
        try:
            piece = connection.recv(65536)
        except ConnectionError:
            return bytes(received)
        if not piece:
            return bytes(received)
        received += piece
    raise TimeoutError(f"the connection is still open after {seconds} s; it said {bytes(received)!r}")


async def told_at_once(server: Served, requests: bytes) -> bytes:
    """Send more than fits on the way while what comes back is read; return that."""
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(requests)
    answers = await reader.read()
    writer.close()
    return answers


async def seconds_kept(server: Served, at_once: bytes, drop_by_drop: bytes) -> float:
    """Measure for how long a slow client is borne with; after a refusal, for how long it is listened to."""
    began = time.monotonic()
    reader, writer = await asyncio.open_connection(server.host, server.port)
    writer.write(at_once)

    async def drip() -> None:
        for byte in drop_by_drop:
            await asyncio.sleep(0.25)
            writer.write(bytes([byte]))

    dripping = asyncio.ensure_future(drip())
    try:
        async with asyncio.timeout(LONGEST_KEPT):
            await (writer.wait_closed() if at_once == NONSENSE else reader.read())
    except ConnectionError:
        pass
    except TimeoutError:
        return inf
    finally:
        dripping.cancel()
        writer.transport.abort()
    return time.monotonic() - began


async def seconds_unread(server: Served) -> float:
    """Measure for how long a client is kept whose requests are taken no longer, since it reads no answer."""
    request = GET.replace(b"\r\n\r\n", b"\r\nX: %s\r\n\r\n" % (b"a" * 1000))  # so long that few are parsed at once
    loop = asyncio.get_running_loop()
    sent = began = loop.time()
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        await loop.sock_connect(client, (server.host, server.port))
        try:
            async with asyncio.timeout(LONGEST_KEPT) as limit:
                while sent < began + PATIENCE:
                    await loop.sock_sendall(client, request)
                    sent = loop.time()
                    limit.reschedule(sent + LONGEST_KEPT)
                raise AssertionError(f"the server still answers after {PATIENCE} s")
        except ConnectionError:
            return loop.time() - sent
        except TimeoutError:
            return inf


def until(true: Callable[[], object], seconds: float = 60) -> None:
    """Wait until something is so; fail if it has taken too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"it is not so after {seconds} s"
        Event().wait(0.02)


def gone(process: int) -> bool:
    """Check whether a process has ended, even if its parent has not waited for it."""
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return True
    try:
        status = Path(f"/proc/{process}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):  # it ended just now, or this system has no /proc
        return Path("/proc/self").exists()
    return status.rpartition(")")[2].split()[0] == "Z"


def contents(path: Path) -> bytes:
    """Read a file of /proc; it is empty for a process that has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def _address(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    assert parts.hostname, url
    assert parts.port, url
    return parts.hostname, parts.port
