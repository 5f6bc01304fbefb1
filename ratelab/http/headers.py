"""What a limiter tells a client: the fields of draft-ietf-httpapi-ratelimit-headers-10, and the older ones."""

from __future__ import annotations

import re
import time
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import Field, Headers
from ratelab.limiter import NEVER, Decision, Policy

LEGACY = ("off", "delta", "epoch")
"""What `X-RateLimit-Reset` holds: nothing, seconds from now, or seconds since 1970."""

SECOND = 10**9
"""Nanoseconds."""

_LARGEST = 10**15 - 1  # what an Integer of a structured field may be (RFC 9651, section 3.3.1)
_MOST_KEPT = 4096


def seconds(nanoseconds: int) -> int:
    """Round a wait up to whole seconds, since HTTP has no shorter ones."""
    return -(-nanoseconds // SECOND)


class HeaderWriter:
    """The header fields of one policy's decisions, each distinct set of values written once.

    `RateLimit-Policy` says the quota: `q` the burst, `w` the seconds in which the rate grants it, at least 1.
    `RateLimit` says the state: `r` is what remains, 0 where the request is denied; `t` the seconds until the key is as
    good as new or, where the request is denied, the wait, which is also `Retry-After`, at least 1. A request that no
    wait can help gets no `Retry-After`. With `legacy`, `X-RateLimit-Limit`, `-Remaining` and `-Reset` say the same.

    Raises `InputError` for a `legacy` there is not, and for a name of the policy that a field cannot hold; by default
    the policy's own name is used.
    """

    def __init__(self, policy: Policy, legacy: str = "off", name: str | None = None) -> None:
        if legacy not in LEGACY:
            raise InputError(f"legacy headers must be one of {', '.join(LEGACY)}, got {short_repr(legacy)}")
        self.burst, window = policy.quota.burst, policy.quota.window
        self._name = _string(policy.name if name is None else name)
        self._policy = b"%s;q=%d;w=%d" % (self._name, min(self.burst, _LARGEST), max(1, seconds(window)))
        self._legacy = legacy
        self._kept = lru_cache(maxsize=_MOST_KEPT)(self._write)
        self.written = self._kept if legacy != "epoch" else self._with_epoch
        """Write `remaining`, whole seconds of `wait`, and whether the request is denied."""

    def of(self, decision: Decision) -> Headers:
        """Return the fields of a decision."""
        allowed, remaining, retry_after_ns, reset_after_ns, _ = decision
        if allowed or retry_after_ns == NEVER:
            return self.written(remaining, seconds(reset_after_ns), False)
        return self.written(0, seconds(retry_after_ns), True)

    def _with_epoch(self, remaining: int, wait: int, denied: bool) -> Headers:
        reset = ceil(time.time()) + wait
        return (*self._kept(remaining, wait, denied), (b"x-ratelimit-reset", b"%d" % reset))

    def _write(self, remaining: int, wait: int, denied: bool) -> Headers:
        fields: list[Field] = [
            (b"ratelimit-policy", self._policy),
            (b"ratelimit", b"%s;r=%d;t=%d" % (self._name, min(remaining, _LARGEST), wait)),
        ]
        if denied:
            fields.append((b"retry-after", b"%d" % wait))
        if self._legacy != "off":
            fields.append((b"x-ratelimit-limit", b"%d" % self.burst))
            fields.append((b"x-ratelimit-remaining", b"%d" % remaining))
        if self._legacy == "delta":
            fields.append((b"x-ratelimit-reset", b"%d" % wait))
        return tuple(fields)


def _string(text: str) -> bytes:
    """Write a String of a structured field (RFC 9651, section 4.1.6)."""
    if not text or not text.isascii() or not text.isprintable():
        raise InputError(f"a header field cannot hold the name {short_repr(text)} of a policy: use printable ASCII")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode()


class PolicyHeader(NamedTuple):
    """What `RateLimit-Policy` says."""

    name: str
    quota: int | None
    """`q`, the burst."""
    window: int | None
    """`w`, the seconds in which the rate grants it."""


# an Item of a structured field (RFC 9651): a String or a Token, then parameters; what follows a comma is another
_ITEM = re.compile(r'\s*(?:"((?:[^"\\]|\\["\\])*)"|([A-Za-z*][^\s;,"]*))((?:\s*;[^;,]*)*)\s*(?:,.*)?')
_PARAMETER = re.compile(r";\s*([a-z])=(\d{1,15})\s*(?=;|$)")


def read_policy(text: str) -> PolicyHeader | None:
    """Read the first policy of `RateLimit-Policy`; None if there is none that can be read."""
    item = _read(text)
    return item and PolicyHeader(item[0], item[1].get("q"), item[1].get("w"))


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
