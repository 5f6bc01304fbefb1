"""Access logs in the common and the combined format of Apache and nginx."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.batches import LineError, LineParser, ParsedRequest, RowPatterns
from ratelab.lab.traces.timestamps import RE2_LOG_TIME, parse_log_time
from ratelab.quota import NS_PER_S

if TYPE_CHECKING:
    from ratelab.lab.traces.formats import TraceOptions

LOG_FIELDS = ("ip", "user", "method", "path", "status", "referer", "agent")
"""The fields of a log line that can identify the client; `path` excludes the query."""

_QUOTED = r'[^"\\]*(?:\\.[^"\\]*)*'
_LINE = (
    # A virtual host may come first; the text after it must then look like an address.
    r"(?:[^\s,]+ (?=[0-9a-fA-F]*[.:][0-9a-fA-F.:]+ ))?"
    r"(?P<ip>[^\s,]+) "
    # A user name may contain blanks only if the ident is missing, or the two would be ambiguous.
    r"(?:-|\S+(?= \S+ \[)) (?P<user>.*?) "
    r"\[(?P<time>[0-9/]+[A-Za-z]+[0-9/]+:[0-9:.]+ [+-][0-9]+)\] "
    rf'"(?P<request>{_QUOTED})" (?P<status>[0-9]{{3}}|-) (?:[0-9]+|-)(?!\S)'
)
_COMMON = re.compile(_LINE)
_COMBINED = re.compile(rf'{_LINE}(?: "(?P<referer>{_QUOTED})" "(?P<agent>{_QUOTED})")?')
_REQUEST = re.compile(r"(?P<method>[A-Za-z_-]+) (?P<path>[^\s?]+)")


def is_log_line(line: str, _options: TraceOptions) -> bool:
    """Return whether a line looks like a log line; not if it begins like a JSON object, which may quote one."""
    return not line.lstrip().startswith("{") and _COMMON.match(line) is not None


def create_log_parser(_first_line: str, options: TraceOptions) -> LineParser:
    """Create the parser of log lines. The client is the field `options.key`; text after the known fields is ignored.

    An empty field, or `-`, which stands for an unknown value in logs, is a missing client.
    Raises `InputError` for an unknown key, and for options that a log cannot have.
    """
    _check_options(options)
    key = options.key
    pattern = _COMBINED if key in ("referer", "agent") else _COMMON
    in_request = key in _REQUEST.groupindex
    client_group = pattern.groupindex["request" if in_request else key]
    time_group = pattern.groupindex["time"]
    match_line = pattern.match

    def parse(line: str) -> ParsedRequest:
        match = match_line(line)
        if match is None:
            raise LineError('a log line must begin HOST IDENT USER [TIME] "REQUEST" STATUS SIZE')
        client, time = match.group(client_group, time_group)
        if in_request:
            request = _REQUEST.match(client)
            client = request and request[key]
        if not client or client == "-":
            raise LineError(f"it has no {key}: name another field with --key")
        return client, parse_log_time(time), 1

    return parse


def _check_options(options: TraceOptions) -> None:
    if options.time or options.cost:
        raise InputError("a log has a fixed time field and no cost: leave out --time and --cost")
    if options.key not in LOG_FIELDS:
        near = get_close_matches(options.key, LOG_FIELDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise InputError(
            f"the key of a log must be one of {', '.join(LOG_FIELDS)}, got {short_repr(options.key)}{hint}"
        )


def create_log_pattern(_first_line: str, options: TraceOptions) -> RowPatterns:
    """Create the pattern of nearly all log lines.

    It leaves out virtual hosts, idents and users with blanks in their names. It may match a line whose client or time
    the parser rejects.
    """
    key = options.key
    fields = {"ip": "[!-+.-~-]+", "user": r"[!-Z\\-~]+", "method": "[A-Za-z_-]+", "path": r"[!#->@-\[\]-~]+"}
    fields |= {"status": "[0-9]{3}|-", "referer": _QUOTED, "agent": _QUOTED}
    fields[key] = f"(?P<client>{fields[key]})"
    request = rf"{fields['method']} {fields['path']}(?:[? ]{_QUOTED})?" if key in _REQUEST.groupindex else _QUOTED
    end = rf' "{fields["referer"]}" "{fields["agent"]}"' if key in ("referer", "agent") else r"(?:[ \t\r\n]|$)"
    pattern = (
        rf'^{fields["ip"]} - {fields["user"]} \[{RE2_LOG_TIME}\] "{request}" '
        rf"(?:{fields['status']}) (?:[0-9]+|-){end}"
    )
    return RowPatterns((pattern,), NS_PER_S)
