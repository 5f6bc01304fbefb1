"""Blocks read as columns: whatever the file holds, the same requests, refusals and mistakes as line by line."""

from __future__ import annotations

import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invalid_traces import BAD_LINES, GOOD
from mutate import rewritten
from trace_reading import both_ways

from ratelab import InputError
from ratelab.lab.traces import TraceOptions, access_log, arrow, batches, columnar, files, formats, read_traces

FULL = b'192.0.2.%d - %s [%s] "GET /%s HTTP/1.1" 200 12 "%s" "%s"\n'

LOG = [
    *(FULL % (n % 7, b"bob", b"17/May/2015:10:%02d:%02d +0000" % (n, n * 7 % 61), b"a", b"-", b"x") for n in range(9)),
    FULL % (7, b"-", b"17/May/2015:10:05:03.25 -0330", b"b?c", b"http://x/", b'\xc3\xa9 \\" y'),
    FULL % (8, b"-", b"31/Feb/2015:10:05:03 +0000", b"", b"", b"-"),
    FULL % (8, b"a b", b"17/May/2015:10:05:03 +0000", b"\xff\\", b"", b""),
    FULL % (9, b"[b", b"17/May/2015:24:05:03 +0000", b"\xc2\xa0", b"\xc2\xa0", b"\x85"),
    b"example.com:443 " + GOOD,
    b"- " + GOOD[10:],
    GOOD[:-1] + b"\r\n",
    GOOD[:-1] + b"\xc2\xa0\n",
    GOOD[:-1] + b"k\n",
    GOOD.replace(b"GET / HTTP/1.1", b"-"),
    *(b"\n", b" \n", b"\xff\n", b"\0" * 9 + b"\n", GOOD[:-1] + b" " + b"x" * 65_600 + b"\n"),
    *(bad.line.strip(b"\n") + b"\n" for bad in BAD_LINES.values() if bad.format == "log"),
]
ROWS = [
    *(b"%d.%03d,10.0.0.%d,%d,x\n" % (1e9 + n, n * 7, n % 5, n + 1) for n in range(9)),
    b"2015-05-17T10:05:03Z,a,1,\n",
    b"2015-05-17 10:05:03.000000001+02:00, a ,1,\n",
    b"2015-05-17T10:05:03,5,a,1\n",
    b"2015-02-30T10:05:03Z,a,1,\n",
    b"17/May/2015:10:05:03 +0000,a,1,\n",
    b"1e3,a,007,\r\n",
    b"4611686018.427387903,a,4611686018427387903,\n",
    b"4611686018.427387904,a,999999999999999999,\n",
    b"123456789012345678,a,1,\n",
    b"-1,\xc3\xa9,1,\xff\n",
    b'"1",-,1,"a,b"\n',
    b"1,0,1.0,\n",
    b"1, ,1,\n",
    b"1,a\x1c,1,\xc2\xa0\n",
    b"1,a,1\n",
    b"1,a,0,\n",
    *(bad.line + b",\n" for bad in BAD_LINES.values() if bad.format == "csv"),
]
OBJECT = b'{"time": 1, "ip": "a", "size": 1}'
OBJECTS = [
    *(b'{"time": %d.%03d, "ip": "10.0.0.%d", "size": %d}\n' % (1e9 + n, n * 7, n % 5, n + 1) for n in range(9)),
    *(b'{"time": "2015-05-17T10:05:%02dZ", "user": {"ip": "b", "n": [1]}, "size": "3"}\n' % n for n in range(3)),
    *(b'{"user": {"ip": %d}, "time": %d, "size": 2.0}\n' % (n - 1, n) for n in range(4)),
    b'{"time": 1, "ip": 7, "user.ip": "dotted", "size": 1e2}\n',
    b'{"time": 1, "ip": "\\u00e9\\ud800", "size": 1}\n',
    b'{"time": 1.1234567891, "ip": "a", "size": 1}\n',
    b'{"time": 1, "ip": "a", "ip": "b", "size": 1}\n',
    OBJECT + b"\n" + OBJECT + OBJECT + b"\n",
    b'{"time": 1, "ip": "a",\n"size": 1}\n',
    b'{"time": 1, "ip": null, "client": "c", "x": NaN, "size": 1}\n',
    b'{"time": 1, "client": "c", "size": 1}\n{"time": 2, "client": "d", "ip": "e", "size": 1}\n',
    OBJECT + b"\n" + OBJECT[:-1] + b', "x": -NaN}\n',
    b'{"time": 1, "ip": -0, "user": 5, "size": 1}\r\n',
    b'{"time": 1, "ip": "a\0", "size": 1}\n',
    b'{"time": 1, "ip": "\xff", "x": ' + b"[" * 150 + b"]" * 150 + b', "size": 1}\n',
    b'{"at_ns": 1, "ip": "a", "algorithm": "gcra", "size": 1}\n',
    b'{"at_ns": 1, "ip": "a", "algorithm": "token-bucket", "size": 1}\n',
    *(b"\n", b"\t\n", b"{}\n", b"}{\n"),
    *(bad.line + b"\n" for bad in BAD_LINES.values() if bad.format == "jsonl" and len(bad.line) < 1000),
]
KINDS = {"log": LOG, "csv": ROWS, "jsonl": OBJECTS}
KEYS = {
    "log": ["ip", "user", "path", "agent"],
    "csv": ["ip", "size"],
    "jsonl": ["ip", "user.ip"],
}


