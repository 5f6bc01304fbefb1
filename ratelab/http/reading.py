"""What a limiter told a client, read back: the fields that `headers` writes, whoever wrote them."""

from __future__ import annotations

import re
from typing import NamedTuple


class Policy(NamedTuple):
    """What `RateLimit-Policy` says."""

    name: str
    quota: int | None
    """`q`, the burst."""
    window: int | None
    """`w`, the seconds in which the rate grants it."""


# an Item of a structured field (RFC 9651): a String or a Token, then parameters; what follows a comma is another
_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\["\\])*)"|([A-Za-z*][^\s;,"]*))((?:\s*;[^;,]*)*)\s*(?:,.*)?')
_PARAMETER = re.compile(r";\s*([a-z])=(\d{1,15})\s*(?=;|$)")


def read_policy(text: str) -> Policy | None:
    """Read the first policy of `RateLimit-Policy`; None if there is none that can be read."""
    item = _read(text)
    return item and Policy(item[0], item[1].get("q"), item[1].get("w"))


def read_state(text: str) -> tuple[int, int] | None:
    """Read `r` and `t` of the first policy in `RateLimit`; None unless both are there."""
    _, parameters = _read(text) or ("", {})
    return (parameters["r"], parameters["t"]) if parameters.keys() >= {"r", "t"} else None


def _read(text: str) -> tuple[str, dict[str, int]] | None:
    item = _ITEM.fullmatch(text)
    if item is None:
        return None
    string, token, parameters = item.groups()
    name = token if string is None else re.sub(r"\\(.)", r"\1", string)
    return name, {key: int(value) for key, value in _PARAMETER.findall(parameters)}
