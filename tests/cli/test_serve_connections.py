"""Timeouts, size limits, memory and malformed requests of `ratelab serve`."""

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
    MALFORMED,
    ServeProcess,
    read_until_closed,
    run_server,
    send_while_reading,
    statuses_in,
    time_nonreading_client,
    time_slow_sender,
)

UNLIMITED_RATE = ("--rate", "1000000/s", "--burst", 1_000_000)
MAX_PEAK_KB = 80_000
"""Peak memory that a server may reach, whatever it receives: twice the usual."""

SUMMARY = re.compile(r"stopped: [\d,]+ admitted(?: \(\d+ after a wait\))?, 0 denied, \d+ clients? in memory\n")
WITHOUT_UVLOOP = "import sys; sys.modules['uvloop'] = None"
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
LONG_TIMEOUT = "import ratelab.http.uvicorn_protocol; ratelab.http.uvicorn_protocol.IDLE_TIMEOUT_S = 60"
UNLIMITED_HEADS = "import ratelab.http.uvicorn_protocol; ratelab.http.uvicorn_protocol.MAX_HEAD_BYTES = 10**9"

HEAD = b"GET /ping HTTP/1.1\r\nHost: x\r\n"
CLOSING = HEAD + b"Connection: close\r\n"
UPLOAD = b"POST /ping HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
SLOW_SENDERS = {
    "idle": (b"", b""),
    "idle after a response": (GET, b""),
    "slow head": (HEAD, b"X: " + b"a" * 99),
    "slow head after a response": (GET, HEAD + b"a" * 99),
    "slow blank lines": (b"\r\n", b"\r\n" * 99),
    "slow body": (UPLOAD, b"a" * 99),
    "slow after a rejection": (MALFORMED, b"a" * 99),
}
"""Bytes that each client sends at once, and bytes that it then sends one by one."""

SERVERS = {
    "uvloop": "",
    "asyncio": WITHOUT_UVLOOP,
    "unguarded": UNGUARDED,
    "restarting": RESTARTING,
    "patient": PATIENT,
}
"""Code to run before the server: on either event loop, and three mutants."""

SURVIVORS = {
    "unguarded": {*SLOW_SENDERS} - {"idle after a response", "slow after a rejection"},
    "restarting": {client for client in SLOW_SENDERS if client.startswith("slow")},
    "patient": {"reading nothing"},
}
"""The clients that each mutant fails to drop."""


async def time_clients(servers: dict[str, ServeProcess]) -> dict[tuple[str, str], float]:
    """Run every client against every server at once; return the seconds until each was dropped."""
    tasks = {
        (name, client): time_slow_sender(server, *pieces)
        for name, server in servers.items()
        for client, pieces in SLOW_SENDERS.items()
    }
    for name in servers.keys() - {"unguarded"}:
        tasks[name, "reading nothing"] = time_nonreading_client(servers[name])
    return dict(zip(tasks, await asyncio.gather(*tasks.values()), strict=True))


@pytest.fixture(scope="module")
def durations() -> Iterator[dict[tuple[str, str], float]]:
    """Yield the seconds until each server dropped each client; then check that no server reported anything."""
    with ExitStack() as running:
        servers = {
            name: running.enter_context(run_server(*UNLIMITED_RATE, first=first)) for name, first in SERVERS.items()
        }
        yield asyncio.run(time_clients(servers))
        for name, server in servers.items():
            assert name == "unguarded" or server.read_memory().get("HWM", 0) < MAX_PEAK_KB
            code, _, stderr = server.stop()
            assert (code, SUMMARY.fullmatch(stderr) is not None) == (0, True), stderr


@pytest.mark.slow
@pytest.mark.parametrize("client", [*SLOW_SENDERS, "reading nothing"])
@pytest.mark.parametrize("server", ["uvloop", "asyncio"])
def test_a_slow_client_is_dropped_after_five_seconds(
    server: str, client: str, durations: dict[tuple[str, str], float]
) -> None:
    assert 4.9 < durations[server, client] < inf


@pytest.mark.slow
@pytest.mark.parametrize("mutant", SURVIVORS)
def test_a_mutant_that_waits_indefinitely_is_detected(mutant: str, durations: dict[tuple[str, str], float]) -> None:
    survivors = {client for (server, client), seconds in durations.items() if (server, seconds) == (mutant, inf)}
    assert survivors  # all of those named, unless this machine stalls for seconds
    assert survivors <= SURVIVORS[mutant]


@pytest.fixture(scope="module")
def ample() -> Iterator[ServeProcess]:
    """Run a server with a very high limit; then check its peak memory, and that it reported nothing."""
    with run_server(*UNLIMITED_RATE) as server:
        yield server
        assert server.read_memory().get("HWM", 0) < MAX_PEAK_KB
        code, _, stderr = server.stop()
        assert (code, SUMMARY.fullmatch(stderr) is not None) == (0, True), stderr


LARGE_HEADS = {
    "a field of a megabyte": CLOSING + b"X: " + b"a" * 10**6 + b"\r\n\r\n",
    "a field of 100 kB": CLOSING + b"X: " + b"a" * 10**5 + b"\r\n\r\n",
    "20,000 fields": CLOSING + b"X: y\r\n" * 20_000 + b"\r\n",
    "a megabyte of fields": CLOSING + (b"X: " + b"y" * 1000 + b"\r\n") * 1000 + b"\r\n",
    "a long target": CLOSING.replace(b"ping", b"ping?" + b"a" * 17_000) + b"\r\n",
}


