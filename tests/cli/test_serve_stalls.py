"""Readers of the output of `ratelab serve` that stall: they delay neither a response nor the end."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest
from cli_runner import get_error
from serve_process import run_server, send_request, wait_until
from slow_parameters import mark_slow

GRACE_S = 14
"""Seconds in which the service ends on a busy machine, fewer than those after which it kills its workers."""
WORKERS = {"one process": [], "workers": ["--store", "embedded", "--workers", "2"]}
ENDLESS = ["--rate", "1000000/s", "--key", "header:X-API-Key"]
CTRL_S, CTRL_Q = b"\x13", b"\x11"

each_pool = pytest.mark.parametrize("pool", WORKERS.values(), ids=WORKERS.keys())


@contextmanager
def serve(*options: str, stdout: int, stderr: int, first: str = "") -> Iterator[subprocess.Popen[bytes]]:
    """Run `ratelab serve` with these streams; `first` is code to run before."""
    start = f"{first}\nfrom ratelab.cli import main\nmain()"
    command = [sys.executable, "-c", start, "serve", "--port", "0", *options]
    environment = {**os.environ, "RATELAB_STORE_DEADLINE": "2s"} if "--store" in options else None
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, start_new_session=True, env=environment
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def read_port(descriptor: int) -> int:
    """Read the banner and return the port in it."""
    text = b""
    while not (found := re.search(rb":(\d+)/ping.*Ctrl-C\r?\n", text, re.DOTALL)):
        text += os.read(descriptor, 4096)
    port = int(found[1])
    wait_until(lambda: send_request("127.0.0.1", port, "/healthz").status == 200)
    return port


def stop(process: subprocess.Popen[bytes], number: int = signal.SIGTERM) -> tuple[int, bool]:
    """Send a signal; return the exit status, and whether the process ended within its grace."""
    start = monotonic()
    process.send_signal(number)
    return process.wait(60), monotonic() - start < GRACE_S


def fill(descriptor: int) -> None:
    """Write to a pipe until it is full; leave it in blocking mode."""
    os.set_blocking(descriptor, False)
    try:
        while True:
            os.write(descriptor, b"x" * 4096)
    except BlockingIOError:
        os.set_blocking(descriptor, True)


@each_pool
@pytest.mark.slow
def test_a_stopped_terminal_delays_neither_responses_nor_the_end(pool: list[str]) -> None:
    controller, terminal = os.openpty()
    with serve(*ENDLESS, *pool, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        port = read_port(controller)
        os.write(controller, CTRL_S)
        for _ in range(5):  # more than a status line, which is rewritten every second
            assert send_request("127.0.0.1", port, "/ping").status == 200
            assert send_request("127.0.0.1", port, "/healthz").status == 200
            sleep(0.5)
        assert stop(process) == (0, True)
    os.close(controller)


@pytest.mark.slow
def test_a_terminal_that_goes_on_shows_the_status_again() -> None:
    controller, terminal = os.openpty()
    with serve(*ENDLESS, stdout=terminal, stderr=terminal) as process:
        os.close(terminal)
        port = read_port(controller)
        os.write(controller, CTRL_S)
        assert [send_request("127.0.0.1", port, "/ping").status for _ in range(7)] == [200] * 7
        sleep(2.5)
        os.write(controller, CTRL_Q)
        output = ""
        while "7 admitted" not in output:
            output += os.read(controller, 1000).decode()
        assert stop(process) == (0, True)
    os.close(controller)


@each_pool
@pytest.mark.slow
def test_a_full_pipe_delays_neither_responses_nor_the_end(pool: list[str]) -> None:
    reader, writer = os.pipe()
    with serve(*ENDLESS, *pool, "--access-log", stdout=writer, stderr=writer) as process:
        os.close(writer)
        port = read_port(reader)
        with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
            for _ in range(4):
                connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 1000)
                answers = b""
                while answers.count(b"HTTP/1.1 200") < 1000:
                    received = connection.recv(1 << 20)
                    assert received, "the connection is closed"
                    answers += received
        assert send_request("127.0.0.1", port, "/healthz").status == 200
        assert stop(process) == (0, True)
    os.close(reader)


NOISE = """
import asyncio, logging, sys, warnings
import ratelab.http.app as app

ping = app.ping_app

async def noisy(scope, receive, send):
    for name in ("ratelab", "uvicorn.error", "asyncio", "other"):
        logging.getLogger(name).error("noise %s", "x" * 10_000)
    warnings.warn("noise" + "x" * 10_000)
    sys.stderr.write("noise" + "x" * 10_000 + "\\n")
    print("noise" + "x" * 10_000)
    await ping(scope, receive, send)

app.ping_app = noisy
"""


@each_pool
@pytest.mark.slow
def test_errors_stalled_from_the_start_delay_neither_responses_nor_the_end(pool: list[str]) -> None:
    (reader, writer), (reader_of_errors, errors) = os.pipe(), os.pipe()
    fill(errors)
    with serve(*ENDLESS, *pool, stdout=writer, stderr=errors, first=NOISE) as process:
        port = read_port(reader)
        for _ in range(20):
            assert send_request("127.0.0.1", port, "/ping").status == 200
        assert stop(process) == (0, True)
    for descriptor in (reader, writer, reader_of_errors, errors):
        os.close(descriptor)


@pytest.mark.slow
def test_log_records_of_every_library_are_lines_of_standard_error() -> None:
    with run_server(first=NOISE) as server:
        assert server.get().status == 200
        result = server.stop()
    assert "noisexxx" in result.stdout
    assert result.stderr.count("noise xxx") >= 4
    assert "UserWarning: noisexxx" in result.stderr


@pytest.mark.slow
@pytest.mark.parametrize("number", mark_slow([signal.SIGTERM, signal.SIGHUP], [signal.SIGTERM]))
@each_pool
def test_a_signal_stops_the_service_and_removes_its_folder(pool: list[str], number: int, tmp_path: Path) -> None:
    options = pool or ["--store", "embedded"]
    with run_server(*options, TMPDIR=str(tmp_path)) as server:
        assert server.get().status == 200
        assert any(tmp_path.glob("ratelab-*"))
        assert server.stop(number).code == 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.slow
def test_a_signal_during_the_start_removes_the_folder_of_the_store(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ratelab", "serve", "--port", "0", "--store", "embedded"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: any(tmp_path.glob("ratelab-*")))  # not a file with which Python tries the folder
        process.send_signal(signal.SIGTERM)
        process.wait(60)
    wait_until(lambda: not any(tmp_path.iterdir()))  # its supervisor removes it if this process is killed


@pytest.mark.slow
def test_a_service_without_a_terminal_survives_its_hangup() -> None:
    with run_server(first="import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)") as server:
        server.process.send_signal(signal.SIGHUP)
        assert server.get().status == 200
        assert server.stop().code == 0


def test_a_recording_in_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    message = f"--record must name a new file, got {tmp_path / 'pipe'}, which exists\n"
    assert get_error("serve", "--port", "0", "--record", tmp_path / "pipe") == message
