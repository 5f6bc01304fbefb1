"""WSGI applications for tests, and a body that remembers whether it was closed."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator
from typing import Any

Environ = dict[str, Any]
TEXT = [("content-type", "text/plain")]


def hello(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", TEXT)
    return [b"hello"]


class Body:
    """A body that remembers whether it was closed."""

    def __init__(self, *parts: bytes) -> None:
        self.parts, self.closed = parts, 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        self.closed += 1


def failing_late(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Replace a response that has not started by an error."""
    start_response("200 OK", TEXT)
    try:
        raise RuntimeError("failed")
    except RuntimeError:
        start_response("500 Internal Server Error", TEXT, sys.exc_info())
    yield b"failed"
