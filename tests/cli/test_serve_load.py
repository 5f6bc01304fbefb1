"""`ratelab serve` under load: clients who vanish, junk amid requests, and clients who wait as they are told."""

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
from serve_process import Ended, Served, serving, statuses_in

pytestmark = pytest.mark.slow

VANISHING = 2000
LOAD_SECONDS = 12
HONEST = 100
CYCLES = 10
WORKERS = 10
JUNK_EVERY = 20
"""One thing in so many that a worker sends is junk."""

RESET = struct.pack("ii", 1, 0)
"""The option SO_LINGER with which closing a connection resets it."""

JUNK = {
    "random bytes": (random.Random(5).randbytes(300), [400]),
    "unknown method": (b"BREW /ping HTTP/1.1\r\nHost: x\r\n\r\n", [400]),
    "two lengths": (b"GET /ping HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", [400]),
    "huge head": (b"GET /ping HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n", [431]),
    "half a head": (b"GET /ping HTTP/1.1\r\nHos", []),
    "wrong method": (b"PUT /ping HTTP/1.1\r\nX-API-Key: junk\r\nConnection: close\r\n\r\n", [405, 429]),
}
"""What no client should send, and the answers that it may get."""


def vanish(server: Served, clients: range) -> Counter[str]:
    """Have clients, two to a key, send all or half of a request and go without reading; count how they do it."""
    ways: Counter[str] = Counter()
    with ExitStack() as opened:
        connections = [(client, opened.enter_context(server.connect())) for client in clients]
        for client, connection in connections:
            request = f"GET /ping HTTP/1.1\r\nX-API-Key: {client // 2}\r\n\r\n".encode()
            connection.sendall(request if client % 3 else request[: client % len(request)])
            if client % 4 == 0:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            ways[f"{'whole' if client % 3 else 'half'}, {'closed' if client % 4 else 'reset'}"] += 1
    return ways


@dataclass
class Vanished:
    """What is known after clients have vanished; the pairs are of before and after."""

    ways: Counter[str]
    decisions: list[dict[str, object]]
    figures: dict[str, float]
    answered: int
    descriptors: tuple[int, int]
    resident: tuple[int, int]
    ended: Ended


@pytest.fixture(scope="module")
def vanished(tmp_path_factory: pytest.TempPathFactory) -> Vanished:
    """Serve clients who vanish, many of them while their request is delayed."""
    recording = tmp_path_factory.mktemp("load") / "recording"
    options = ("--algo", "leaky-bucket", "--rate", "20/s", "--key", "header:X-API-Key", "--max-keys", 1000)
    with serving(*options, "--metrics-port", 0, "--record", recording) as server:
        ways = vanish(server, range(200))
        server.figures()
        descriptors, resident = server.descriptors(), server.resident().get("RSS", 0)
        for first in range(200, VANISHING, 100):
            ways += vanish(server, range(first, first + 100))
        answered = server.get(X_API_Key="last").status  # after all who have come before
        deadline = time.monotonic() + 10
        while server.descriptors() > descriptors and time.monotonic() < deadline:
            server.figures()
        figures = server.figures()
        found = (descriptors, server.descriptors()), (resident, server.resident().get("RSS", 0))
        ended = server.stop()
    decisions = [json.loads(line) for line in recording.read_text().splitlines()[1:]]
    return Vanished(ways, decisions, figures, answered, *found, ended)


def test_every_decision_about_a_client_who_vanished_is_accounted_for(vanished: Vanished) -> None:
    figures = vanished.figures
    outcomes = ("admitted", "denied", "dropped", "waiting")
    assert sum(figures[outcome] for outcome in outcomes) == len(vanished.decisions)
    assert figures["dropped"] > 0
    certain = vanished.ways["whole, closed"] + 1
    assert certain <= len(vanished.decisions) <= certain + vanished.ways["whole, reset"]
    assert max(Counter(decision["key"] for decision in vanished.decisions).values()) <= 2


def test_clients_who_vanish_leave_nothing_behind(vanished: Vanished) -> None:
    assert (vanished.answered, vanished.ended.code, vanished.ended.stdout) == (200, 0, "")
    assert vanished.ended.stderr.startswith("stopped: ")
    assert vanished.ended.stderr.count("\n") == 1
    keys, evictions = vanished.figures["keys"], vanished.figures["evictions_total"]
    assert keys < 600 < keys + evictions
    if sys.platform == "linux":
        assert vanished.descriptors[1] <= vanished.descriptors[0] + 2
        assert vanished.resident[1] <= vanished.resident[0] + 8_000  # kilobytes


