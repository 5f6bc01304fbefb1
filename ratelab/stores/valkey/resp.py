"""The store's protocol, as far as it is needed (https://valkey.io/topics/protocol/): requests and replies.

The client's own reader takes longer over a reply than the server over the decision.
"""

from __future__ import annotations

from typing import Any

from ratelab.errors import StoreError

LARGEST_REPLY = 1 << 24
"""Bytes; an answer that says it is longer is not waited for."""


def bulk(value: object) -> bytes:
    """Write a string of a request."""
    text = str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


def request(*words: object) -> bytes:
    """Write a whole request."""
    return b"*%d\r\n" % len(words) + b"".join(map(bulk, words))


def parse(data: bytes, start: int = 0) -> tuple[Any, int] | None:
    """Read the reply that begins at `start`; return it and where it ends, or None if it is not all there.

    A string is bytes, an error is the client's exception, not raised. Raises `StoreError` for what is no reply.
    """
    end = data.find(b"\r\n", start)
    if end < 0:
        return None
    kind, text, after = data[start : start + 1], data[start + 1 : end], end + 2
    if kind == b"$":
        size = _size(text)
        if size < 0:
            return None, after
        return (data[after : after + size], after + size + 2) if len(data) >= after + size + 2 else None
    if kind == b"*":
        return _parse_many(data, after, _size(text))
    if kind == b"-":
        return _error(text), after
    if kind == b":":
        return _whole(text), after
    if kind == b"+":
        return text, after
    raise _nonsense(data[start:])


def _parse_many(data: bytes, start: int, count: int) -> tuple[Any, int] | None:
    values = []
    for _ in range(count):
        parsed = parse(data, start)
        if parsed is None:
            return None
        value, start = parsed
        values.append(value)
    return values, start


def _size(text: bytes) -> int:
    size = _whole(text)
    if size >= LARGEST_REPLY:
        raise _nonsense(text)
    return size


def _whole(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise _nonsense(text) from None


def _error(text: bytes) -> Exception:
    from valkey._parsers.base import BaseParser

    error: Exception = BaseParser.parse_error(text.decode(errors="replace"))  # type: ignore[no-untyped-call]
    return error


def _nonsense(data: bytes) -> StoreError:
    return StoreError("other", f"what answers is no store: it says {data[:40]!r}")
