"""Rate-limit response headers, written and parsed: draft-ietf-httpapi-ratelimit-headers-10, and `X-RateLimit-*`."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, NamedTuple

from ratelab.clock import default_clocks
from ratelab.errors import InputError, short_repr
from ratelab.http.asgi import Field
from ratelab.limiter import NEVER, Decision
from ratelab.quota import NS_PER_S

if TYPE_CHECKING:
    from ratelab.algorithms import Policy

LEGACY = ("off", "delta", "epoch")
"""Whether to write `X-RateLimit-*`, with a `Reset` in seconds from now or in seconds since 1970."""

MAX_FIELD_INTEGER = 10**15 - 1
"""The largest Integer of a structured field (RFC 9651, section 3.3.1)."""

MAX_CACHED_HEADERS = 4096
"""Sets of headers that a `HeaderWriter` keeps formatted."""

_LEGACY_FIELDS = (b"x-ratelimit-limit", b"x-ratelimit-remaining", b"x-ratelimit-reset")


def check_legacy(legacy: str) -> str:
    """Return a style of legacy headers; raise `InputError` for an unknown one."""
    if legacy not in LEGACY:
        raise InputError(f"legacy headers must be one of {', '.join(LEGACY)}, got {short_repr(legacy)}")
    return legacy


def ceil_seconds(nanoseconds: int) -> int:
    """Convert nanoseconds to whole seconds, rounded up: HTTP has no shorter unit."""
    return -(-nanoseconds // NS_PER_S)


class HeaderWriter:
    """Format the header fields for decisions of one policy; each distinct set of values is formatted once.

    `RateLimit-Policy` describes the quota: `q` is the burst, `w` the seconds in which the rate grants it, at least 1.
    `RateLimit` describes the state. For an admitted request, `r` is the remaining quota and `t` the seconds until the
    key is fully replenished. For a denied one, `r` is 0 and `t` the wait, at least 1, which is also `Retry-After`. A
    request that costs more than the burst has no `Retry-After`, since no wait is long enough.

    With `legacy`, `X-RateLimit-Limit`, `-Remaining` and `-Reset` repeat `q`, `r` and `t`; `epoch` adds the time to `t`.

    Raise `InputError` for an unknown `legacy`, or a name that a header field cannot hold; `name` replaces the policy's.
    """

    def __init__(self, policy: Policy, legacy: str = "off", name: str | None = None) -> None:
        self.burst = policy.quota.burst
        self._name = format_string(policy.name if name is None else name)
        self._policy = format_policy(policy, self._name)
        self._legacy = check_legacy(legacy)
        self.cache: dict[tuple[int, int], list[Field]] = {}
        """Header fields of admitted requests by `remaining` and `t`, but for `epoch`, whose reset changes with time."""

    def format_decision(self, decision: Decision) -> list[Field]:
        """Return the header fields for a decision."""
        allowed, remaining, retry_after_ns, reset_after_ns, _ = decision.row
        if allowed or retry_after_ns == NEVER:
            return self.format(remaining, ceil_seconds(reset_after_ns), False)
        return self.format(0, ceil_seconds(retry_after_ns), True)

    def format(self, remaining: int, seconds: int, denied: bool) -> list[Field]:
        """Format `remaining`, the seconds `t`, and whether the request is denied."""
        if denied or self._legacy == "epoch":
            return self._format(remaining, seconds, denied)
        headers = self.cache.get((remaining, seconds))
        if headers is None:
            if len(self.cache) >= MAX_CACHED_HEADERS:
                self.cache.clear()
            headers = self.cache[remaining, seconds] = self._format(remaining, seconds, denied)
        return headers

    def _format(self, remaining: int, seconds: int, denied: bool) -> list[Field]:
        fields: list[Field] = [
            (b"ratelimit-policy", self._policy),
            (b"ratelimit", format_state(self._name, remaining, seconds)),
        ]
        if denied:
            fields.append((b"retry-after", b"%d" % seconds))
        return [*fields, *format_legacy(self._legacy, self.burst, remaining, seconds)]


def format_policy(policy: Policy, name: bytes) -> bytes:
    """Format the item of `RateLimit-Policy` for a policy whose name is already formatted.

    `qu` is the unit of a cost other than requests; that of bytes is registered.
    """
    size, window = min(policy.quota.burst, MAX_FIELD_INTEGER), max(1, ceil_seconds(policy.quota.window))
    unit = "content-bytes" if policy.cost == "bytes" else policy.cost
    quota_unit = b"" if unit == "requests" else b";qu=" + format_string(unit)
    return b"%s;q=%d%s;w=%d" % (name, size, quota_unit, window)


def format_state(name: bytes, remaining: int, seconds: int) -> bytes:
    """Format an item of `RateLimit` for a policy whose name is already formatted."""
    return b"%s;r=%d;t=%d" % (name, min(remaining, MAX_FIELD_INTEGER), seconds)


def format_legacy(legacy: str, burst: int, remaining: int, seconds: int) -> list[Field]:
    """Format `X-RateLimit-*`, unless `legacy` is `off`."""
    if legacy == "off":
        return []
    reset = seconds if legacy == "delta" else ceil_seconds(default_clocks.wall()) + seconds
    return [
        (b"x-ratelimit-limit", b"%d" % burst),
        (b"x-ratelimit-remaining", b"%d" % remaining),
        (b"x-ratelimit-reset", b"%d" % reset),
    ]


TextFields = list[tuple[str, str]]
"""Header fields as text, as WSGI and most frameworks have them."""


def decode_fields(fields: Iterable[Field]) -> TextFields:
    """Return header fields as text."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in fields]


