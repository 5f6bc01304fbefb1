"""Columnar reader: the same requests, rejects and errors as the line parsers, for every content."""

from __future__ import annotations

import threading
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from invalid_traces import INVALID_LINES, VALID_LINE
from mutate import rewritten
from trace_reading import read_both_ways

from ratelab import InputError
from ratelab.lab.traces import (
    ClientRule,
    TraceOptions,
    columnar,
    files,
    object_columns,
    parse_filters,
    read_traces,
    time_columns,
)
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.timestamps import TimeRule

COMBINED = b'192.0.2.%d - %s [%s] "GET /%s HTTP/1.1" 200 12 "%s" "%s"\n'

LOG = [
    *(
        COMBINED % (n % 7, b"bob", b"17/May/2015:10:%02d:%02d +0000" % (n, n * 7 % 61), b"a", b"-", b"x")
        for n in range(9)
    ),
    COMBINED % (7, b"-", b"17/May/2015:10:05:03.25 -0330", b"b?c", b"http://x/", b'\xc3\xa9 \\" y'),
    COMBINED % (8, b"-", b"31/Feb/2015:10:05:03 +0000", b"", b"", b"-"),
    COMBINED[:-1] % (8, b"-", b"17/May/2015:10:05:03 +0000", b"", b"", b"-") + b' "203.0.113.1, 10.0.0.1"\n',
    b"203.0.113.1, 10.0.0.5 " + VALID_LINE,
    b'"203.0.113.1" ' + VALID_LINE,
    b"2001:db8::1 - - " + VALID_LINE[14:],
    b"[2001:db8::1]:443 - - " + VALID_LINE[14:],
    b"192.0.2.7:80 - - " + VALID_LINE[14:],
    b"a:b:c - - " + VALID_LINE[14:],
    COMBINED % (8, b"a b", b"17/May/2015:10:05:03 +0000", b"\xff\\", b"", b""),
    COMBINED % (9, b"[b", b"17/May/2015:24:05:03 +0000", b"\xc2\xa0", b"\xc2\xa0", b"\x85"),
    b"example.com:443 " + VALID_LINE,
    b"- " + VALID_LINE[10:],
    VALID_LINE[:-1] + b"\r\n",
    VALID_LINE[:-1] + b"\xc2\xa0\n",
    VALID_LINE[:-1] + b"k\n",
    VALID_LINE.replace(b"GET / HTTP/1.1", b"-"),
    *(b"\n", b" \n", b"\xff\n", b"\0" * 9 + b"\n", VALID_LINE[:-1] + b" " + b"x" * 65_600 + b"\n"),
    *(invalid.line.strip(b"\n") + b"\n" for invalid in INVALID_LINES.values() if invalid.format == "log"),
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
    b"1,'=a,1,\n",
    b'1,"a",1,"b c"\n',
    b'1, "a" ,1,\n',
    b'"2015-05-17 10:05","a""b",1,\n',
    b"1,a,0,\n",
    *(invalid.line + b",\n" for invalid in INVALID_LINES.values() if invalid.format == "csv"),
]
OBJECT = b'{"time": 1, "ip": "a", "size": 1}'
OBJECTS = [
    *(b'{"time": %d.%03d, "ip": "10.0.0.%d", "size": %d}\n' % (1e9 + n, n * 7, n % 5, n + 1) for n in range(9)),
    *(
        b'{"time": "2015-05-17T10:05:%02dZ", "user": {"ip": "b", "n": [1]}, "path": "/p", "size": "3"}\n' % n
        for n in range(3)
    ),
    *(b'{"user": {"ip": %d}, "time": %d, "size": 2.0}\n' % (n - 1, n) for n in range(4)),
    b'{"time": 1, "ip": 7, "user.ip": "dotted", "size": 1e2}\n',
    b'{"time": 1, "ip": "\\u00e9\\ud800", "size": 1}\n',
    b'{"time": 1.1234567891, "ip": "a", "size": 1}\n',
    b'{"time": 1, "ip": "a", "ip": "b", "size": 1}\n',
    OBJECT + b"\n" + OBJECT + OBJECT + b"\n",
    b'{"time": 1, "ip": "a",\n"size": 1}\n',
    b'{"time": 1, "ip": null, "client": "c", "x": NaN, "size": 1}\n',
    b'{"time": 1, "ip": "a", "path": {"x": 1}, "uri": "/u", "size": 1}\n',
    b'{"time": 1, "ip": "a", "path": {"x": 1}, "size": 1}\n',
    b'{"time": 1, "ip": "a", "uri": "/u", "size": 1}\n',
    b'{"time": 1, "client": "c", "size": 1}\n{"time": 2, "client": "d", "ip": "e", "size": 1}\n',
    OBJECT + b"\n" + OBJECT[:-1] + b', "x": -NaN}\n',
    b'{"time": 1, "ip": -0, "user": 5, "size": 1}\r\n',
    b'{"time": 1, "ip": "a\0", "size": 1}\n',
    b'{"time": 1, "ip": "\xff", "x": ' + b"[" * 450 + b"]" * 450 + b', "size": 1}\n',
    b'{"at_ns": 1, "ip": "a", "algorithm": "gcra", "size": 1}\n',
    b'{"at_ns": 1, "ip": "a", "algorithm": "token-bucket", "size": 1}\n',
    *(b"\n", b"\t\n", b"{}\n", b"}{\n"),
    *(
        invalid.line + b"\n"
        for invalid in INVALID_LINES.values()
        if invalid.format == "jsonl" and len(invalid.line) < 1000
    ),
]
PAIRS = [
    *(b'time=%d.%03d ip=10.0.0.%d size=%d more="a b"\n' % (1e9 + n, n * 7, n % 5, n + 1) for n in range(9)),
    b"ip=a size=1 time=2015-05-17T10:05:03Z\n",
    b'time=1 ip="a \\" size=2" size=1 \n',
    b"word time=1 ip=a\n",
    b"time= ip=a size=1\n",
    b"time=1 ip=a ip=b size=1 size=2\n",
    b'x="time=5 ip=z" time=1 ip=a size=3\r\n',
    b"time=1 ip=- size=1\n",
    *(b"\n", b"=\n", b"\xff=\n", b'time="1\n'),
]
LINES = {"log": LOG, "csv": ROWS, "jsonl": OBJECTS, "logfmt": PAIRS}
KEYS = {
    "log": ["ip", "user", "path", "agent", "forwarded"],
    "csv": ["ip", "size"],
    "jsonl": ["ip", "user.ip"],
    "logfmt": ["ip", "size"],
}


