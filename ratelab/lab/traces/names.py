"""Names of fields: common names of one field, and suggestions for names that nearly match."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from itertools import islice
from typing import Any

from ratelab.lab.traces.files import make_printable

TIMES = (
    "time", "timestamp", "ts", "@timestamp", "time_iso8601", "time_local", "at_ns", "date", "datetime", "msec",
    "date+time",
)  # fmt: skip
"""Fields that may hold the time if none is named; `at_ns` is in nanoseconds, `+` joins two fields."""

ALIASES: dict[str, tuple[str, ...]] = {
    "ip": ("client_ip", "clientip", "remote_addr", "remote_ip", "client", "c-ip", "id.orig_h"),
    "forwarded": (
        "x_forwarded_for", "http_x_forwarded_for", "x-forwarded-for", "xff", "forwarded_for", "fwd",
        "cs(X-Forwarded-For)",
    ),
    "user": ("remote_user", "username", "user_id", "cs-username"),
    "method": ("request_method", "http_method", "cs-method"),
    "path": ("uri", "url", "request_uri", "request_path", "cs-uri-stem"),
    "status": ("status_code", "response_status", "sc-status"),
    "agent": ("user_agent", "http_user_agent", "useragent", "cs(User-Agent)"),
    "referer": ("http_referer", "referrer", "cs(Referer)"),
    "host": ("vhost", "http_host", "server_name", "cs-host", "x-host-header", "cs(Host)"),
    "time": TIMES[1:],
}  # fmt: skip
"""The names that other programs give to the fields of requests."""


def format_missing(names: Sequence[str], present: Iterable[str]) -> str:
    """Format which fields are missing and which are present, the former cut to three and the latter to a dozen."""
    missing = names[0] if len(names) == 1 else f"{', '.join(names[:3])} or similar"
    listed = ", ".join(islice(present, 12))[:200]
    return make_printable(f"no field {missing}{', only ' if listed else ''}{listed}")


def list_paths(record: Mapping[str, Any], depth: int = 4) -> Iterable[str]:
    """Yield the paths of all values in an object, such as `httpRequest.remoteIp`."""
    for name, value in record.items():
        if isinstance(value, Mapping) and depth > 1:
            yield from (f"{name}.{path}" for path in list_paths(value, depth - 1))
        else:
            yield name


def suggest(names: Sequence[str], present: Iterable[str], option: str) -> str:
    """Return the part of a message that suggests a present field for the missing one; empty if none is similar."""
    paths = {path: _simplify(path) for path in present}
    leaves = {path: _simplify(path.rpartition(".")[2]) for path in paths}
    for table in (paths, leaves):
        for name in names:
            near = get_close_matches(_simplify(name), table.values(), 1, 0.75)
            if near:
                path = next(path for path, simple in table.items() if simple == near[0])
                return f"; did you mean --{option} {make_printable(path)}?"
    return ""


def _simplify(name: str) -> str:
    return re.sub("[^a-z0-9.]", "", name.lower())
