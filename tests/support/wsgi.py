"""Requests to a WSGI application without a server."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, nullcontext
from typing import Any, NamedTuple
from wsgiref.types import WSGIApplication
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

PEER = "192.0.2.1"


class WsgiResponse(NamedTuple):
    """A complete response; the names of its fields are in lower case."""

    status: int
    fields: list[tuple[str, str]]
    body: bytes

    def of(self, name: str) -> list[str]:
        """Return the value of each header line with a name."""
        return [value for field, value in self.fields if field == name]


def environ_of(
    peer: str | None = PEER, headers: str = "", method: str = "GET", path: str = "/ping", root: str = ""
) -> dict[str, Any]:
    """Create the environment of a request as a server does; repeated lines of `headers` are joined with commas."""
    environ: dict[str, Any] = {"REMOTE_ADDR": peer or "", "REMOTE_PORT": "50000", "QUERY_STRING": ""}
    environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "SCRIPT_NAME": root, "wsgi.input": io.BytesIO()}
    environ["wsgi.file_wrapper"] = FileWrapper
    for line in filter(None, headers.split("\n")):
        name, _, value = line.partition(": ")
        field = f"HTTP_{name.upper().replace('-', '_')}".replace("HTTP_CONTENT_", "CONTENT_")
        environ[field] = f"{environ[field]},{value}" if field in environ else value
    setup_testing_defaults(environ)
    return environ


def call(
    app: WSGIApplication,
    peer: str | None = PEER,
    headers: str = "",
    method: str = "GET",
    path: str = "/ping",
    root: str = "",
) -> WsgiResponse:
    """Send one request; return the response. Fail if the application breaks the rules of PEP 3333."""
    return run(validator(app), environ_of(peer, headers, method, path, root))


def run(app: WSGIApplication, environ: dict[str, Any]) -> WsgiResponse:
    """Run an application as a server does: the last start of the response before its first part counts."""
    starts: list[tuple[str, list[tuple[str, str]]]] = []
    written: list[bytes] = []

    def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
        if starts and not exc_info:
            raise AssertionError("a response was started twice")
        if exc_info and any(written):
            raise exc_info[1].with_traceback(exc_info[2])
        starts.append((status, headers))
        return written.append

    body = app(environ, start_response)
    with closing(body) if hasattr(body, "close") else nullcontext():  # type: ignore[type-var]
        parts = iter(body)
        written.extend(iterate(parts, starts))
    status, headers = starts[-1]
    return WsgiResponse(int(status[:3]), [(name.lower(), value) for name, value in headers], b"".join(written))


def iterate(parts: Iterator[bytes], starts: list[Any]) -> Iterator[bytes]:
    """Yield the parts of a body, each of which follows the start of the response."""
    for part in parts:
        assert starts
        yield part
