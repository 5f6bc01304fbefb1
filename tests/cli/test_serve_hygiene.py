"""`ratelab serve` waits for no client for ever, takes no more than it has room for, and ends as it should."""

from __future__ import annotations

import asyncio
import re
import resource
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from math import inf

import pytest
from serve_process import (
    GET,
    LONGEST_KEPT,
    NONSENSE,
    Served,
    seconds_kept,
    seconds_unread,
    serving,
    statuses_in,
    told_at_once,
    until_closed,
)

AMPLE = ("--rate", "1000000/s", "--burst", 1_000_000)
LARGEST = 80_000
"""Kilobytes that a server may have had at most, whatever it has been sent: twice of what it needs."""

SUMMARY = re.compile(r"stopped: [\d,]+ admitted(?: \(\d+ after a wait\))?, 0 denied, \d+ clients? in memory\n")
PURE = "import sys; sys.modules['uvloop'] = None"
UNGUARDED = """
import ratelab.http.server
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
ratelab.http.server.GuardedProtocol = HttpToolsProtocol
"""
RESTARTING = """
from ratelab.http.uvicorn_protocol import GuardedProtocol
receive = GuardedProtocol.data_received
def restart_and_receive(self, data):
    self._waiting_since = self.loop.time()
    receive(self, data)
GuardedProtocol.data_received = restart_and_receive
"""
PATIENT = """
from ratelab.http.uvicorn_protocol import GuardedProtocol, HttpToolsProtocol
GuardedProtocol.pause_writing = HttpToolsProtocol.pause_writing
"""
PATIENT_WITH_ALL = "import ratelab.http.uvicorn_protocol; ratelab.http.uvicorn_protocol.DEADLINE = 60"
UNLIMITED = "import ratelab.http.uvicorn_protocol; ratelab.http.uvicorn_protocol.MAX_HEAD_BYTES = 10**9"

HEAD = b"GET /ping HTTP/1.1\r\nHost: x\r\n"
CLOSING = HEAD + b"Connection: close\r\n"
UPLOAD = b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
SLOW = {
    "idle": (b"", b""),
    "idle after an answer": (GET, b""),
    "dripping head": (HEAD, b"X: " + b"a" * 99),
    "dripping head after an answer": (GET, HEAD + b"a" * 99),
    "dripping blank lines": (b"\r\n", b"\r\n" * 99),
    "dripping body": (UPLOAD, b"a" * 99),
    "dripping after a refusal": (NONSENSE, b"a" * 99),
}
"""What slow clients send at once, and then byte by byte."""

SERVERS = {"uvloop": "", "asyncio": PURE, "unguarded": UNGUARDED, "restarting": RESTARTING, "patient": PATIENT}
WAITS = {
    "unguarded": {*SLOW} - {"idle after an answer", "dripping after a refusal"},
    "restarting": {client for client in SLOW if client.startswith("dripping")},
    "patient": {"reading nothing"},
}
"""The clients that each mutant waits for."""


async def all_kept(servers: dict[str, Served]) -> dict[tuple[str, str], float]:
    """Have all clients at all servers at once."""
    slow = {(name, client): seconds_kept(servers[name], *SLOW[client]) for name in servers for client in SLOW}
    unread = {(name, "reading nothing"): seconds_unread(servers[name]) for name in servers if name != "unguarded"}
    tasks = {**slow, **unread}
    return dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))


@pytest.fixture(scope="module")
def kept() -> Iterator[dict[tuple[str, str], float]]:
    """Yield for how long each server bears with each client; none has anything to say of it."""
    with ExitStack() as running:
        servers = {name: running.enter_context(serving(*AMPLE, first=first)) for name, first in SERVERS.items()}
        yield asyncio.run(all_kept(servers))
        for name, server in servers.items():
            assert name == "unguarded" or server.resident().get("HWM", 0) < LARGEST
            code, _, stderr = server.stop()
            assert (code, SUMMARY.fullmatch(stderr) is not None) == (0, True), stderr


@pytest.mark.slow
@pytest.mark.parametrize("client", [*SLOW, "reading nothing"])
@pytest.mark.parametrize("server", ["uvloop", "asyncio"])
def test_a_slow_client_is_cut_off_after_five_seconds(
    server: str, client: str, kept: dict[tuple[str, str], float]
) -> None:
    shortest = 1 if client == "reading nothing" else 4.9  # whose requests the system accepts for longer than the server
    assert shortest < kept[server, client] < LONGEST_KEPT


@pytest.mark.slow
@pytest.mark.parametrize("mutant", WAITS)
def test_a_server_that_waits_for_ever_is_noticed(mutant: str, kept: dict[tuple[str, str], float]) -> None:
    assert {client for server, client in kept if (server, kept[server, client]) == (mutant, inf)} == WAITS[mutant]


@pytest.fixture(scope="module")
def ample() -> Iterator[Served]:
    """Serve without a limit that a test could reach; the server keeps its size, and has nothing to say."""
    with serving(*AMPLE) as server:
        yield server
        assert server.resident().get("HWM", 0) < LARGEST
        code, _, stderr = server.stop()
        assert (code, SUMMARY.fullmatch(stderr) is not None) == (0, True), stderr


