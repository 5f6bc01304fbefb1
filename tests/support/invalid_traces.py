"""Traces that cannot be read, and what a person is told: on one line, with the remedy."""

from __future__ import annotations

import gzip
import sys
from typing import NamedTuple

GOOD = b'192.0.2.7 - - [17/May/2015:10:05:03 +0000] "GET / HTTP/1.1" 200 12\n'
"""A line that can be read."""

_ZIPPED = gzip.compress(GOOD * 1000)


class BadTrace(NamedTuple):
    """What the file holds, the options it is read with, and a part of the message after `FILE: ` or `FILE:LINE: `."""

    content: bytes
    says: str
    options: dict[str, str | bool] = {}  # noqa: RUF012


BAD_TRACES = {
    # Nothing there
    "empty": BadTrace(b"", "it holds no lines: give a log"),
    "blank lines": BadTrace(b"\n \r\n\t\n", "it holds no lines"),
    "only a byte order mark": BadTrace(b"\xef\xbb\xbf\n", "it holds no lines"),
    "only a CSV header": BadTrace(b"time,ip\n\n", "has only the csv header: give a file with rows"),
    "gzip of nothing": BadTrace(gzip.compress(b""), "it holds no lines"),
    # Not text
    "truncated gzip": BadTrace(_ZIPPED[:-30], "its gzip data end early: copy or compress it anew"),
    "the first bytes of gzip": BadTrace(_ZIPPED[:2], "its gzip data end early"),
    "gzip with a wrong checksum": BadTrace(
        _ZIPPED[:-8] + b"\0\0\0\0" + _ZIPPED[-4:], "its gzip data are broken (Error -3"
    ),
    "gzip with rubbish behind": BadTrace(_ZIPPED + b"rubbish", "its gzip data are broken"),
    "zip": BadTrace(b"PK\x03\x04rest", "it is a zip archive: unpack it first"),
    "bzip2": BadTrace(b"BZh91AY", "compressed by bzip2"),
    "xz": BadTrace(b"\xfd7zXZ\0", "compressed by xz"),
    "zstd": BadTrace(b"\x28\xb5\x2f\xfd\x04", "its zstd data are broken (Truncated"),
    "Parquet": BadTrace(b"PAR1\x15\x04", "it cannot be read as Parquet ("),
    "UTF-16": BadTrace("time,ip\n1,a\n".encode("utf-16"), "UTF-16 text: convert it to UTF-8 first"),
    "an image": BadTrace(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR", r"PNG\r': name the format with --format"),
    "zeros": BadTrace(bytes(1000), r"got '\x00\x00"),
    # Not what was expected
    "prose": BadTrace(b"Dear diary,\n", "got 'Dear diary,': name the format with --format"),
    "a table without a time": BadTrace(b"ip,path\n192.0.2.7,/\n", "or the column with --time"),
    "a log read as JSON lines": BadTrace(
        GOOD, "none of its 1 lines can be read as jsonl: check --format", {"format": "jsonl"}
    ),
    "JSON lines read as a log": BadTrace(
        b'{"a": 1}\n' * 5, "of line 1: a log line must begin HOST IDENT", {"format": "log"}
    ),
    "a log read as CSV": BadTrace(GOOD, "its header has no field time or timestamp or", {"format": "csv"}),
    "a JSON array": BadTrace(b"[1, 2]\n", "line 1: it must be a JSON object: '[1, 2]'", {"format": "jsonl"}),
    "one long line": BadTrace(b"{" * 70_000, "line 1: a line must have at most 65536 characters: '{{{"),
    "a header with broken quotes": BadTrace(b'"time,ip\n', "its header has no field", {"format": "csv"}),
    # Fields that are not there
    "an unknown field of a log": BadTrace(
        GOOD,
        "must be one of ip, user, method, path, status, referer, agent, got 'usr'; did you mean user?",
        {"key": "usr"},
    ),
    "a log that knows no user": BadTrace(GOOD, "1: it has no user: name another field with --key", {"key": "user"}),
    "a log with a cost": BadTrace(GOOD, "has none for the cost: leave out --time and --cost", {"cost": "size"}),
    "a log with a named time": BadTrace(GOOD, "leave out --time and --cost", {"time": "date"}),
    "a column that is missing": BadTrace(
        b"time,User,path\n1,a,/\n",
        "no field usr but time, user, path: name the right one with --key; did you mean 'user'?",
        {"key": "usr"},
    ),
    "a client column that is missing": BadTrace(b"time,who\n1,a\n", "but time, who: name the right one with --key"),
    "a time column that is missing": BadTrace(
        b"at,ip\n1,a\n", "no field when but at, ip: name the right one with --time", {"format": "csv", "time": "when"}
    ),
    "a cost column that is missing": BadTrace(b"time,ip\n1,a\n", "no field size but time, ip", {"cost": "size"}),
    "a JSON field that is missing": BadTrace(
        b'{"time": 1, "user": "a"}\n' * 9, "no field usr but time, user: name the right one with --key", {"key": "usr"}
    ),
    "a header with control characters": BadTrace(
        b"time,\x1b[2J\n1,a\n", r"no field usr but time, \x1b[2j: name", {"key": "usr"}
    ),
    # Numbers that do not fit
    "milliseconds read as seconds": BadTrace(
        b"time,ip\n1431857103123,a\n", "within 146 years of 1970, got '1431857103123': check --time-unit"
    ),
    "times far apart": BadTrace(
        b"time,ip\n-4e9,a\n4e9,a\n", "within 146 years of each other, got 253 years: check --time-unit"
    ),
    "costs beyond a column": BadTrace(
        b"time,ip,cost\n1,a,4e18\n1,a,4e18\n", "add up to at most 2**62, got 8e+18: check --cost", {"cost": "cost"}
    ),
    # Strict
    "a bad line, strictly": BadTrace(
        GOOD + b"\n" + GOOD[:40] + b"\x1b[31m\n",
        r"""3: a log line must begin HOST IDENT USER [TIME] "REQUEST" STATUS SIZE: '192.0.2.7 - - [17/May""",
        {"strict": True},
    ),
    "a bad row, strictly": BadTrace(
        b"time,ip\n1,a\n2,b,c\n", "3: a row must have the header's 2 fields, got 3: '2,b,c'", {"strict": True}
    ),
    # Options
    "an unknown format": BadTrace(
        GOOD, "format must be one of auto, log, jsonl, csv, parquet, got 'xml'", {"format": "xml"}
    ),
    "an unknown unit": BadTrace(GOOD, "unit must be one of s, ms, us, ns, got 'min'", {"unit": "min"}),
    "an unknown place": BadTrace(GOOD, "within_second must be one of spread, start, got ''", {"within_second": ""}),
}


class BadLine(NamedTuple):
    """A line, the format it is read as, and the reason that is kept for it."""

    format: str
    line: bytes
    reason: str


_NESTED = "nested too deeply" if sys.version_info < (3, 14) else "it is not JSON"
"""What is said of 60,000 open brackets; Python 3.14 reads more than a line may hold."""

_LOG = b'192.0.2.7 - - [%s] "GET / HTTP/1.1" 200 12'

BAD_LINES = {
    "cut short": BadLine("log", GOOD[:50], "a log line must begin"),
    "no status": BadLine("log", GOOD[:-8], "a log line must begin"),
    "a size that is none": BadLine("log", GOOD.strip() + b"k", "a log line must begin"),
    "no host": BadLine("log", b" " + GOOD[9:], "a log line must begin"),
    "no such day": BadLine("log", _LOG % b"31/Feb/2015:10:05:03 +0000", "a day of the calendar"),
    "no such month": BadLine("log", _LOG % b"31/Foo/2015:10:05:03 +0000", "time must be a number or look like"),
    "no such hour": BadLine("log", _LOG % b"30/May/2015:24:00:00 +0000", "time must be a number or look like"),
    "no such second": BadLine("log", _LOG % b"30/May/2015:10:00:61 +0000", "time must be a number or look like"),
    "a year out of range": BadLine("log", _LOG % b"30/May/9015:10:00:00 +0000", "within 146 years of 1970"),
    "a year too early": BadLine("log", _LOG % b"30/May/1815:10:00:00 +0000", "within 146 years of 1970"),
    "year 0": BadLine("log", _LOG % b"30/May/0000:10:00:00 +0000", "a day of the calendar"),
    "broken JSON": BadLine("jsonl", b'{"time": 1,, "ip": "a"}', "it is not JSON (Expecting property name"),
    "a number": BadLine("jsonl", b"17", "it must be a JSON object"),
    "deep nesting": BadLine("jsonl", b"[" * 60_000, _NESTED),
    "no client": BadLine("jsonl", b'{"time": 1}', "it has no field ip or client_ip"),
    "null client": BadLine("jsonl", b'{"time": 1, "ip": null}', "it has no field ip"),
    "empty client": BadLine("jsonl", b'{"time": 1, "ip": " "}', "the client must not be empty"),
    "a client that is an object": BadLine("jsonl", b'{"time": 1, "ip": {}}', "the client must be a number or text"),
    "no time": BadLine("jsonl", b'{"ip": "a"}', "it has no field time"),
    "time that is true": BadLine("jsonl", b'{"time": true, "ip": "a"}', "time must be a number or text, got True"),
    "time that is NaN": BadLine("jsonl", b'{"time": NaN, "ip": "a"}', "time must be a number or look like"),
    "infinite time": BadLine("jsonl", b'{"time": -Infinity, "ip": "a"}', "time must be a number or look like"),
    "huge time": BadLine("jsonl", b'{"time": 1e999, "ip": "a"}', "within 146 years of 1970, got '1e999'"),
    "time long ago": BadLine("jsonl", b'{"time": -1e10, "ip": "a"}', "within 146 years of 1970, got '-1e10'"),
    "very long time": BadLine("jsonl", b'{"time": %s, "ip": "a"}' % (b"9" * 60_000), "within 146 years of 1970"),
    "no cost": BadLine("jsonl", b'{"time": 1, "ip": "a"}', "it has no field cost but time, ip"),
    "empty field": BadLine("csv", b"1,,1", "the client must not be empty"),
    "too few fields": BadLine("csv", b"1,a", "a row must have the header's 3 fields, got 2"),
    "open quotes": BadLine("csv", b'1,"a,1', "its quotes are broken"),
    "empty time": BadLine("csv", b",a,1", "time must be a number or look like"),
    "time with underscores": BadLine("csv", b"1_000,a,1", "time must be a number or look like"),
    "time in words": BadLine("csv", b"noon,a,1", "time must be a number or look like 2015-05-17T10:05:03Z, got 'noon'"),
    "only a date": BadLine("csv", b"2015-05-17,a,1", "time must be a number or look like"),
    "cost 0": BadLine("csv", b"1,a,0", "cost must be a whole number from 1 to 2**62 - 1, got '0'"),
    "cost below 0": BadLine("csv", b"1,a,-1", "cost must be a whole number"),
    "half a cost": BadLine("csv", b"1,a,1.5", "cost must be a whole number"),
    "huge cost": BadLine("csv", b"1,a,1e19", "cost must be a whole number"),
    "no number for a cost": BadLine("csv", b"1,a,nan", "cost must be a whole number"),
    "too long": BadLine("csv", b"1,%s,1" % (b"a" * 65_536), "a line must have at most 65536 characters"),
}
