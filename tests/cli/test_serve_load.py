"""`ratelab serve` under load: clients that disconnect, junk among requests, clients that honor `Retry-After`."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import struct
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field

import pytest
from aiohttp import ClientSession, TCPConnector
from serve_process import ExitResult, ServeProcess, run_server, statuses_in

pytestmark = pytest.mark.slow

DISCONNECTING = 2000
LOAD_SECONDS = 12
HONEST = 100
CYCLES = 10
BUSY = 10
JUNK_EVERY = 20
"""A busy client sends junk instead of every 20th request, on average."""

RESET = struct.pack("ii", 1, 0)
"""Value of SO_LINGER with which closing a connection resets it."""

JUNK = {
    "random bytes": (random.Random(5).randbytes(300), [400]),
    "unknown method": (b"BREW /ping HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "two lengths": (b"GET /ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", [400]),
    "huge head": (b"GET /ping HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", [431]),
    "half a head": (b"GET /ping HTTP/1.1\r\nHos", []),
    "wrong method": (b"PUT /ping HTTP/1.1\r\nX-API-Key: junk\r\nConnection: close\r\n\r\n", [405, 429]),
}
"""Requests that no client should send, and the statuses that are possible."""


def disconnect_all(server: ServeProcess, clients: range) -> Counter[str]:
    """Send a whole or half a request from each client, two to a key, and disconnect; count the ways."""
    ways: Counter[str] = Counter()
    with ExitStack() as closing:
        connections = [(client, closing.enter_context(server.connect())) for client in clients]
        for client, connection in connections:
            request = f"GET /ping HTTP/1.1\r\nX-API-Key: {client // 2}\r\n\r\n".encode()
            connection.sendall(request if client % 3 else request[: client % len(request)])
            if client % 4 == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            ways[f"{'whole' if client % 3 else 'half'}, {'closed' if client % 4 else 'reset'}"] += 1
    return ways


@dataclass
class Aftermath:
    """State of a server after many clients have disconnected; the pairs are before and after."""

    ways: Counter[str]
    decisions: list[dict[str, object]]
    metrics: dict[str, float]
    last_status: int
    descriptors: tuple[int, int]
    memory_kb: tuple[int, int]
    result: ExitResult


@pytest.fixture(scope="module")
def aftermath(tmp_path_factory: pytest.TempPathFactory) -> Aftermath:
    """Serve clients that disconnect, many of them while their request is delayed."""
    recording = tmp_path_factory.mktemp("load") / "recording"
    options = (
        "--algo",
        "leaky-bucket",
        "--rate",
        "20/s",
        "--burst",
        5,
        "--key",
        "header:X-API-Key",
        "--max-keys",
        1000,
    )
    with run_server(*options, "--metrics-port", 0, "--record", recording) as server:
        ways = disconnect_all(server, range(200))
        server.read_metrics()
        descriptors, memory = server.count_descriptors(), server.read_memory().get("RSS", 0)
        for first in range(200, DISCONNECTING, 100):
            ways += disconnect_all(server, range(first, first + 100))
        last_status = server.get(X_API_Key="last").status  # after all the others
        deadline = time.monotonic() + 60
        while server.count_descriptors() > descriptors and time.monotonic() < deadline:
            server.read_metrics()
        metrics = server.read_metrics()
        pairs = (descriptors, server.count_descriptors()), (memory, server.read_memory().get("RSS", 0))
        result = server.stop()
    decisions = [json.loads(line) for line in recording.read_text().splitlines()[1:]]
    return Aftermath(ways, decisions, metrics, last_status, *pairs, result)


def test_every_decision_about_a_disconnected_client_is_counted(aftermath: Aftermath) -> None:
    metrics = aftermath.metrics
    outcomes = ("admitted", "denied", "dropped", "waiting")
    assert sum(metrics[outcome] for outcome in outcomes) == len(aftermath.decisions)
    assert metrics["dropped"] > 0
    certain = aftermath.ways["whole, closed"] + 1
    assert certain <= len(aftermath.decisions) <= certain + aftermath.ways["whole, reset"]
    assert max(Counter(decision["key"] for decision in aftermath.decisions).values()) <= 2


def test_disconnected_clients_leave_no_sockets_and_little_memory(aftermath: Aftermath) -> None:
    result = aftermath.result
    assert (aftermath.last_status, result.code, result.stdout) == (200, 0, "")
    assert result.stderr.startswith("stopped: ")
    assert result.stderr.count("\n") == 1
    keys, evictions = aftermath.metrics["keys"], aftermath.metrics["evictions_total"]
    assert keys < 600 < keys + evictions
    if sys.platform == "linux":
        assert aftermath.descriptors[1] <= aftermath.descriptors[0] + 2
        assert aftermath.memory_kb[1] <= aftermath.memory_kb[0] + 8_000


@dataclass
class Load:
    """Honest and busy clients of one server, and their observations."""

    server: ServeProcess
    min_seconds: float = LOAD_SECONDS
    honest: int = HONEST
    cycles: int = CYCLES
    statuses: Counter[int] = field(default_factory=Counter)
    busy: int = 0
    """Requests of busy clients, without junk."""
    junk: Counter[str] = field(default_factory=Counter)
    unexpected: list[tuple[str, list[int]]] = field(default_factory=list)
    denied_again: list[tuple[int, int, int]] = field(default_factory=list)
    waited: int = 0
    seconds: float = 0

    async def send_ping(self, session: ClientSession, key: str) -> tuple[int, int]:
        """Send a request for `/ping`; return the status and `Retry-After`."""
        async with session.get(self.server.banner["serving"], headers={"X-API-Key": key}) as response:
            await response.read()
            self.statuses[response.status] += 1
            return response.status, int(response.headers.get("Retry-After", 0))

    async def run_honest_client(self, session: ClientSession, number: int) -> None:
        """Send requests until one is denied, wait for `Retry-After`, send one more; several times."""
        await asyncio.sleep(number / self.honest)
        for cycle in range(self.cycles):
            status, wait = 200, 0
            while status == 200:
                status, wait = await self.send_ping(session, f"honest {number}")
            await asyncio.sleep(wait)
            status, _ = await self.send_ping(session, f"honest {number}")
            if status != 200:
                self.denied_again.append((number, cycle, status))
            self.waited += 1

    async def send_junk(self, kind: str) -> None:
        """Send junk on a new connection, and check the response."""
        junk, possible = JUNK[kind]
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        try:
            writer.write(junk)
            statuses = statuses_in(await reader.read()) if possible else []
        finally:
            writer.close()
        self.junk[kind] += 1
        if statuses not in ([[status] for status in possible] or [[]]):
            self.unexpected.append((kind, statuses))

    async def run_busy_client(self, session: ClientSession, number: int, honest: asyncio.Future[list[None]]) -> None:
        """Send requests under changing keys, and each kind of junk, until the honest clients have finished."""
        chance, until = random.Random(number), time.monotonic() + self.min_seconds
        while time.monotonic() < until or not honest.done() or self.junk.keys() != JUNK.keys():
            if chance.randrange(JUNK_EVERY):
                await self.send_ping(session, f"busy {chance.randrange(2000)}")
                self.busy += 1
            else:
                await self.send_junk(chance.choice([*JUNK]))
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        """Run all clients at once."""
        start = time.monotonic()
        async with ClientSession(connector=TCPConnector(limit=0, keepalive_timeout=2)) as session:
            honest = asyncio.gather(*(self.run_honest_client(session, number) for number in range(self.honest)))
            await asyncio.gather(honest, *(self.run_busy_client(session, number, honest) for number in range(BUSY)))
        self.seconds = time.monotonic() - start


ONE_BY_ONE = ("--burst", 1, "--key", "header:X-API-Key", "--metrics-port", 0)
HALVED_WAITS = """
from ratelab.stores.memory import MemoryLimiter
hit_row = MemoryLimiter.hit_row
def halve(allowed, remaining, retry_after_ns, reset_after_ns, delay_ns):
    return allowed, remaining, retry_after_ns // 2, reset_after_ns, delay_ns