LARGE = {
    "a field of a megabyte": CLOSING + b"X: " + b"a" * 10**6 + b"\r\n\r\n",
    "a field of 100 kB": CLOSING + b"X: " + b"a" * 10**5 + b"\r\n\r\n",
    "20,000 fields": CLOSING + b"X: y\r\n" * 20_000 + b"\r\n",
    "a megabyte of fields": CLOSING + (b"X: " + b"y" * 1000 + b"\r\n") * 1000 + b"\r\n",
    "a long target": CLOSING.replace(b"ping", b"ping?" + b"a" * 17_000) + b"\r\n",
}


@pytest.mark.parametrize("large", LARGE.values(), ids=LARGE.keys())
def test_too_large_a_head_is_refused_so_that_the_client_reads_it(large: bytes, ample: Served) -> None:
    for before in range(5):
        assert statuses_in(ample.tell(GET * before + large)) == [200] * before + [431]
    assert statuses_in(ample.tell(large[:20_000], bytes(100_000_000))) == [431]


def test_a_server_without_a_bound_on_heads_is_noticed() -> None:
    with serving(*AMPLE, first=UNLIMITED) as server:
        assert [statuses_in(server.tell(large)) for large in LARGE.values()] == [[200]] * len(LARGE)


def test_a_head_may_have_16_kb_and_come_byte_by_byte(ample: Served) -> None:
    fitting, larger = (CLOSING + b"X: " + b"a" * size + b"\r\n\r\n" for size in (16_000, 17_000))
    assert [statuses_in(ample.tell(head)) for head in (fitting, larger)] == [[200], [431]]
    with ample.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in CLOSING + b"\r\n":
            connection.sendall(bytes([byte]))
        assert statuses_in(until_closed(connection)) == [200]


def test_requests_sent_together_are_all_answered_in_little_memory() -> None:
    growth = []
    requests = GET * 7_999 + CLOSING + b"\r\n"
    for first in ("", PURE, UNGUARDED):
        with serving("--rate", "1/h", "--burst", 4_000, first=first) as server:
            before = server.resident()
            assert statuses_in(asyncio.run(told_at_once(server, requests))) == [200] * 4_000 + [429] * 4_000
            growth += [server.resident()["HWM"] - before["HWM"]] if before else []
    if sys.platform == "linux":
        *guarded, unguarded = growth
        assert max(guarded) < 8_000 < 12_000 < unguarded  # kilobytes


BROKEN = (
    b"\0\1\2\3\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    NONSENSE,
    b"GET /ping HTTP/9.9\r\n\r\n",
    b"GET /p\xffng HTTP/1.1\r\n\r\n",
    HEAD + b"X: a\0b\r\n\r\n",
    HEAD + b"X : a\r\n\r\n",
    HEAD + b"X: a\r\n folded\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)


@pytest.mark.parametrize("broken", BROKEN)
def test_what_is_no_request_is_refused_after_what_came_before_it(broken: bytes, ample: Served) -> None:
    answers = ample.tell(broken)
    assert statuses_in(answers) == [400]
    assert answers.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n")
    assert statuses_in(ample.tell(GET * 3 + broken)) == [200, 200, 200, 400]


def test_nothing_is_charged_after_a_connection_is_to_be_closed() -> None:
    with serving("--metrics-port", 0) as server:
        assert statuses_in(server.tell(CLOSING + b"\r\n" + GET * 200)) == [200]
        assert server.figures()["admitted"] == 1


def test_no_answer_says_what_the_server_is(ample: Served) -> None:
    requests = [CLOSING, CLOSING.replace(b"ping", b"pong"), CLOSING.replace(b"GET", b"PUT"), LARGE["20,000 fields"]]
    answers = [ample.tell(request + b"\r\n").lower() for request in [*requests, NONSENSE]]
    assert [status for answer in answers for status in statuses_in(answer.upper())] == [200, 404, 405, 431, 400]
    assert not any(b"\r\nserver:" in answer or b"uvicorn" in answer for answer in answers)


def test_each_answer_on_a_connection_has_its_own_fields() -> None:
    with serving("--rate", "1/h", "--burst", 3) as server:
        answers = server.tell(GET * 3 + CLOSING + b"\r\n")
    told = re.findall(rb"\r\nratelimit: .*;r=(\d)", answers)
    assert (statuses_in(answers), told) == ([200, 200, 200, 429], [b"2", b"1", b"0", b"0"])


def test_a_thousand_idle_connections_keep_nobody_waiting() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # which the server inherits
    try:
        with serving(*AMPLE, first=PATIENT_WITH_ALL) as server, ExitStack() as idle:
            for _ in range(1000):
                idle.enter_context(server.connect())
            assert server.statuses(50) == [200] * 50
            assert server.descriptors() > 1000 or sys.platform != "linux"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("endless", [b"X: " + b"y" * 10**6 + b"\r\n", b"y" * 10**6, b"X: y\r\n" * 200_000])
def test_trailers_without_an_end_are_cut_off(endless: bytes) -> None:
    chunked = b"POST /ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with serving() as server, server.connect() as connection:
        connection.sendall(chunked)
        with pytest.raises(ConnectionError):
            connection.sendall(endless * 100)
        assert server.get("/healthz").status == 200