@st.composite
def traces(draw: st.DrawFn) -> tuple[bytes, TraceOptions, int]:
    """Draw a file that mostly holds lines of one shape, how to read it, and the bytes of a block."""
    kind = draw(st.sampled_from([*KINDS]))
    plain, odd = KINDS[kind][:9], KINDS[kind][9:]
    content = b"".join(draw(st.lists(st.sampled_from(plain * 9 + odd), min_size=1, max_size=40)))
    header = b"time,ip,size,more\n" if kind == "csv" else b""
    cost = None if kind == "log" else draw(st.sampled_from([None, "size"]))
    unit, strict = draw(st.sampled_from(["s", "ms", "ns"])), draw(st.integers(0, 9)) == 0
    options = TraceOptions(kind, draw(st.sampled_from(KEYS[kind])), cost=cost, unit=unit, strict=strict)
    return header + content, options, draw(st.sampled_from([100, 700, 2**21]))


def agree(content: bytes, options: TraceOptions, block: int) -> None:
    """Read a file in both ways, in blocks of so many bytes."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "_BLOCK", block)
        path = Path(folder) / "trace"
        path.write_bytes(content)
        try:
            both_ways([path], options)
        except InputError:
            return


@settings(max_examples=40)
@given(traces())
def test_columns_hold_what_lines_do(trace: tuple[bytes, TraceOptions, int]) -> None:
    agree(*trace)


def agree_on(kind: str) -> None:
    """Read each odd line of a table between plain ones, as one block."""
    table = KINDS[kind]
    header = b"time,ip,size,more\n" if kind == "csv" else b""
    for key in KEYS[kind]:
        options = TraceOptions(kind, key, cost=None if kind == "log" else "size", unit="us" if kind == "csv" else "s")
        for odd in table[9:]:
            agree(header + odd + table[1] + odd + table[0], options, 2**21)


@pytest.mark.parametrize("form", KINDS)
def test_columns_hold_what_lines_do_in_every_odd_case(form: str) -> None:
    agree_on(form)


MUTANTS = {
    "a line is cut where it is longest": ("log", columnar, "part_of", "<= MAX_LINE_CHARS", "<= 2 * MAX_LINE_CHARS"),
    "nobody is a client": ("log", columnar, "_known", '"^[-0]?$"', '"^$"'),
    "a day need not be in the calendar": ("log", columnar, "_calendar_times", "start is not None", "True"),
    "a wanted field may end a line": ("log", access_log, "log_pattern", "(?:[ \\t\\r\\n]|$)", ""),
    "clients are numbered as they are found": ("csv", batches, "_by_coming", "argsort(firsts)", "arange(len(firsts))"),
    "requests stand as they are found": (
        "csv",
        columnar,
        "part_from",
        "argsort(rows, kind=",
        "argsort(rows * 0, kind=",
    ),
    "a cost may be 0": ("csv", columnar, "_known", "costs >= 1", "costs >= 0"),
    "a number is seconds": ("csv", columnar, "_number_times", "known, whole, 0) * unit", "known, whole, 0)"),
    "objects may share a line": ("jsonl", columnar, "_in_objects", "len(objects) == len(rows)", "objects"),
    "what is not JSON may be": ("jsonl", arrow, "are_objects", "pc.and_not(", "pc.or_("),
    "a later name may come first": ("jsonl", columnar, "_path", 'else "nothing"\n', 'else "text"\n'),
}


@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mistake_in_the_columns_is_found(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    kind, module, name, right, wrong = mutant
    wrongly = rewritten(getattr(module, name), right, wrong)
    monkeypatch.setattr(module, name, wrongly)
    monkeypatch.setattr(formats, name, wrongly, raising=False)
    with pytest.raises((AssertionError, IndexError)):
        agree_on(kind)


def test_a_refused_line_leaves_no_thread_behind(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"{}\n" + OBJECTS[0] * 9)
    before = threading.enumerate()
    with pytest.raises(InputError, match="trace:1: ") as refused:
        read_traces([str(path)], TraceOptions("jsonl", strict=True), columnar=True)
    assert refused.value, "held on to, and what it has seen with it"
    assert threading.enumerate() == before
