"""Doors of HTTP: one application behind the limits of each framework, for `test_conformance.py`.

To register a door, write a module `NAME_door.py` next to this one that has `DOOR = Door(...)`, and add its name to
`DOORS`. `serve` creates an application with the pages of `PAGES` in the framework, behind one limit with the given
limiter and arguments of a `Gate` (`ratelab.http.gate.GateArguments`), and returns a function that sends a request to it
without a network. Functions among the arguments ignore what the door gives them, or are made by `by_route`, so that the
suite need not know the framework.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, NamedTuple

import pytest
from slow_parameters import mark_slow

from ratelab.http.asgi import Field
from ratelab.limiter import Decision

DOORS = ("asgi", "wsgi", "flask", "fastapi_route", "fastapi_app", "django", "django_asgi")
"""The names of the doors."""

FAST_DOORS = ("asgi", "wsgi")
"""Those that the fast run tests with this suite; the others have fast tests of their own."""

PEER = "192.0.2.1"


class Request(NamedTuple):
    """A request to a door."""

    path: str = "/ping"
    method: str = "GET"
    headers: str = ""
    """Lines such as `X-API-Key: alice`; the name of a line may repeat that of another."""
    peer: str | None = PEER
    """The address of the socket's peer; None for a Unix socket."""
    root: str = ""
    """The prefix at which a server has mounted the application."""


class Reply(NamedTuple):
    """A complete response; the names of its fields are in lower case."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def of(self, name: str) -> list[str]:
        """Return the value of each header line with a name."""
        return [value for field, value in self.fields if field == name]

    @property
    def raw_fields(self) -> list[Field]:
        """The fields as bytes."""
        return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in self.fields]


Client = Callable[[Request], Reply]
"""Send a request. An exception that the framework passes on to the server is a reply with the status 500."""

FILE = b"file " * 1000

PAGES: Mapping[str, str] = {
    "/ping": "200 with `Content-Type: text/plain` and the body `pong`; also for HEAD and POST",
    "/stream": "200 with a body in two parts, `one` and `two`, of which the second is made after the first was sent",
    "/file": "200 with `FILE`, sent by the means of the framework for files, with `Content-Length`",
    "/refused": "401, with an empty body",
    "/fail": "an exception `RuntimeError`, before anything is sent",
    "/remaining": "200 with `remaining` of the decision on the request as text, or `none`",
    "/later": "200, and after the response, the background work of the framework appends `later` to `LATER`",
    "/legacy": "200 with `X-RateLimit-Limit: 60`, `X-RateLimit-Remaining: 2` and `X-RateLimit-Reset: 1`",
}
"""The pages of the application. Other paths are answered 404 by the framework."""

LATER: list[str] = []
"""What the background work of `/later` has done."""


class Door(NamedTuple):
    """A door, and what its protocol and framework allow."""

    serve: Callable[..., Client]
    """Create the application behind a limit: `serve(limiter, **arguments)`."""
    on_denied: Callable[[Any, Decision], Any]
    """A hook as the door has it, that responds 418 with `X-Door: closed` and the body `teapot`."""
    covers_all: bool = True
    """Whether the limit applies to all paths, also those that the application does not know, instead of pages."""
    tells_repeated_fields: bool = True
    """Whether the door sees repeated header fields one by one; else a server has joined them with commas."""
    blocks: bool = False
    """Whether the door holds a thread for each request, so that `max_delay` bounds a delay, and nothing is awaited."""


@pytest.fixture(params=mark_slow(DOORS, FAST_DOORS), scope="module")
def door(request: pytest.FixtureRequest) -> Door:
    """Run a test for each door."""
    found: Door = import_module(f"{request.param}_door").DOOR
    return found


def statuses(client: Client, *requests: Request) -> list[int]:
    """Send requests one after the other; return the statuses."""
    return [client(request).status for request in requests]


def problem_of(reply: Reply) -> dict[str, Any]:
    """Return the problem in a reply; check its type, its status and its length."""
    problem: dict[str, Any] = json.loads(reply.body)
    assert reply.of("content-type") == ["application/problem+json"]
    assert reply.of("content-length") == [str(len(reply.body))]
    assert problem["status"] == reply.status
    return problem
