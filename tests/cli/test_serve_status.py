"""Who watches a service sees what happens, and nobody who stops watching stops the service."""

from __future__ import annotations

import fcntl
import json
import os
import resource
import signal
import struct
import subprocess
import sys
import termios
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from time import monotonic

import pytest
from serve_process import ask, serving, statuses_in, until_closed

from ratelab.cli.serve.runner import counted
from ratelab.http.counters import CounterValues, Counts
from ratelab.stores.memory import Stats

PATIENCE = 30.0


def lines_of(file: Path, least: int) -> list[str]:
    """Return the lines of a file as soon as there are so many."""
    deadline = monotonic() + PATIENCE
    while file.read_text().count("\n") < least:
        assert monotonic() < deadline
        Event().wait(0.05)
    return file.read_text().splitlines()


def test_a_reader_of_the_log_who_stalls_stops_nobody() -> None:
    request = b"GET /%s HTTP/1.1\r\nHost: a\r\n\r\n" % (b"a" * 79)
    with serving("--access-log", "--rate", "1/day", "--burst", 1) as server:
        answers = statuses_in(server.tell(request * 999 + request.replace(b"Host", b"Connection: close\r\nHost")))
        assert answers == [404] + [429] * 999
        assert server.get("/healthz").status == 200
        ended = server.stop()
    assert (ended.code, "Traceback" in ended.stderr) == (0, False)


def test_a_recording_is_on_the_disk_within_seconds(tmp_path: Path) -> None:
    file = tmp_path / "live.jsonl"
    with serving("--record", file) as server:
        assert server.statuses(6) == [200] * 5 + [429]
        lines = lines_of(file, least=7)
        server.stop(signal.SIGKILL)
    assert [json.loads(line)["allowed"] for line in lines[1:]] == [True] * 5 + [False]


def test_connections_are_not_stopped_by_what_a_shell_passes_on() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = f"import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, {hard}))"
    with serving(first=few) as server, ExitStack() as closing:
        for _ in range(100):
            closing.enter_context(server.connect())
        assert server.get().status == 200


def test_what_follows_a_request_for_another_protocol_is_not_taken_for_requests() -> None:
    upgrade = b"GET /ping HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n"
    with serving() as server, server.connect() as connection:
        connection.sendall(upgrade + b"x" * 1500 + b"GET /ping HTTP/1.1\r\nHost: a\r\n\r\n")
        answers = until_closed(connection)
        assert (statuses_in(answers), b"connection: close" in answers) == ([200], True)
        assert server.statuses(5) == [200] * 4 + [429]


@pytest.mark.parametrize(
    ("columns", "shown"), [(100, "1 admitted, 2 denied, 1 client in memory"), (21, "1 admitted, 2 denied")]
)
def test_a_terminal_shows_the_counts_while_the_service_runs(columns: int, shown: str) -> None:
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    command = [sys.executable, "-m", "ratelab", "serve", "--port", "0", "--rate", "1/day", "--burst", "1"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=theirs, text=True) as process:
        os.close(theirs)
        assert process.stdout is not None
        address = next(line.split()[1] for line in process.stdout if line.startswith("serving"))
        host, port = address.removeprefix("http://").removesuffix("/ping").split(":")
        assert [ask(host, int(port), "/ping").status for _ in range(3)] == [200, 429, 429]
        seen = ""
        while f"\r\x1b[K{shown}" not in seen:
            seen += os.read(ours, 1000).decode()
        process.send_signal(signal.SIGINT)
        assert process.wait() == 0
    assert f"\r\x1b[K{shown} " not in seen
    os.close(ours)


def test_who_watches_sees_how_many_wait_and_how_many_were_dropped() -> None:
    counts = Counts(admitted=12, delayed=11, denied=2, dropped=3, waiting=8)
    figures = CounterValues.of(CounterValues(counts, Stats(1, 0, 0)).row())
    assert figures.counts == counts
    assert counted(figures) == "12 admitted (11 after a wait), 8 waiting, 2 denied, 3 dropped from the queue"


def test_a_service_needs_no_terminal_at_all() -> None:
    with serving("--access-log", first="import sys; sys.stderr = None") as server:
        assert server.get().status == 200
        assert server.stop().code == 0
    done = subprocess.run(
        [sys.executable, "-c", "import sys; sys.stdout = None; from ratelab.cli import main; main()", "algorithms"],
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
