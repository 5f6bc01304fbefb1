"""RESP, the protocol of Valkey and Redis, as far as the limiters need it: https://valkey.io/topics/protocol/.

The client library takes longer to parse a reply than the server takes to decide.
"""

from __future__ import annotations

import re
from typing import Any

from ratelab.errors import StoreError

MAX_REPLY_BYTES = 1 << 24
"""A reply that announces a length from this on is rejected."""


class ReplyError(Exception):
    """An error reply; `code` is its first word, such as `NOSCRIPT`."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        in_script = _SCRIPT_ERROR.match(text)
        self.text = in_script[2] if in_script and in_script[2] else _SCRIPT_PLACE.sub("", text)
        """The error itself, which Redis 6.2 puts at the end of a text on the script that it ended."""
        self.line = int(in_script[1]) if in_script else 0
        """The line of the script that caused it; 0 if it was none."""
        self.code = "NOPERM" if _NO_PERMISSION_IN_SCRIPT.search(text) else self.text.partition(" ")[0]
        self.closes = text.startswith(_LAST_REPLIES)
        """Whether the server closes the connection after this reply, which may be noticed later."""


_LAST_REPLIES = ("ERR Protocol error", "ERR max number of clients reached")
_SCRIPT_PLACE = re.compile(r" script: (?:\w+, )?on @user_script:\d+")
_SCRIPT_ERROR = re.compile(r".*@user_script: ?(\d+)(?:: -?([A-Z]+ .*))?")
_NO_PERMISSION_IN_SCRIPT = re.compile(r"^ERR ACL failure in script|The user executing the script can't")


def encode_bulk(value: object) -> bytes:
    """Encode one argument of a command."""
    text = str(value).encode()
    return b"$%d\r\n%b\r\n" % (len(text), text)


def encode_command(*arguments: object) -> bytes:
    """Encode a command with its arguments."""
    return b"*%d\r\n" % len(arguments) + b"".join(map(encode_bulk, arguments))


def parse_reply(data: bytes, start: int = 0) -> tuple[Any, int] | None:
    """Parse the reply at `start`; return it and the position of its end, or None if it is incomplete.

    A string is returned as bytes, and an error reply as a `ReplyError`, which is not raised. Raises `StoreError` for
    data that are not a reply.
    """
    end = data.find(b"\r\n", start)
    if end < 0:
        return None
    kind, text, after = data[start : start + 1], data[start + 1 : end], end + 2
    if kind == b"$":
        size = _parse_size(text)
        if size < 0:
            return None, after
        return (data[after : after + size], after + size + 2) if len(data) >= after + size + 2 else None
    if kind == b"*":
        return _parse_array(data, after, _parse_size(text))
    if kind == b"-":
        return ReplyError(text.decode(errors="replace")), after
    if kind == b":":
        return _parse_integer(text), after
    if kind == b"+":
        return text, after
    raise _unexpected_reply(data[start:])


def _parse_array(data: bytes, start: int, count: int) -> tuple[Any, int] | None:
    values = []
    for _ in range(count):
        parsed = parse_reply(data, start)
        if parsed is None:
            return None
        value, start = parsed
        values.append(value)
    return values, start


def _parse_size(text: bytes) -> int:
    size = _parse_integer(text)
    if size >= MAX_REPLY_BYTES:
        raise _unexpected_reply(text)
    return size


def _parse_integer(text: bytes) -> int:
    try:
        return int(text)
    except ValueError:
        raise _unexpected_reply(text) from None


def _unexpected_reply(data: bytes) -> StoreError:
    return StoreError("other", f"not a Valkey or Redis server: unexpected reply {data[:40]!r}")