@pytest.mark.parametrize("large", LARGE_HEADS.values(), ids=LARGE_HEADS.keys())
def test_a_large_head_gets_a_431_that_the_client_can_read(large: bytes, ample: ServeProcess) -> None:
    for before in range(5):
        assert statuses_in(ample.send(GET * before + large)) == [200] * before + [431]
    assert statuses_in(ample.send(large[:20_000], bytes(100_000_000))) == [431]


@pytest.mark.slow
def test_a_mutant_without_a_limit_on_heads_is_detected() -> None:
    with run_server(*UNLIMITED_RATE, first=UNLIMITED_HEADS) as server:
        assert [statuses_in(server.send(large)) for large in LARGE_HEADS.values()] == [[200]] * len(LARGE_HEADS)


def test_a_head_of_16_kb_may_arrive_byte_by_byte(ample: ServeProcess) -> None:
    fitting, larger = (CLOSING + b"X: " + b"a" * size + b"\r\n\r\n" for size in (16_000, 17_000))
    assert [statuses_in(ample.send(head)) for head in (fitting, larger)] == [[200], [431]]
    with ample.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in CLOSING + b"\r\n":
            connection.sendall(bytes([byte]))
        assert statuses_in(read_until_closed(connection)) == [200]


@pytest.mark.slow
def test_8000_pipelined_requests_are_answered_in_little_memory() -> None:
    growth = []
    requests = GET * 7_999 + CLOSING + b"\r\n"
    for first in ("", WITHOUT_UVLOOP, UNGUARDED):
        with run_server("--rate", "1/h", "--burst", 4_000, first=first) as server:
            before = server.read_memory()
            assert statuses_in(asyncio.run(send_while_reading(server, requests))) == [200] * 4_000 + [429] * 4_000
            growth += [server.read_memory()["HWM"] - before["HWM"]] if before else []
    if sys.platform == "linux":
        *guarded, unguarded = growth
        assert max(guarded) < 8_000 < 12_000 < unguarded  # kilobytes


MALFORMED_REQUESTS = (
    b"\0\1\2\3\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    MALFORMED,
    b"GET /ping HTTP/9.9\r\n\r\n",
    b"GET /p\xffng HTTP/1.1\r\n\r\n",
    HEAD + b"X: a\0b\r\n\r\n",
    HEAD + b"X : a\r\n\r\n",
    HEAD + b"X: a\r\n folded\r\n\r\n",
    HEAD + b"Content-Length: -1\r\n\r\n",
    HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n",
    HEAD + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
)


@pytest.mark.parametrize("malformed", MALFORMED_REQUESTS)
def test_a_malformed_request_gets_400_after_earlier_responses(malformed: bytes, ample: ServeProcess) -> None:
    response = ample.send(malformed)
    assert statuses_in(response) == [400]
    assert response.startswith(b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\n")
    assert statuses_in(ample.send(GET * 3 + malformed)) == [200, 200, 200, 400]


@pytest.mark.slow
def test_requests_after_connection_close_are_not_charged() -> None:
    with run_server("--metrics-port", 0) as server:
        assert statuses_in(server.send(CLOSING + b"\r\n" + GET * 200)) == [200]
        assert server.read_metrics()["admitted"] == 1


def test_no_response_reveals_the_server_software(ample: ServeProcess) -> None:
    requests = [
        CLOSING,
        CLOSING.replace(b"ping", b"pong"),
        CLOSING.replace(b"GET", b"PUT"),
        LARGE_HEADS["20,000 fields"],
    ]
    responses = [ample.send(request + b"\r\n").lower() for request in [*requests, MALFORMED]]
    assert [status for response in responses for status in statuses_in(response.upper())] == [200, 404, 405, 431, 400]
    assert not any(b"\r\nserver:" in response or b"uvicorn" in response for response in responses)


def test_each_pipelined_response_has_its_own_headers() -> None:
    with run_server("--rate", "1/h", "--burst", 3) as server:
        responses = server.send(GET * 3 + CLOSING + b"\r\n")
    remaining = re.findall(rb"\r\nratelimit: .*;r=(\d)", responses)
    assert (statuses_in(responses), remaining) == ([200, 200, 200, 429], [b"2", b"1", b"0", b"0"])


@pytest.mark.slow
def test_a_thousand_idle_connections_delay_no_request() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))  # inherited by the server
    try:
        with run_server(*UNLIMITED_RATE, first=LONG_TIMEOUT) as server, ExitStack() as idle:
            for _ in range(1000):
                idle.enter_context(server.connect())
            assert server.get_statuses(50) == [200] * 50
            assert server.count_descriptors() > 1000 or sys.platform != "linux"
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.slow
@pytest.mark.parametrize("endless", [b"X: " + b"y" * 10**6 + b"\r\n", b"y" * 10**6, b"X: y\r\n" * 200_000])
def test_a_client_that_sends_endless_trailers_is_dropped(endless: bytes) -> None:
    chunked = b"POST /ping HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
    with run_server() as server, server.connect() as connection:
        connection.sendall(chunked)
        with pytest.raises(ConnectionError):
            connection.sendall(endless * 100)
        assert server.get("/healthz").status == 200


@pytest.mark.slow
def test_a_low_limit_of_open_files_is_raised() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    low = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))"
    with run_server(first=low) as server, ExitStack() as closing:
        for _ in range(100):
            closing.enter_context(server.connect())
        assert server.get().status == 200


@pytest.mark.slow
def test_data_after_an_upgrade_request_is_not_parsed_as_requests() -> None:
    upgrade = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    with run_server("--rate", "5/h") as server, server.connect() as connection:
        connection.sendall(upgrade + b"x" * 1500 + b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        response = read_until_closed(connection)
        assert (statuses_in(response), b"connection: close" in response) == ([200], True)
        assert server.get_statuses(5) == [200] * 4 + [429]
