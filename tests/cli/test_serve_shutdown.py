"""A service that is stopped finishes what it has begun, and ends as a success."""

from __future__ import annotations

import signal

import pytest
import uvicorn
from serve_process import GET, serving, statuses_in, until_closed

from ratelab.http.server import UvicornServer

ENDED_BY_SIGNAL = """
import ratelab.http.server, uvicorn
ratelab.http.server.UvicornServer = lambda config, on_stop: uvicorn.Server(config)
"""


def test_it_ends_when_the_requests_in_flight_have_been_answered() -> None:
    with serving("--algo", "leaky-bucket", "--rate", "1/2s", "--metrics-port", 0) as server, server.connect() as slow:
        slow.sendall(GET * 2)
        while server.figures()["waiting"] < 1:
            pass
        server.process.send_signal(signal.SIGTERM)
        assert statuses_in(until_closed(slow)) == [200, 200]
        assert server.wait() == (
            0,
            "",
            "stopping: 1 request in flight; Ctrl-C again drops them\n"
            "stopped: 2 admitted (1 after a wait), 0 denied, 1 client in memory\n",
        )


def test_a_server_that_ends_by_the_signal_is_noticed() -> None:
    with serving(first=ENDED_BY_SIGNAL) as server:
        assert server.stop().code == -signal.SIGTERM


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_answers_503_when_it_cannot_wait_longer(number: int) -> None:
    """Stop it while a request is delayed beyond its grace, or by two interrupts, as people do."""
    slow = ("--algo", "leaky-bucket", "--rate", "1/h", "--metrics-port", 0)
    grace = "import ratelab.http.server; ratelab.http.server.GRACE = 1" if number == signal.SIGTERM else ""
    with serving(*slow, first=grace) as server, server.connect() as connection:
        connection.sendall(GET * 2)
        while server.figures()["waiting"] < 1:
            pass
        server.process.send_signal(number)
        if number == signal.SIGINT:
            while server.listens():
                pass
            server.process.send_signal(number)
        assert statuses_in(until_closed(connection)) == [200, 503]
        code, _, stderr = server.wait()
        assert (code, "stopped: 1 admitted, 0 denied, 1 dropped from the queue, " in stderr) == (0, True)


def test_a_supervisors_signal_does_not_take_a_second_interrupt_back() -> None:
    server = UvicornServer(uvicorn.Config(lambda: None), lambda _: None)
    impatient = []
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGTERM):
        server.handle_exit(number, None)
        impatient.append(server.force_exit)
    assert impatient == [False, False, True, True]
