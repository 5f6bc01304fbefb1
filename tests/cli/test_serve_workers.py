"""Workers of `ratelab serve`: one quota and one set of counters, restarts, shutdown."""

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
from subprocess import PIPE, Popen
from typing import Any, cast
from unittest.mock import Mock

import pytest
from cli_runner import get_error
from serve_process import (
    GET,
    ServeProcess,
    has_exited,
    read_proc_file,
    read_until_closed,
    run_server,
    statuses_in,
    wait_until,
)

from ratelab.http.workers import WorkerPool

FOUR_WORKERS = ("--workers", 4, "--store", "embedded", "--metrics-port", 0)
GRANTED = 600
QUOTA = ("--rate", f"{GRANTED}/day", "--burst", GRANTED)

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc to find the workers")]


def find_children(pid: int) -> dict[int, str]:
    """Return the running children of a process, and their command lines."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    commands = {int(pid): read_proc_file(Path(f"/proc/{pid}/cmdline")).decode() for pid in children}
    return {pid: command.replace("\0", " ") for pid, command in commands.items() if command}


def find_workers(server: ServeProcess, exclude: Set[int] = frozenset()) -> set[int]:
    """Wait until a server has four workers that are not in `exclude`; return all its workers."""
    workers: set[int] = set()

    def are_running() -> bool:
        workers.clear()
        workers.update(pid for pid, command in find_children(server.process.pid).items() if " serve " in command)
        return len(workers - exclude) == 4

    wait_until(are_running)
    return workers


def send_on_a_connection(server: ServeProcess, requests: bytes) -> list[int]:
    with server.connect() as connection:
        connection.sendall(requests)
        return statuses_in(read_until_closed(connection))


def send_many(server: ServeProcess, connections: int, each: int) -> list[int]:
    """Send `each` requests on each of several simultaneous connections; return all statuses."""
    requests = GET * (each - 1) + GET.replace(b"Host", b"Connection: close\r\nHost")
    with ThreadPoolExecutor(connections) as pool:
        statuses = pool.map(lambda _: send_on_a_connection(server, requests), range(connections))
        return [*chain.from_iterable(statuses)]


@contextmanager
def check_no_remains(server: ServeProcess) -> Iterator[None]:
    """Check that, soon after the block, no process of the server is running and its store's directory is gone."""
    workers = find_workers(server)
    (store_supervisor,) = find_children(server.process.pid).keys() - workers
    processes = {*workers, store_supervisor, *find_children(store_supervisor)}
    directory = re.search(r"unix://(.+?)/v.sock", server.banner["store"])
    assert (len(workers), len(processes), directory is not None) == (4, 6, True)
    assert directory is not None
    assert Path(directory[1]).exists()
    yield
    wait_until(lambda: all(map(has_exited, processes)) and not Path(directory[1]).exists())


@pytest.mark.parametrize("name", ["token-bucket", "sliding-log"])
def test_workers_grant_one_quota_and_count_together(name: str) -> None:
    with run_server(*FOUR_WORKERS, *QUOTA, "--algo", name) as server:
        statuses = send_many(server, connections=20, each=50)
        assert (statuses.count(200), statuses.count(429)) == (GRANTED, 1000 - GRANTED)
        wait_until(
            lambda: (server.read_metrics()["admitted"], server.read_metrics()["denied"]) == (GRANTED, 1000 - GRANTED)
        )
        with check_no_remains(server):
            assert server.stop() == (0, "", f"stopped: {GRANTED} admitted, {1000 - GRANTED} denied\n")


def test_a_worker_that_dies_is_restarted_and_its_counts_stay() -> None:
    with run_server(*FOUR_WORKERS, "--rate", "1000/day", "--burst", 1000) as server:
        before = find_workers(server)
        assert set(send_many(server, connections=20, each=20)) == {200}
        wait_until(lambda: server.read_metrics()["admitted"] == 400)
        for worker in before:
            os.kill(worker, signal.SIGKILL)
        find_workers(server, exclude=before)
        assert server.get_statuses(10) == [200] * 10
        wait_until(lambda: server.read_metrics()["admitted"] == 410)
        lines = server.stop().stderr.splitlines()
    died = [f"worker {number} exited (SIGKILL); restarting" for number in range(1, 5)]
    assert (sorted(lines[:4]), lines[4:]) == (died, ["stopped: 410 admitted, 0 denied"])


def test_no_process_remains_when_the_service_is_killed() -> None:
    with run_server(*FOUR_WORKERS) as server, check_no_remains(server):
        server.process.kill()
        server.process.wait()


@pytest.mark.parametrize("again", [False, True], ids=["one interrupt", "two"])
def test_one_interrupt_finishes_requests_and_a_second_drops_them(again: bool) -> None:
    slow = ("--algo", "leaky-bucket", "--rate", "1/h" if again else "1/8s", "--burst", 5)
    with run_server(*FOUR_WORKERS, *slow) as server, server.connect() as connection:
        connection.sendall(GET * 2)
        wait_until(lambda: server.read_metrics()["waiting"] == 1)
        workers = find_workers(server)
        server.process.send_signal(signal.SIGINT)
        wait_until(lambda: not server.accepts_connections())
        for worker in workers:
            with suppress(ProcessLookupError):
                os.kill(worker, signal.SIGTERM)  # as a service manager does that signals every process
        if again:
            server.process.send_signal(signal.SIGINT)
        assert statuses_in(read_until_closed(connection)) == [200, 503 if again else 200]
        counted = "1 admitted, 0 denied, 1 dropped from the queue" if again else "2 admitted (1 after a wait), 0 denied"
        output = f"stopping: 1 request in flight; press Ctrl-C again to drop it\nstopped: {counted}\n"
        assert server.wait() == (0, "", output)


def test_workers_are_not_interrupted_by_the_terminal_directly() -> None:
    with run_server(*FOUR_WORKERS) as server:
        wait_until(lambda: {os.getsid(worker) for worker in find_workers(server)} == find_workers(server))


def test_a_signal_reaches_the_workers_that_are_left() -> None:
    pool = WorkerPool(2, lambda _: None, [], Mock())
    command = [sys.executable, "-c", "input()"]
    with Popen([sys.executable, "-c", ""]) as ended:
        pass
    with Popen(command, stdin=PIPE) as running:
        pool._running = {0: cast("Any", ended), 1: cast("Any", running)}
        pool._forward(signal.SIGTERM)
        assert running.wait(60) == -signal.SIGTERM


def test_several_workers_need_a_store() -> None:
    assert get_error("serve", "--workers", "3", "--rate", "7/s") == (
        "3 workers without a store would grant each client 3 times 7/s, burst 7: add --store embedded\n"
    )
