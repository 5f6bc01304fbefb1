"""Invalid traces and lines, with a part of the error message that each must cause."""

from __future__ import annotations

import gzip
import sys
from typing import NamedTuple

VALID_LINE = b'192.0.2.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 12\n'
"""A log line of 17 May 2015, 10:05:03 UTC."""

_COMPRESSED = gzip.compress(VALID_LINE * 1000)


class InvalidTrace(NamedTuple):
    """A file, a part of the message after `FILE: ` or `FILE:LINE: `, and the options to read it with."""

    content: bytes
    message: str
    options: dict[str, str | bool] = {}  # noqa: RUF012  (never changed)


INVALID_TRACES = {
    # No requests
    "empty": InvalidTrace(b"", "it has no lines: name a log"),
    "blank lines": InvalidTrace(b"\n \r\n\t\n", "it has no lines"),
    "only a byte order mark": InvalidTrace(b"\xef\xbb\xbf\n", "it has no lines"),
    "only a CSV header": InvalidTrace(b"time,ip\n\n", "it has no requests, only the csv header: name a file with rows"),
    "empty gzip": InvalidTrace(gzip.compress(b""), "it has no lines"),
    # Not text
    "truncated gzip": InvalidTrace(_COMPRESSED[:-30], "truncated gzip data: copy or compress the file again"),
    "the first bytes of gzip": InvalidTrace(_COMPRESSED[:2], "truncated gzip data"),
    "gzip with a wrong checksum": InvalidTrace(
        _COMPRESSED[:-8] + b"\0\0\0\0" + _COMPRESSED[-4:], "invalid gzip data (Error -3"
    ),
    "gzip followed by other bytes": InvalidTrace(_COMPRESSED + b"rubbish", "invalid gzip data"),
    "zip": InvalidTrace(b"PK\x03\x04rest", "a trace must be text, gzip or zstd, got a zip archive: unpack it first"),
    "bzip2": InvalidTrace(b"BZh91AY", "got bzip2 data: decompress them first"),
    "xz": InvalidTrace(b"\xfd7zXZ\0", "got xz data: decompress them first"),
    "zstd": InvalidTrace(b"\x28\xb5\x2f\xfd\x04", "invalid zstd data (Truncated"),
    "Parquet": InvalidTrace(b"PAR1\x15\x04", "it cannot be read as Parquet ("),
    "UTF-16": InvalidTrace("time,ip\n1,a\n".encode("utf-16"), "UTF-16 text: convert it to UTF-8 first"),
    "an image": InvalidTrace(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"PNG\r': name the column of the time"),
    "zeros": InvalidTrace(bytes(1000), r"\x00...: name the column of the time"),
    # Other content
    "prose": InvalidTrace(
        b"Dear diary,\n", "such as 'Dear diary,': name the column of the time with --time, the format with --format"
    ),
    "a table without a time": InvalidTrace(b"ip,path\n192.0.2.7,/\n", "name the column of the time with --time"),
    "a log read as JSON lines": InvalidTrace(
        VALID_LINE, "none of its 1 lines can be parsed as jsonl: check --format; line 1: ", {"format": "jsonl"}
    ),
    "JSON lines read as a log": InvalidTrace(
        b'{"a": 1}\n' * 5, "; line 1: a log line must begin HOST IDENT", {"format": "log"}
    ),
    "a log read as CSV": InvalidTrace(
        VALID_LINE, "its header has no field time, timestamp, ts or similar, only 192.0.2.7", {"format": "csv"}
    ),
    "a JSON array": InvalidTrace(b"[1, 2]\n", "line 1: it must be a JSON object: '[1, 2]'", {"format": "jsonl"}),
    "one long line": InvalidTrace(b"{" * 70_000, "line 1: a line must have at most 65536 characters: '{{{"),
    "a header with invalid quotes": InvalidTrace(
        b'"time,ip\n', "its header has no field time, timestamp, ts or similar: name the right one", {"format": "csv"}
    ),
    # Missing fields
    "an unknown field of a log": InvalidTrace(
        VALID_LINE,
        "it has no field usr, only ip, user, status, bytes, referer, agent, forwarded, host, method, path: "
        "name another field; did you mean --key user?",
        {"key": "usr"},
    ),
    "a log without users": InvalidTrace(
        VALID_LINE, "none of its 1 lines has a client: it has no user: name another field with --key", {"key": "user"}
    ),
    "a log with a cost": InvalidTrace(
        VALID_LINE, "its lines have no field size: leave out --cost, or write a --pattern", {"cost": "size"}
    ),
    "a log with a named time": InvalidTrace(
        VALID_LINE, "its lines have no field date: leave out --time", {"time": "date"}
    ),
    "a missing column": InvalidTrace(
        b"time,User,path\n1,a,/\n",
        "no field usr, only time, user, path: name the right one with --key; did you mean --key user?",
        {"key": "usr"},
    ),
    "a missing client column": InvalidTrace(b"time,who\n1,a\n", "only time, who: name the right one with --key"),
    "a missing time column": InvalidTrace(
        b"at,ip\n1,a\n", "no field when, only at, ip: name the right one with --time", {"format": "csv", "time": "when"}
    ),
    "a missing cost column": InvalidTrace(b"time,ip\n1,a\n", "no field size, only time, ip", {"cost": "size"}),
    "a missing JSON field": InvalidTrace(
        b'{"time": 1, "user": "a"}\n' * 9,
        "no field usr, only time, user: name the right one with --key",
        {"key": "usr"},
    ),
    "a header with control characters": InvalidTrace(
        b"time,\x1b[2J\n1,a\n", r"no field usr, only time, \x1b[2j: name", {"key": "usr"}
    ),
    # Numbers out of range
    "milliseconds read as seconds": InvalidTrace(
        b"time,ip\n1431857103123,a\n",
        "time must be within 146 years of 1970, got '1431857103123': check --time-unit",
        {"unit": "s"},
    ),
    "times far apart": InvalidTrace(
        b"time,ip\n-4e9,a\n4e9,a\n", "within 146 years of each other, got 253 years: check --time-unit"
    ),
    "costs with too large a sum": InvalidTrace(
        b"time,ip,cost\n1,a,4e18\n1,a,4e18\n", "add up to at most 2**62, got 8e+18: check --cost", {"cost": "cost"}
    ),
    # Strict
    "an invalid line, strictly": InvalidTrace(
        VALID_LINE + b"\n" + VALID_LINE[:40] + b"\x1b[31m\n",
        r"""3: a log line must begin HOST IDENT USER [TIME] "REQUEST" STATUS SIZE: '192.0.2.7 - - [17/May""",
        {"strict": True},
    ),
    "an invalid row, strictly": InvalidTrace(
        b"time,ip\n1,a\n2,b,c\n", "3: a row must have 2 fields like the header, got 3: '2,b,c'", {"strict": True}
    ),
    # Options
    "an unknown format": InvalidTrace(
        VALID_LINE, "'xml' is not one of the formats: choose one that `ratelab formats` lists", {"format": "xml"}
    ),
    "an unknown unit": InvalidTrace(
        VALID_LINE, "unit must be one of auto, s, ms, us, ns, excel, got 'min'", {"unit": "min"}
    ),
    "an unknown place within the second": InvalidTrace(
        VALID_LINE, "within_second must be one of spread, start, got ''", {"within_second": ""}
    ),
}