MemoryLimiter.hit_row = lambda self, key, cost=1: halve(*hit_row(self, key, cost))
"""


@pytest.fixture(scope="module", autouse=True)
def running_load() -> Iterator[Future[Load]]:
    """Start the load in a thread; tests that do not need its result run at the same time."""
    with run_server(*ONE_BY_ONE, "--rate", "1/s") as server, ThreadPoolExecutor(1) as pool:
        load = Load(server)

        def run() -> Load:
            asyncio.run(load.run())
            return load

        yield pool.submit(run)


@pytest.fixture
def load(running_load: Future[Load]) -> Load:
    """Wait for the end of the load."""
    return running_load.result()


def test_a_mutant_with_a_short_retry_after_is_detected() -> None:
    with run_server(*ONE_BY_ONE, "--rate", "1/8s", first=HALVED_WAITS) as server:
        load = Load(server, min_seconds=0, honest=5, cycles=1)
        asyncio.run(load.run())
    assert (load.waited, len(load.denied_again)) == (5, 5)


def test_a_client_that_waits_for_retry_after_is_admitted(load: Load) -> None:
    assert (load.waited, load.denied_again) == (HONEST * CYCLES, [])


def test_requests_are_answered_and_junk_is_rejected(load: Load) -> None:
    assert load.seconds >= LOAD_SECONDS
    assert {*load.statuses} == {200, 429}
    assert load.unexpected == []
    assert 0.02 < load.junk.total() / (load.junk.total() + load.busy) < 0.08


def test_the_counters_match_the_responses_and_it_exits_cleanly(load: Load) -> None:
    puts = load.junk["wrong method"]
    metrics = load.server.read_metrics()
    assert load.statuses[200] <= metrics["admitted"] <= load.statuses[200] + puts
    assert metrics["admitted"] + metrics["denied"] == load.statuses.total() + puts
    code, stdout, stderr = load.server.stop()
    assert (code, stdout, stderr.count("\n")) == (0, "", 1)
    assert stderr.startswith(f"stopped: {metrics['admitted']:,.0f} admitted, {metrics['denied']:,.0f} denied, ")