@st.composite
def traces(draw: st.DrawFn) -> tuple[bytes, TraceOptions, int]:
    """Draw a file of mostly common lines, the options to read it with, and the bytes of a block."""
    name = draw(st.sampled_from([*LINES]))
    common, uncommon = LINES[name][:9], LINES[name][9:]
    content = b"".join(draw(st.lists(st.sampled_from(common * 9 + uncommon), min_size=1, max_size=40)))
    header = b"time,ip,size,more\n" if name == "csv" else b""
    cost = draw(st.sampled_from([None, "bytes" if name == "log" else "size"]))
    unit, strict = draw(st.sampled_from(["s", "ms", "ns"])), draw(st.integers(0, 9)) == 0
    filters = draw(st.sampled_from([(), parse_filters(["ip=10.0.0.0/30"], ["ip=*.3"]), parse_filters([], ["ip=a"])]))
    options = TraceOptions(
        name,
        draw(st.sampled_from(KEYS[name])),
        cost=cost,
        unit=unit,
        strict=strict,
        lenient=not strict,
        filters=filters,
    )
    return header + content, options, draw(st.sampled_from([100, 700, 2**21]))


def assert_same_results(content: bytes, options: TraceOptions, block_bytes: int) -> None:
    """Read a file in both ways, in blocks of this size."""
    with TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "BLOCK_BYTES", block_bytes)
        path = Path(folder) / "trace"
        path.write_bytes(content)
        with suppress(InputError):
            read_both_ways([path], options)


@settings(max_examples=40)
@given(traces())
def test_both_readers_return_the_same_results(trace: tuple[bytes, TraceOptions, int]) -> None:
    assert_same_results(*trace)


def assert_same_results_for_uncommon_lines(name: str) -> None:
    """Read each uncommon line of a format between common ones, as one block."""
    lines = LINES[name]
    header = b"time,ip,size,more\n" if name == "csv" else b""
    omitted = ["ip=10.*", "path=/u"] if name == "jsonl" else ["ip=10.*"]
    choices = [(key, parse_filters([], [])) for key in KEYS[name]]
    choices += [(KEYS[name][0], parse_filters([], [each])) for each in omitted]
    for key, filters in choices:
        cost, unit = None if name == "log" else "size", "us" if name == "csv" else "s"
        options = TraceOptions(name, key, cost=cost, unit=unit, lenient=True, filters=filters)
        for uncommon in lines[9:]:
            first = lines[1] if filters else b""
            assert_same_results(header + first + uncommon + lines[1] + uncommon + lines[0], options, 2**21)