class InvalidLine(NamedTuple):
    """A line, the format it is read as, and a part of the reason in its `Reject`."""

    format: str
    line: bytes
    reason: str


_NESTED = "invalid JSON (nested too deeply)" if sys.version_info < (3, 14) else "invalid JSON"
"""The reason for 60,000 open brackets. Python 3.14 has no limit below the length of a line."""

_LOG = b'192.0.2.7 - - [%s] "GET / HTTP/1.1" 200 12'

INVALID_LINES = {
    "cut short": InvalidLine("log", VALID_LINE[:50], "a log line must begin"),
    "no status": InvalidLine("log", VALID_LINE[:-8], "a log line must begin"),
    "an invalid size": InvalidLine("log", VALID_LINE.strip() + b"k", "a log line must begin"),
    "no host": InvalidLine("log", b" " + VALID_LINE[9:], "a log line must begin"),
    "a day that does not exist": InvalidLine(
        "log", _LOG % b"31/Feb/2015:10:05:03 +0000", "time must be on a day of the calendar"
    ),
    "an unknown month": InvalidLine("log", _LOG % b"31/Foo/2015:10:05:03 +0000", "time must be a number or look like"),
    "hour 24": InvalidLine("log", _LOG % b"30/May/2015:24:00:00 +0000", "time must be a number or look like"),
    "second 61": InvalidLine("log", _LOG % b"30/May/2015:10:00:61 +0000", "time must be a number or look like"),
    "a year out of range": InvalidLine("log", _LOG % b"30/May/9015:10:00:00 +0000", "within 146 years of 1970"),
    "a year too early": InvalidLine("log", _LOG % b"30/May/1815:10:00:00 +0000", "within 146 years of 1970"),
    "year 0": InvalidLine("log", _LOG % b"30/May/0000:10:00:00 +0000", "time must be on a day of the calendar"),
    "invalid JSON": InvalidLine("jsonl", b'{"time": 1,, "ip": "a"}', "invalid JSON (Expecting property name"),
    "a number": InvalidLine("jsonl", b"17", "it must be a JSON object"),
    "deep nesting": InvalidLine("jsonl", b"[" * 60_000, _NESTED),
    "no client": InvalidLine("jsonl", b'{"time": 1}', "it has no field ip, client_ip, clientip or similar, only time"),
    "null client": InvalidLine("jsonl", b'{"time": 1, "ip": null}', "it has no field ip"),
    "a client that is an object": InvalidLine("jsonl", b'{"time": 1, "ip": {}}', "client must be a number or text"),
    "no time": InvalidLine("jsonl", b'{"ip": "a"}', "it has no field time"),
    "time that is true": InvalidLine("jsonl", b'{"time": true, "ip": "a"}', "time must be a number or text, got True"),
    "time that is NaN": InvalidLine("jsonl", b'{"time": NaN, "ip": "a"}', "time must be a number or look like"),
    "infinite time": InvalidLine("jsonl", b'{"time": -Infinity, "ip": "a"}', "time must be a number or look like"),
    "huge time": InvalidLine(
        "jsonl", b'{"time": 1e999, "ip": "a"}', "time must be within 146 years of 1970, got '1e999'"
    ),
    "time long ago": InvalidLine(
        "jsonl", b'{"time": -1e10, "ip": "a"}', "time must be within 146 years of 1970, got '-1e10'"
    ),
    "very long time": InvalidLine("jsonl", b'{"time": %s, "ip": "a"}' % (b"9" * 60_000), "within 146 years of 1970"),
    "no cost": InvalidLine("jsonl", b'{"time": 1, "ip": "a"}', "it has no field cost, only time, ip"),
    "too few fields": InvalidLine("csv", b"1,a", "a row must have 3 fields like the header, got 2"),
    "open quotes": InvalidLine("csv", b'1,"a,1', "invalid quotes"),
    "empty time": InvalidLine("csv", b",a,1", "time must be a number or look like"),
    "time with underscores": InvalidLine("csv", b"1_000,a,1", "time must be a number or look like"),
    "time in words": InvalidLine(
        "csv", b"noon,a,1", "time must be a number or look like 2015-05-17T10:05:03Z, got 'noon'"
    ),
    "only a date": InvalidLine("csv", b"2015-05-17,a,1", "time must be a number or look like"),
    "cost 0": InvalidLine("csv", b"1,a,0", "cost must be a whole number from 1 to 2**62 - 1, got '0'"),
    "cost below 0": InvalidLine("csv", b"1,a,-1", "cost must be a whole number"),
    "a fractional cost": InvalidLine("csv", b"1,a,1.5", "cost must be a whole number"),
    "huge cost": InvalidLine("csv", b"1,a,1e19", "cost must be a whole number"),
    "a cost that is not a number": InvalidLine("csv", b"1,a,nan", "cost must be a whole number"),
    "too long": InvalidLine("csv", b"1,%s,1" % (b"a" * 65_536), "a line must have at most 65536 characters"),
}