@dataclass
class Load:
    """What the clients of a busy server have seen."""

    server: Served
    lasting: float = LOAD_SECONDS
    honest: int = HONEST
    cycles: int = CYCLES
    statuses: Counter[int] = field(default_factory=Counter)
    junk: Counter[str] = field(default_factory=Counter)
    unexpected: list[tuple[str, list[int]]] = field(default_factory=list)
    kept_waiting: list[tuple[int, int, int]] = field(default_factory=list)
    waited: int = 0
    seconds: float = 0

    async def ask(self, session: ClientSession, key: str) -> tuple[int, int]:
        """Ask for `/ping`, and return the status and for how long to wait."""
        async with session.get(self.server.banner["serving"], headers={"X-API-Key": key}) as answer:
            await answer.read()
            self.statuses[answer.status] += 1
            return answer.status, int(answer.headers.get("Retry-After", 0))

    async def be_honest(self, session: ClientSession, number: int) -> None:
        """Ask until denied, wait for as long as the answer says, and be let through, time and again."""
        await asyncio.sleep(number / self.honest)
        for cycle in range(self.cycles):
            status, wait = 200, 0
            while status == 200:
                status, wait = await self.ask(session, f"honest {number}")
            await asyncio.sleep(wait)
            status, _ = await self.ask(session, f"honest {number}")
            if status != 200:
                self.kept_waiting.append((number, cycle, status))
            self.waited += 1

    async def send_junk(self, kind: str) -> None:
        """Send junk on a connection of its own, and read what comes back."""
        junk, possible = JUNK[kind]
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port)
        try:
            writer.write(junk)
            answers = statuses_in(await reader.read()) if possible else []
        finally:
            writer.close()
        self.junk[kind] += 1
        if answers not in ([[status] for status in possible] or [[]]):
            self.unexpected.append((kind, answers))

    async def be_busy(self, session: ClientSession, number: int, honest: asyncio.Future[list[None]]) -> None:
        """Ask under changing names, and send some junk, for as long as the load is to last."""
        chance, until = random.Random(number), time.monotonic() + self.lasting
        while time.monotonic() < until or not honest.done():
            if chance.randrange(JUNK_EVERY):
                await self.ask(session, f"busy {chance.randrange(2000)}")
            else:
                await self.send_junk(chance.choice([*JUNK]))
            await asyncio.sleep(0.005)

    async def run(self) -> None:
        """Have all clients at once."""
        began = time.monotonic()
        async with ClientSession(connector=TCPConnector(limit=0, keepalive_timeout=2)) as session:
            honest = asyncio.gather(*(self.be_honest(session, number) for number in range(self.honest)))
            await asyncio.gather(honest, *(self.be_busy(session, number, honest) for number in range(WORKERS)))
        self.seconds = time.monotonic() - began


ONE_A_SECOND = ("--rate", "1/s", "--burst", 1, "--key", "header:X-API-Key", "--metrics-port", 0)
HURRIED = """
from ratelab.stores.memory import MemoryLimiter
hit = MemoryLimiter.hit
def halve(decision):
    return decision._replace(retry_after_ns=decision.retry_after_ns // 2)
MemoryLimiter.hit = lambda self, key, cost=1: halve(hit(self, key, cost))
"""


@pytest.fixture(scope="module", autouse=True)
def loading() -> Iterator[Future[Load]]:
    """Serve a request a second to each name, for a while; tests that do not ask how it went run meanwhile."""
    with serving(*ONE_A_SECOND) as server, ThreadPoolExecutor(1) as pool:
        load = Load(server)

        def run() -> Load:
            asyncio.run(load.run())
            return load

        yield pool.submit(run)


@pytest.fixture
def load(loading: Future[Load]) -> Load:
    """Return what was seen, when it is over."""
    return loading.result()


def test_a_server_that_calls_clients_back_too_early_is_noticed() -> None:
    with serving(*ONE_A_SECOND, "--rate", "1/1.5s", first=HURRIED) as server:
        load = Load(server, lasting=0, honest=5, cycles=1)
        asyncio.run(load.run())
    assert (load.waited, len(load.kept_waiting)) == (5, 5)


def test_who_waits_for_as_long_as_retry_after_says_is_let_through(load: Load) -> None:
    assert (load.waited, load.kept_waiting) == (HONEST * CYCLES, [])


def test_requests_are_answered_in_the_midst_of_junk_and_junk_is_refused(load: Load) -> None:
    assert load.seconds >= LOAD_SECONDS
    assert {*load.statuses} == {200, 429}
    assert {*load.junk} == {*JUNK}
    assert load.unexpected == []
    assert 0.02 < load.junk.total() / (load.junk.total() + load.statuses.total()) < 0.08


def test_a_busy_server_has_counted_what_it_has_answered_and_ends_in_peace(load: Load) -> None:
    put = load.junk["wrong method"]
    figures = load.server.figures()
    assert load.statuses[200] <= figures["admitted"] <= load.statuses[200] + put
    assert figures["admitted"] + figures["denied"] == load.statuses.total() + put
    code, stdout, stderr = load.server.stop()
    assert (code, stdout, stderr.count("\n")) == (0, "", 1)
    assert stderr.startswith(f"stopped: {figures['admitted']:,.0f} admitted, {figures['denied']:,.0f} denied, ")