def join_legacy(fields: Iterable[Field], added: Iterable[Field]) -> list[Field]:
    """Append fields to those of a response, so that one set of `X-RateLimit-*` is left.

    If both have such fields, as those of two limiters, only the set with the lower `Remaining` is kept: unlike
    `RateLimit`, they can describe one limit alone. A set of the response without a number is kept.
    """
    fields, added = [*fields], [*added]
    if not (_has_legacy(added) and _has_legacy(fields)):
        return [*fields, *added]
    before, after = (dict(each).get(b"x-ratelimit-remaining", b"") for each in (fields, added))
    if before.isdigit() and int(after) < float(before):  # a float, since an application may send any number of digits
        return [*_without_legacy(fields), *added]
    return [*fields, *_without_legacy(added)]


def _has_legacy(fields: list[Field]) -> bool:
    return any(name in _LEGACY_FIELDS for name, _ in fields)


def _without_legacy(fields: list[Field]) -> list[Field]:
    return [field for field in fields if field[0] not in _LEGACY_FIELDS]


def complete_fields(present: Iterable[Field], usual: Iterable[Field]) -> list[Field]:
    """Return the fields of a response, and those of the usual response to a denied request that it lacks."""
    fields = [*present]
    names = {name for name, _ in fields}
    missing = [
        (name, value)
        for name, value in usual
        if ((name, value) not in fields if name.startswith(b"ratelimit") else name not in names)
        and not name.startswith(b"content-")
    ]
    return [*fields, *missing]


def format_string(text: str) -> bytes:
    """Format a String of a structured field (RFC 9651, section 4.1.6)."""
    if not isinstance(text, str) or not text or not text.isascii() or not text.isprintable():
        raise InputError(f"a header field cannot hold the name {short_repr(text)} of a policy: use printable ASCII")
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'.encode()


class PolicyHeader(NamedTuple):
    """The first policy of a `RateLimit-Policy` field."""

    name: str
    quota: int | None
    """`q`, the burst."""
    window: int | None
    """`w`, the seconds in which the rate grants `q`."""


# an Item of a structured field (RFC 9651): a String or a Token, then parameters; other items follow a comma
_STRING = r'"(?:[^"\\]|\\["\\])*"'
# without backtracking, which would take a time that is exponential in the number of semicolons
_ITEM = re.compile(rf'\s*+(?:({_STRING})|([A-Za-z*][^\s;,"]*+))((?:\s*+;(?:{_STRING}|[^;,"])*+)*)\s*+(,|$)')
_PARAMETER = re.compile(r";\s*([a-z])=(\d{1,15})\s*(?=;|$)")

Item = tuple[str, dict[str, int]]
"""The name of a policy, and those of its parameters that are integers >= 0."""


def read_policy(text: str) -> PolicyHeader | None:
    """Parse the first policy of `RateLimit-Policy`; return None if it is malformed."""
    item = next(_parse_items(text), None)
    return item and PolicyHeader(item[0], item[1].get("q"), item[1].get("w"))


def read_state(text: str) -> tuple[int, int] | None:
    """Parse `r` and `t` of the first policy in `RateLimit`; return None unless it has both."""
    _, parameters = next(_parse_items(text), None) or ("", {})
    return (parameters["r"], parameters["t"]) if parameters.keys() >= {"r", "t"} else None


def read_items(text: str, required: str) -> list[Item]:
    """Parse every policy of a field; return none if one is malformed or lacks the parameter `required`."""
    items = [*_parse_items(text)]
    return [item for item in items if item is not None] if all(item and required in item[1] for item in items) else []


def _parse_items(text: str) -> Iterator[Item | None]:
    """Yield the policies of a field, and None in place of one that is malformed, after which the rest is unknown."""
    start, separator = 0, ","
    while separator:
        match = _ITEM.match(text, start)
        if match is None:
            yield None
            return
        string, token, parameters, separator = match.groups()
        name = token if string is None else re.sub(r"\\(.)", r"\1", string[1:-1])
        numbers = _PARAMETER.findall(re.sub(_STRING, "", parameters))
        yield name, {key: int(value) for key, value in numbers}
        start = match.end()
