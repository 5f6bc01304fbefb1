"""Parser of rate-limit header fields that rejects what the standards do not allow; uses http-sf."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any, NamedTuple, cast

import http_sf

from ratelab.http.asgi import Field

LARGEST = 10**15 - 1


class Limits(NamedTuple):
    """The values in a response's rate-limit header fields; times are in seconds."""

    name: str
    q: int
    w: int
    r: int
    t: int
    retry_after: int | None


def parse_limits(fields: Iterable[Field]) -> Limits:
    """Parse the fields of a response; fail on any that RFC 9651, RFC 9110 or the draft does not allow."""
    fields = list(fields)
    name, policy = _only_item(fields, b"ratelimit-policy")
    same_name, state = _only_item(fields, b"ratelimit")
    assert name == same_name
    assert (list(policy), list(state)) == (["q", "w"], ["r", "t"])
    for number in (*policy.values(), *state.values()):
        assert type(number) is int
        assert 0 <= number <= LARGEST
    assert policy["w"] >= 1
    waits = [value.decode() for field, value in fields if field == b"retry-after"]
    assert len(waits) <= 1
    assert all(re.fullmatch("[1-9][0-9]*", wait) for wait in waits)
    return Limits(name, policy["q"], policy["w"], state["r"], state["t"], int(waits[0]) if waits else None)


def _only_item(fields: list[Field], name: bytes) -> tuple[str, dict[str, Any]]:
    """Return the String and the parameters of a field that has one line and one item."""
    lines = [value for field, value in fields if field == name]
    assert len(lines) == 1
    try:
        items = cast("list[tuple[str, dict[str, Any]]]", http_sf.parse(lines[0], tltype="list"))
    except ValueError as error:
        raise AssertionError(f"{lines[0]!r}: {error}") from error
    assert [type(text) for text, _ in items] == [str]
    return items[0]
