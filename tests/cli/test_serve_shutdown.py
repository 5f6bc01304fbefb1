"""Graceful shutdown of `ratelab serve`."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys

import pytest
import uvicorn
from serve_process import GET, read_until_closed, run_server, send_request, statuses_in, wait_until
from slow_parameters import mark_slow
from valkey_servers import free_port

from ratelab.http.uvicorn_protocol import UvicornServer

WORKERS = ["--store", "embedded", "--workers", "2"]

EXITS_BY_SIGNAL = """
import ratelab.http.server, uvicorn
ratelab.http.server.UvicornServer = lambda config, on_stop: uvicorn.Server(config)
"""


@pytest.mark.parametrize("pool", [[], pytest.param(WORKERS, marks=pytest.mark.slow)], ids=["one process", "workers"])
@pytest.mark.parametrize("closed", mark_slow(["<&- >&- 2>&-", "<&- >&-", ">&- 2>&-"], ["<&- >&- 2>&-"]))
def test_it_serves_and_exits_cleanly_with_closed_standard_streams(closed: str, pool: list[str]) -> None:
    port = free_port()
    command = [sys.executable, "-m", "ratelab", "serve", "--access-log", "--port", str(port), *pool]
    with subprocess.Popen(["/bin/sh", "-c", f"exec {shlex.join(command)} {closed}"]) as process:
        wait_until(lambda: answers(port))
        assert send_request("127.0.0.1", port, "/ping").status == 200
        process.terminate()
        assert process.wait(60) == 0


def answers(port: int) -> bool:
    try:
        return send_request("127.0.0.1", port, "/healthz").status == 200
    except OSError:
        return False


@pytest.mark.slow
def test_requests_in_flight_are_answered_before_it_exits() -> None:
    queue = ("--algo", "leaky-bucket", "--rate", "1/8s", "--burst", 5, "--metrics-port", 0)
    with run_server(*queue) as server, server.connect() as slow:
        slow.sendall(GET * 2)
        wait_until(lambda: server.read_metrics()["waiting"] == 1)
        server.process.send_signal(signal.SIGTERM)
        assert statuses_in(read_until_closed(slow)) == [200, 200]
        assert server.wait() == (
            0,
            "",
            "stopping: 1 request in flight; press Ctrl-C again to drop it\n"
            "stopped: 2 admitted (1 after a wait), 0 denied, 1 client in memory\n",
        )


@pytest.mark.slow
def test_a_mutant_that_exits_by_the_signal_is_detected() -> None:
    with run_server(first=EXITS_BY_SIGNAL) as server:
        assert server.stop().code == -signal.SIGTERM


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_requests_that_cannot_finish_get_503(number: int) -> None:
    """Stop it during a long delay: by SIGTERM and its timeout, or by Ctrl-C twice."""
    slow = ("--algo", "leaky-bucket", "--rate", "1/h", "--burst", 5, "--metrics-port", 0)
    short = "import ratelab.http.server; ratelab.http.server.SHUTDOWN_TIMEOUT_S = 1"
    with run_server(*slow, first=short if number == signal.SIGTERM else "") as server, server.connect() as connection:
        connection.sendall(GET * 2)
        wait_until(lambda: server.read_metrics()["waiting"] == 1)
        server.process.send_signal(number)
        if number == signal.SIGINT:
            wait_until(lambda: not server.accepts_connections())
            server.process.send_signal(number)
        assert statuses_in(read_until_closed(connection)) == [200, 503]
        code, _, stderr = server.wait()
        assert (code, "stopped: 1 admitted, 0 denied, 1 dropped from the queue, " in stderr) == (0, True)


def test_a_later_sigterm_does_not_undo_a_second_interrupt() -> None:
    server = UvicornServer(uvicorn.Config(lambda: None), lambda _: None)
    forced = []
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        server.handle_exit(number, None)
        forced.append(server.force_exit)
    assert forced == [False, False, True, True]
