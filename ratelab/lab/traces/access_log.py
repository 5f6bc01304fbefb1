"""A line of an access log, in the common or the combined format of Apache and nginx."""

from __future__ import annotations

import re
from collections.abc import Callable
from difflib import get_close_matches

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.files import LineError
from ratelab.lab.traces.timestamps import PLAIN_LOG, read_log_instant

Event = tuple[str, int, int]
"""One request: its client, its time in nanoseconds since 1970 and its cost."""

ReadLine = Callable[[str], Event]
"""Reads a line as a request, or raises `LineError`; a blank line is an error too."""

LOG_FIELDS = ("ip", "user", "method", "path", "status", "referer", "agent")
"""The fields of a log that can name the client; `path` stands without its query."""

_QUOTED = r'[^"\\]*(?:\\.[^"\\]*)*'
_LINE = (
    # A virtual host may come first; what follows it must then look like an address.
    r"(?:[^\s,]+ (?=[0-9a-fA-F]*[.:][0-9a-fA-F.:]+ ))?"
    r"(?P<ip>[^\s,]+) "
    # A user's name may hold blanks only where there is no ident, or one could not tell the two apart.
    r"(?:-|\S+(?= \S+ \[)) (?P<user>.*?) "
    r"\[(?P<time>[0-9/]+[A-Za-z]+[0-9/]+:[0-9:.]+ [+-][0-9]+)\] "
    rf'"(?P<request>{_QUOTED})" (?P<status>[0-9]{{3}}|-) (?:[0-9]+|-)(?!\S)'
)
_COMMON = re.compile(_LINE)
_COMBINED = re.compile(rf'{_LINE}(?: "(?P<referer>{_QUOTED})" "(?P<agent>{_QUOTED})")?')
_REQUEST = re.compile(r"(?P<method>[A-Za-z_-]+) (?P<path>[^\s?]+)")


def is_log_line(line: str) -> bool:
    """Say whether a line looks like one of a log."""
    return _COMMON.match(line) is not None


def log_reader(key: str) -> ReadLine:
    """Make the reader of a log's lines, whose client is the field `key`; whatever follows the known fields is ignored.

    A field that is empty or `-`, as a log writes what it does not know, is a missing client.
    Raises `InputError` for a key that is not one of `LOG_FIELDS`.
    """
    _check(key)
    pattern = _COMBINED if key in ("referer", "agent") else _COMMON
    in_request = key in _REQUEST.groupindex
    client_group = pattern.groupindex["request" if in_request else key]
    time_group = pattern.groupindex["time"]
    match_line = pattern.match

    def read(line: str) -> Event:
        match = match_line(line)
        if match is None:
            raise LineError('a log line must begin HOST IDENT USER [TIME] "REQUEST" STATUS SIZE')
        client, time = match.group(client_group, time_group)
        if in_request:
            asked = _REQUEST.match(client)
            client = asked and asked[key]
        if not client or client == "-":
            raise LineError(f"it has no {key}: name another field with --key")
        return client, read_log_instant(time), 1

    return read


def _check(key: str) -> None:
    """Refuse what is no field of a log."""
    if key not in LOG_FIELDS:
        near = get_close_matches(key, LOG_FIELDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(f"the key of a log must be one of {', '.join(LOG_FIELDS)}, got {short_repr(key)}{hint}")


def log_pattern(key: str) -> str:
    r"""Return a pattern without lookahead, as libraries of columns need it, of nearly all lines of a log.

    Its groups are `client` and those of `PLAIN_LOG`. What it matches, `log_reader(key)` reads so, except where that
    takes the client or the time for none. It leaves out virtual hosts, idents and users with blanks in their names.
    """
    _check(key)
    fields = {"ip": "[!-+.-~-]+", "user": r"[!-Z\\-~]+", "method": "[A-Za-z_-]+", "path": r"[!#->@-\[\]-~]+"}
    fields |= {"status": "[0-9]{3}|-", "referer": _QUOTED, "agent": _QUOTED}
    fields[key] = f"(?P<client>{fields[key]})"
    request = rf"{fields['method']} {fields['path']}(?:[? ]{_QUOTED})?" if key in _REQUEST.groupindex else _QUOTED
    more = rf' "{fields["referer"]}" "{fields["agent"]}"' if key in ("referer", "agent") else r"(?:[ \t\r\n]|$)"
    return (
        rf'^{fields["ip"]} - {fields["user"]} \[{PLAIN_LOG}\] "{request}" '
        rf"(?:{fields['status']}) (?:[0-9]+|-){more}"
    )