@pytest.mark.slow
@pytest.mark.parametrize("name", LINES)
def test_both_readers_return_the_same_results_for_uncommon_lines(name: str) -> None:
    assert_same_results_for_uncommon_lines(name)


MUTANTS = {
    "accepts lines that are too long": ("log", columnar, "parse_block", "<= MAX_LINE_CHARS", "<= 2 * MAX_LINE_CHARS"),
    "keeps lines without a client": ("log", columnar.BatchBuilder, "add", "if not all(names)", "if False"),
    "accepts days that do not exist": ("log", time_columns, "_convert_calendar", "start is not None", "True"),
    "numbers clients by first index": ("log", columnar, "renumber_used", "used[np.argsort(firsts[used])]", "used"),
    "keeps requests in the order of patterns": (
        "log",
        columnar.BatchBuilder,
        "build",
        "argsort(rows, kind=",
        "argsort(rows * 0, kind=",
    ),
    "accepts cost 0": ("csv", columnar.BatchBuilder, "add", "costs > 0", "costs >= 0"),
    "ignores the unit of times": (
        "csv",
        time_columns,
        "_convert_numbers",
        "valid, whole, 0) * unit",
        "valid, whole, 0)",
    ),
    "keeps the quotes of a cell": ("csv", columnar, "_get_column", "arrow.strip_quotes(part)", "part"),
    "accepts two objects in one line": (
        "jsonl",
        object_columns,
        "parse_fields",
        "len(objects) == len(rows)",
        "len(objects) >= len(rows)",
    ),
    "takes any text for an address": ("log", columnar, "_name_clients", "arrow.match(last, ", "~arrow.match(last, "),
    "keeps the port of a client": ("log", columnar, "_name_clients", 'text.partition(":")[0]', "text"),
    "accepts lines that are not objects": (
        "jsonl",
        object_columns,
        "find_objects",
        "&= ~arrow.match(",
        "|= arrow.match(",
    ),
    "prefers a later field name": ("jsonl", object_columns, "_find_path", 'else "nothing"\n', 'else "text"\n'),
    "leaves requests in that a filter leaves out": (
        "log",
        columnar.BatchBuilder,
        "_omit",
        "if kept.all()",
        "if kept.any()",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("mutant", MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_of_the_columnar_reader_is_detected(monkeypatch: pytest.MonkeyPatch, mutant: Any) -> None:
    name, place, function, original, replacement = mutant
    monkeypatch.setattr(place, function, rewritten(getattr(place, function), original, replacement))
    monkeypatch.setattr(time_columns, "_MIN_SHARED_TIMES", 10**9)
    with pytest.raises((AssertionError, IndexError, ValueError)):
        assert_same_results_for_uncommon_lines(name)


TIMES = [
    *(
        "1793613600",
        "1793613600.25",
        "1793613600.123456789",
        "0",
        "999999999999999999",
        "1e3",
        "-1",
        "46328.25",
        "1.1234567891",
    ),
    *("2026-11-02T10:00:00Z", "2026-11-02 10:00:00.123456789+02:00", "2026-11-02T10:00:60Z", "2026-02-30T10:00:00Z"),
    *(
        "1700-01-01T00:00:00Z",
        "2115-01-01T00:00:00Z",
        "2300-01-01T00:00:00Z",
        "2026-11-02T10:00:00-9999",
        " 2026-11-02 10:00",
    ),
    *(
        "2026-11-02T24:00:00Z",
        "2026-11-02T10:00:00+0530",
        "02/Nov/2026:10:00:00.5 +0000",
        "02/Nov/2026:10:00:00",
        "noon",
        "",
    ),
]


@given(
    st.one_of(*(st.lists(st.sampled_from(part), min_size=1, max_size=8) for part in (TIMES, TIMES[:5], TIMES[9:16]))),
    st.sampled_from(["s", "ms", "us", "ns", "excel"]),
)
def test_a_column_of_times_is_parsed_like_single_times(texts: list[str], unit: str) -> None:
    rule = TimeRule(unit)
    expected: list[int | None] = []
    for text in texts:
        try:
            expected.append(rule.parse(text.strip()))
        except LineError:
            expected.append(None)
    times, valid = time_columns.parse_times(pyarrow.array(texts), rule)
    assert [
        time if is_valid else None for time, is_valid in zip(times.tolist(), valid.tolist(), strict=True)
    ] == expected


def test_a_rejected_line_leaves_no_thread_behind(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(b"{}\n" + OBJECTS[0] * 9)
    before = threading.enumerate()
    with pytest.raises(InputError, match="trace:1: ") as caught:
        read_traces([str(path)], TraceOptions("jsonl", strict=True), columnar=True)
    assert caught.value, "keeps the error, and with it the frames of the reader"
    assert threading.enumerate() == before


ADDRESSES = [
    *(f"192.0.2.{n % 3}:{40_000 + n}" for n in range(20)),
    *(f"[2001:db8:0:{n % 2}::{n}]:{40_000 + n}" for n in range(9)),
    *("::ffff:192.0.2.1", "[::ffff:192.0.2.1]:80", "2001:db8::1", "[2001:db8::1]", "192.0.2.300:80", "192.0.2.1:x"),
    *("192.0.2.1:123456", "[x]:80", "192.0.2.1, 10.0.0.1", "10.0.0.1, 192.0.2.1:80", "unknown", "-", "10.0.0.2:1"),
]
WITH_PORTS = {
    "jsonl": '{{"time": {n}, "ip": "{address}", "x_forwarded_for": "{forwarded}"}}\n',
    "logfmt": 'time={n} ip={address} fwd="{forwarded}"\n',
    "csv": '{n},"{address}","{forwarded}"\n',
}


@pytest.mark.parametrize("key", [None, "ip", "forwarded"])
@pytest.mark.parametrize("name", WITH_PORTS)
def test_many_ports_are_read_alike_by_both_readers(name: str, key: str | None, tmp_path: Path) -> None:
    lines = [
        WITH_PORTS[name].format(n=n, address=address, forwarded=ADDRESSES[n * 7 % len(ADDRESSES)])
        for n, address in enumerate(ADDRESSES * 2, 1_793_613_600)
    ]
    header = "time,ip,x_forwarded_for\n" if name == "csv" else ""
    path = tmp_path / "trace"
    path.write_text(header + "".join(lines))
    trace = read_both_ways([path], TraceOptions(name, key, lenient=True))
    assert not any(":40" in client for client in trace.traffic.names)


def test_numbers_as_clients_keep_the_sign_of_zero(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_text("".join(f'{{"time": {n}, "ip": {number}}}\n' for n, number in enumerate(["7", "0", "-0", "-7"])))
    trace = read_both_ways([path], TraceOptions("jsonl"))
    assert trace.traffic.names == ("7", "0", "-0", "-7")


@pytest.mark.parametrize("address", ["192.0.2.1", "192.0.2.1:80", "2001:db8::1", "[2001:db8::1]:80", " 192.0.2.1", "-"])
@pytest.mark.parametrize("other", ["192.0.2.2", "2001:db8::2", "unknown"])
@pytest.mark.parametrize("key", ["ip", "forwarded"])
def test_addresses_of_several_kinds_are_read_alike(key: str, other: str, address: str, tmp_path: Path) -> None:
    path = tmp_path / "trace"
    lines = [f'{{"time": {n}, "ip": "{other}", "x_forwarded_for": "{other}"}}\n' for n in range(3)]
    path.write_text("".join(lines) + lines[0].replace(other, address))
    trace = read_both_ways([path], TraceOptions("jsonl", key, lenient=True))
    assert (trace.lines, trace.unparsed) == (4, 0)


def test_clients_with_forwarded_addresses_are_numbered_in_the_order_of_lines(tmp_path: Path) -> None:
    pairs = [("10.0.0.1", "192.0.2.1"), ("10.0.0.2", "192.0.2.2, -"), ("10.0.0.1", "192.0.2.3"), ("10.0.0.2", "-")]
    path = tmp_path / "trace"
    path.write_text("".join(f'time={n} ip={peer} fwd="{forwarded}"\n' for n, (peer, forwarded) in enumerate(pairs)))
    rule = ClientRule(trusted_proxies=("10.0.0.0/8",))
    trace = read_both_ways([path], TraceOptions("logfmt", clients=rule))
    assert trace.traffic.names == ("192.0.2.1", "10.0.0.2", "192.0.2.3")


@pytest.mark.parametrize("rows", ["plain", "quoted later", "quoted"])
def test_rows_with_quotes_are_read_alike_wherever_they_begin(rows: str, tmp_path: Path) -> None:
    cells = {"plain": ("a", "a"), "quoted later": ("a", '"a,b"'), "quoted": ('"a,b"', '"a"')}[rows]
    lines = [f"{cells[n > 200]},10.0.0.{n % 9},{n}\n" for n in range(400)]
    path = tmp_path / "trace"
    path.write_text("more,ip,time\n" + "".join(lines) + 'a,"b"c,1\na,b\n"a,b,1\n')
    trace = read_both_ways([path], TraceOptions("csv"))
    assert (len(trace.traffic), trace.unparsed) == (400, 3)
