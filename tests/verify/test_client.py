"""The player: every request at its own time, once, and on a connection that waits for it."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from threading import Barrier, Event, Thread

import pytest

from ratelab.errors import InputError
from ratelab.http.headers import PolicyHeader
from ratelab.verify.client import Response, ScheduledRequest, play, reach

MS = 1_000_000
OK = (
    b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\nSet-Cookie: a=b\r\nRateLimit-Policy: "x";q=5\r\nRateLimit-Policy: "y"\r\n'
)
OK += b'RateLimit: "x";r=4;t=1\r\nRetry-After: 1\r\nRetry-After: 2\r\n\r\n'

Reply = Callable[[int], bytes]
"""Given which request of its connection it is, returns the answer; nothing cuts the connection."""


class Heard(ThreadingTCPServer):
    """A server that keeps the heads of all requests, and answers as it is told."""

    daemon_threads = True

    def __init__(self, reply: Reply) -> None:
        super().__init__(("127.0.0.1", 0), Talk)
        self.reply, self.heads = reply, list[str]()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/"

    @property
    def keys(self) -> list[str]:
        """The values of the header X-Client, in the order of their coming."""
        return [head.partition("X-Client: ")[2].partition("\r\n")[0] for head in self.heads]


class Talk(StreamRequestHandler):
    server: Heard

    def handle(self) -> None:
        number = 0
        while head := "".join(self.lines()):
            self.server.heads.append(head)
            answer = self.server.reply(number)
            if not answer:
                return
            self.wfile.write(answer)
            number += 1

    def lines(self) -> Iterator[str]:
        """Yield a head's lines; none if the client has closed the connection."""
        while (line := self.rfile.readline()) not in (b"", b"\r\n"):
            yield line.decode()


@contextmanager
def heard(reply: Reply) -> Iterator[Heard]:
    with Heard(reply) as server:
        thread = Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take connections shortly before they are needed."""
    monkeypatch.setattr("ratelab.verify.client.LEAD", 50 * MS)


def played(
    server: Heard, *requests: tuple[int, str], patience: float = 30, seen: Callable[[Response], object] = lambda _: None
) -> tuple[int, list[Response]]:
    """Play requests at so many milliseconds each."""
    asked = [ScheduledRequest(at * MS, key) for at, key in requests]
    return play(server.url, "X-Client", asked, lambda earliest: earliest, patience, seen)  # type: ignore[arg-type]


def test_what_was_answered_is_returned_in_the_order_of_the_requests() -> None:
    with heard(lambda _: OK) as server:
        seen: list[Response] = []
        origin, answers = played(server, (0, "a"), (0, "b"), (300, "c"), seen=seen.append)
    assert sorted(server.keys) == ["a", "b", "c"]
    assert [one.sent_ns for one in answers] == sorted(one.sent_ns for one in answers)
    assert sorted(answers) == sorted(seen)
    for at, one in zip((0, 0, 300), answers, strict=True):
        assert origin + at * MS <= one.sent_ns <= one.answered_ns
        assert one[2:] == (200, PolicyHeader("x", 5, None), 4, 1, "1, 2", "")
    assert "Cookie" not in "".join(server.heads)


def test_nobody_waits_for_the_answer_of_another() -> None:
    all_there = Barrier(3)

    def when_all_are_there(_: int) -> bytes:
        all_there.wait(timeout=30)
        return OK

    with heard(when_all_are_there) as server:
        _, answers = played(server, (0, "a"), (20, "b"), (40, "c"))
    assert [one.status for one in answers] == [200, 200, 200]


def test_a_request_is_sent_once_though_its_connection_is_cut() -> None:
    with heard(lambda number: b"" if number else OK) as server:
        _, answers = played(server, (0, "a"), (300, "b"))
    assert server.keys == ["a", "b"]
    assert [(one.status, one.error) for one in answers] == [(200, ""), (0, "Server disconnected")]


def test_an_answer_that_does_not_come_in_time_is_an_error() -> None:
    enough = Event()
    with heard(lambda _: OK if enough.wait(timeout=30) else b"") as server:
        _, (answer,) = played(server, (0, "a"), patience=0.1)
        enough.set()
    assert (answer.status, answer.error) == (0, "no answer in time")
    assert answer.sent_ns < answer.answered_ns


def test_what_on_answer_raises_ends_the_play() -> None:
    def refuse(_: Response) -> None:
        raise InputError("enough")

    with heard(lambda _: OK) as server, pytest.raises(InputError, match="enough"):
        played(server, (0, "a"), (100, "b"), (3_600_000, "c"), seen=refuse)


def test_it_begins_when_it_is_told_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    earliest: list[int] = []

    def later(moment: int) -> int:
        earliest.append(moment)
        return moment + 50 * MS

    with heard(lambda _: OK) as server:
        assert reach(server.url)
        called = time.monotonic_ns()
        origin, (answer,) = play(server.url, "X-Client", [ScheduledRequest(0, "a")], later, 30, lambda _: None)
    assert called < earliest[0] == origin - 50 * MS
    assert answer.status == 200
