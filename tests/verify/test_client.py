"""HTTP client of live runs: each request is sent once, on time, and on a connection that is ready."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Barrier, Event, Thread

import pytest

from ratelab.errors import InputError
from ratelab.http.headers import PolicyHeader
from ratelab.verify.client import is_local, send_requests
from ratelab.verify.schedule import Response, ScheduledRequest

MS = 1_000_000
OK = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nRateLimit-Policy: "x";q=5\r\nRateLimit-Policy: "y"\r\n'
)
OK += b'RateLimit: "x";r=4;t=1\r\nRetry-After: 1\r\nRetry-After: 2\r\n\r\n'

Reply = Callable[[int], bytes]
"""Given the number of the request on its connection, returns the response; b"" closes the connection."""


class ReplyServer(ThreadingTCPServer):
    """A server that records the header sections of all requests and sends the responses of a function."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), ReplyHandler)
        self.reply, self.heads = reply, list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def keys(self) -> list[str]:
        """The values of the header X-Client, in the order of arrival."""
        return [head.partition("X-Client: ")[2].partition("\r\n")[0] for head in self.heads]


class ReplyHandler(StreamRequestHandler):
    server: ReplyServer

    def handle(self) -> None:
        number = 0
        while head := "".join(self.read_lines()):
            self.server.heads.append(head)
            response = self.server.reply(number)
            if not response:
                return
            self.wfile.write(response)
            number += 1

    def read_lines(self) -> Iterator[str]:
        """Yield the lines of a header section; none if the client has closed the connection."""
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            yield line.decode()


@contextmanager
def run_server(reply: Reply) -> Iterator[ReplyServer]:
    with ReplyServer(reply) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _short_lead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.verify.client.CONNECT_LEAD_NS", 50 * MS)


def send(
    server: ReplyServer,
    *requests: tuple[int, str],
    timeout_s: float = 30,
    on_response: Callable[[Response], None] = lambda _: None,
) -> tuple[int, list[Response]]:
    """Send requests, each with its time in milliseconds and its key."""
    schedule = [ScheduledRequest(at * MS, key) for at, key in requests]
    return send_requests(server.url, "X-Client", schedule, lambda earliest: earliest, timeout_s, on_response)


def test_responses_are_returned_in_the_order_of_the_requests() -> None:
    with run_server(lambda _: OK) as server:
        seen: list[Response] = []
        start, responses = send(server, (0, "a"), (0, "b"), (300, "c"), on_response=seen.append)
    assert sorted(server.keys) == ["a", "b", "c"]
    assert [response.sent_ns for response in responses] == sorted(response.sent_ns for response in responses)
    assert sorted(responses) == sorted(seen)
    for at, response in zip((0, 0, 300), responses, strict=True):
        assert start + at * MS <= response.sent_ns <= response.received_ns
        assert response[2:] == (200, PolicyHeader("x", 5, None), 4, 1, "1, 2", "")
    assert "Cookie" not in "".join(server.heads)


def test_no_request_waits_for_the_response_to_another() -> None:
    all_arrived = Barrier(3)

    def reply_after_all_arrived(_: int) -> bytes:
        all_arrived.wait(timeout=60)
        return OK

    with run_server(reply_after_all_arrived) as server:
        _, responses = send(server, (0, "a"), (20, "b"), (40, "c"))
    assert [response.status for response in responses] == [200, 200, 200]


def test_a_request_is_not_resent_after_its_connection_is_closed() -> None:
    with run_server(lambda number: b"" if number else OK) as server:
        _, responses = send(server, (0, "a"), (300, "b"))
    assert server.keys == ["a", "b"]
    assert [(response.status, response.error) for response in responses] == [(200, ""), (0, "Server disconnected")]


def test_a_response_after_the_timeout_is_an_error() -> None:
    released = Event()
    with run_server(lambda _: OK if released.wait(timeout=60) else b"") as server:
        _, (response,) = send(server, (0, "a"), timeout_s=0.1)
        released.set()
    assert (response.status, response.error) == (0, "timed out")
    assert response.sent_ns <= response.received_ns  # equal if it was too late to send


def test_an_exception_from_on_response_ends_the_run() -> None:
    def fail(_: Response) -> None:
        raise InputError("enough")

    with run_server(lambda _: OK) as server, pytest.raises(InputError, match="enough"):
        send(server, (0, "a"), (100, "b"), (3_600_000, "c"), on_response=fail)


def test_a_run_starts_at_the_chosen_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    earliest: list[int] = []

    def choose_start(time_ns: int) -> int:
        earliest.append(time_ns)
        return time_ns + 50 * MS

    with run_server(lambda _: OK) as server:
        assert is_local(server.url)
        called = time.monotonic_ns()
        start, (response,) = send_requests(
            server.url, "X-Client", [ScheduledRequest(0, "a")], choose_start, 30, lambda _: None
        )
    assert called < earliest[0] == start - 50 * MS
    assert response.status == 200
