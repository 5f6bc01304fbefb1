"""Several workers are one service: one quota, one sum, one start and one end, whatever becomes of any of them."""

from __future__ import annotations

import os
import re
import signal
import sys
from collections.abc import Iterator, Set
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path

import pytest
from cli_runner import refused
from serve_process import GET, Served, contents, gone, serving, statuses_in, until, until_closed

TOGETHER = ("--workers", 4, "--store", "embedded", "--metrics-port", 0)
GRANTED = 600
ONCE = ("--rate", f"{GRANTED}/day", "--burst", GRANTED)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc tells who works")


def children(process: int) -> dict[int, str]:
    """Return the processes that a process has made, and how they are called; nothing if they have ended."""
    made = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    called = {int(child): contents(Path(f"/proc/{child}/cmdline")).decode().replace("\0", " ") for child in made}
    return {child: name for child, name in called.items() if name}


def workers_of(server: Served, others_than: Set[int] = frozenset()) -> set[int]:
    """Return the four workers of a server, once they are there."""
    found: set[int] = set()

    def four() -> bool:
        found.clear()
        found.update(child for child, name in children(server.process.pid).items() if " serve " in name)
        return len(found - others_than) == 4

    until(four)
    return found


def told_on_a_connection(server: Served, requests: bytes) -> list[int]:
    with server.connect() as connection:
        connection.sendall(requests)
        return statuses_in(until_closed(connection))


def many(server: Served, connections: int, each: int) -> list[int]:
    """Send requests on several connections at once."""
    requests = GET * (each - 1) + GET.replace(b"Host", b"Connection: close\r\nHost")
    with ThreadPoolExecutor(connections) as pool:
        found = pool.map(lambda _: told_on_a_connection(server, requests), range(connections))
        return [*chain.from_iterable(found)]


@contextmanager
def nothing_left_of(server: Served) -> Iterator[None]:
    """See that, soon after the block, no process of the server's is left, nor its store's directory."""
    workers = workers_of(server)
    (keeper,) = children(server.process.pid).keys() - workers
    processes = {*workers, keeper, *children(keeper)}
    found = re.search(r"unix://(\S+)/v.sock", server.banner["store"])
    assert (len(workers), len(processes), found is not None) == (4, 6, True)
    assert found is not None
    assert Path(found[1]).exists()
    yield
    until(lambda: all(map(gone, processes)) and not Path(found[1]).exists())


@pytest.mark.parametrize("name", ["token-bucket", "sliding-log"])
def test_workers_grant_one_quota_and_count_together(name: str) -> None:
    with serving(*TOGETHER, *ONCE, "--algo", name) as server:
        statuses = many(server, connections=20, each=50)
        assert (statuses.count(200), statuses.count(429)) == (GRANTED, 1000 - GRANTED)
        until(lambda: (server.figures()["admitted"], server.figures()["denied"]) == (GRANTED, 1000 - GRANTED))
        with nothing_left_of(server):
            assert server.stop() == (0, "", f"stopped: {GRANTED} admitted, {1000 - GRANTED} denied\n")


def test_a_worker_that_dies_is_replaced_and_what_it_counted_stays() -> None:
    with serving(*TOGETHER, "--rate", "1000/day", "--burst", 1000) as server:
        before = workers_of(server)
        assert set(many(server, connections=20, each=20)) == {200}
        until(lambda: server.figures()["admitted"] == 400)
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        workers_of(server, others_than=before)
        assert server.statuses(10) == [200] * 10
        until(lambda: server.figures()["admitted"] == 410)
        lines = server.stop().stderr.splitlines()
    died = [f"worker {number} has ended (SIGKILL): another takes its place" for number in range(1, 5)]
    assert (sorted(lines[:4]), lines[4:]) == (died, ["stopped: 410 admitted, 0 denied"])


def test_nothing_is_left_when_the_service_is_killed() -> None:
    with serving(*TOGETHER) as server, nothing_left_of(server):
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("again", [False, True], ids=["one interrupt", "two"])
def test_what_is_in_flight_is_finished_by_one_interrupt_and_dropped_by_two(again: bool) -> None:
    slow = ("--algo", "leaky-bucket", "--rate", "1/h" if again else "1/2s")
    with serving(*TOGETHER, *slow) as server, server.connect() as connection:
        connection.sendall(GET * 2)
        until(lambda: server.figures()["waiting"] == 1)
        workers = workers_of(server)
        server.process.send_signal(signal.SIGINT)
        until(lambda: not server.listens())
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)  # as a supervisor does that tells every process
        if again:
            server.process.send_signal(signal.SIGINT)
        assert statuses_in(until_closed(connection)) == [200, 503 if again else 200]
        counted = "1 admitted, 0 denied, 1 dropped from the queue" if again else "2 admitted (1 after a wait), 0 denied"
        told = f"stopping: 1 request in flight; Ctrl-C again drops them\nstopped: {counted}\n"
        assert server.wait() == (0, "", told)


def test_a_terminals_ctrl_c_comes_to_the_workers_through_the_service_alone() -> None:
    with serving(*TOGETHER) as server:
        until(lambda: {os.getsid(worker) for worker in workers_of(server)} == workers_of(server))


def test_several_memories_are_refused() -> None:
    assert refused("serve", "--workers", "3", "--rate", "7/s") == (
        "3 workers would grant each client 3 times 7/s, burst 5, since each has a memory of its own: "
        "use --store embedded, which they share, or --workers 1\n"
    )
