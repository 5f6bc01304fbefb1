"""Traces: every format read exactly, every oddity counted, every bad file one line of error."""

from __future__ import annotations

import gzip
import io
import sys
import tracemalloc
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any, BinaryIO

import pytest
from bad_traces import BAD_LINES, BAD_TRACES, GOOD, BadLine, BadTrace
from hypothesis import given
from hypothesis import strategies as st

from ratelab import InputError
from ratelab.lab.traces import Trace, TraceOptions, read_trace
from ratelab.lab.traces.instants import read_instant

SECOND = 10**9
START = 1_431_857_103 * SECOND
"""17 May 2015, 10:05:03 UTC."""

Read = Callable[..., Trace]


@pytest.fixture
def read(tmp_path: Path) -> Read:
    """Write a trace to a file and read it."""

    def read(content: bytes, **options: Any) -> Trace:
        path = tmp_path / "trace"
        path.write_bytes(content)
        return read_trace(str(path), TraceOptions(**options))

    return read


def log(*times: str, clients: str = "") -> bytes:
    """Write a log of a client `a` at such times of a day, or of the client at the same place in `clients`."""
    return b"".join(
        f'{client} - - [17/May/2015:{time} +0000] "GET / HTTP/1.1" 200 12\n'.encode()
        for time, client in zip(times, clients or "a" * len(times), strict=True)
    )


def names_of(trace: Trace) -> list[str]:
    """Return who asked, request by request."""
    return [trace.traffic.names[client] for client in trace.traffic.clients]


# --- logs


FULL = '192.0.2.7 - bob [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 404 12 "http://x/" "Mozilla/5.0 (\\"x\\")"'


@pytest.mark.parametrize(
    ("key", "client"),
    [
        ("ip", "192.0.2.7"),
        ("user", "bob"),
        ("method", "GET"),
        ("path", "/a"),
        ("status", "404"),
        ("referer", "http://x/"),
        ("agent", 'Mozilla/5.0 (\\"x\\")'),
    ],
)
@pytest.mark.parametrize("more", ["", ' "-" 0.003 upstream="10.0.0.1:80"', "\r"])
def test_any_field_of_a_combined_log_may_be_the_client(read: Read, key: str, client: str, more: str) -> None:
    trace = read(f"{FULL}{more}\n".encode(), key=key)
    assert (trace.format, trace.traffic.names, trace.traffic.origin) == ("log", (client,), START)


@pytest.mark.parametrize(
    ("line", "client"),
    [
        ('2001:db8::1 - - [{}] "GET / HTTP/1.1" 200 12', "2001:db8::1"),
        ('::1 - - [{}] "GET / HTTP/1.1" 200 12', "::1"),
        ('fe80::1%eth0 - - [{}] "GET / HTTP/1.1" 200 12', "fe80::1%eth0"),
        ('crawl-1.example.com - - [{}] "GET / HTTP/1.1" 200 12', "crawl-1.example.com"),
        ('192.0.2.7 ident bob [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('192.0.2.7 - bob [the builder] [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('192.0.2.7 -  [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('example.com:443 192.0.2.7 - - [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('example.com 2001:db8::1 - - [{}] "GET / HTTP/1.1" 200 12', "2001:db8::1"),
        ('example.com:80 192.0.2.7 - bob b [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "-" 408 -', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "" 400 0 "-" "-"', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "\\x16\\x03\\x01" 400 226', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "\x16\x03\x01\x00" 400 226', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "GET /\\"quoted\\" \\\\" 200 12', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "GET /[17/May/2015:10:05:04 +0000]" - - "\\"', "192.0.2.7"),
    ],
)
def test_log_lines_as_servers_write_them_are_understood(read: Read, line: str, client: str) -> None:
    trace = read(f"{line}\n".format("17/May/2015:10:05:03 +0000").encode())
    assert (trace.traffic.names, trace.traffic.origin, trace.unparsed) == ((client,), START, 0)


@pytest.mark.parametrize(
    "host", ["example.com 192.0.2.7 198.51.100.1", "192.0.2.7, 198.51.100.1", "example.com crawl.example.org"]
)
def test_a_line_that_could_name_two_clients_names_none(read: Read, host: str) -> None:
    assert read(GOOD + GOOD.replace(b"192.0.2.7", host.encode())).unparsed == 1


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("17/May/2015:10:05:03 +0000", 0),
        ("17/May/2015:12:05:03 +0200", 0),
        ("17/May/2015:06:35:03 -0330", 0),
        ("18/May/2015:00:05:03 +1400", 0),
        ("17/May/2015:10:04:60 +0000", -3),
        ("17/May/2015:10:05:03.5 +0000", 0.5),
    ],
)
def test_a_log_time_counts_in_its_zone(read: Read, time: str, seconds: float) -> None:
    assert read(GOOD.replace(b"17/May/2015:10:05:03 +0000", time.encode())).traffic.origin == START + seconds * SECOND


@given(
    st.datetimes(datetime(1830, 1, 1), datetime(2110, 1, 1)),
    st.integers(-23 * 60, 23 * 60),
)
def test_times_of_logs_and_iso_8601_agree_with_the_calendar(moment: datetime, minutes: int) -> None:
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert read_instant(moment.isoformat(), 1) == microseconds * 1000
    assert read_instant(moment.strftime("%d/%b/") + f"{moment.year}" + moment.strftime(":%X.%f %z"), 1) == (
        microseconds * 1000
    )


def test_a_field_that_a_log_does_not_know_is_no_client(read: Read) -> None:
    trace = read(GOOD * 2 + FULL.encode(), key="user")
    assert (trace.traffic.names, trace.lines, trace.unparsed) == (("bob",), 3, 2)
    assert str(trace.rejects[0]).startswith("1: it has no user: name another field with --key: '192.0.2.7")


# --- JSON lines and CSV


TIMES = [
    ("1431857103", "s", 0),
    ("1431857103.123456789", "s", 123_456_789),
    ("1431857103.1234567899", "s", 123_456_789),
    ("1431857103.12345678999999999999999999", "s", 123_456_789),
    ("1431857103123.456789", "ms", 123_456_789),
    ("1431857103123456.789", "us", 123_456_789),
    ("1431857103123456789", "ns", 123_456_789),
    ("1.431857103123456789e9", "s", 123_456_789),
    ("2015-05-17T10:05:03Z", "s", 0),
    ("2015-05-17t10:05:03.123456789z", "s", 123_456_789),
    ("2015-05-17 10:05:03,1234567899", "s", 123_456_789),
    ("2015-05-17T12:05:03.1+02:00", "ms", 100_000_000),
    ("2015-05-17T06:35:03-0330", "s", 0),
    ("2015-05-17 10:05:03.000000001 +00", "s", 1),
    ("17/May/2015:10:05:03 +0000", "s", 0),
]


@pytest.mark.parametrize(("text", "unit", "after"), TIMES)
@pytest.mark.parametrize("form", ['{{"time": "{}", "ip": "a"}}', 'time,ip\n"{}",a'])
def test_a_time_is_exact_to_the_nanosecond(read: Read, form: str, text: str, unit: str, after: int) -> None:
    assert read(form.format(text).encode(), unit=unit).traffic.origin == START + after


@given(st.integers(-(2**62), 2**62), st.sampled_from([("s", 9), ("ms", 6), ("us", 3), ("ns", 0)]))
def test_a_number_is_exact_in_every_unit(nanoseconds: int, unit: tuple[str, int]) -> None:
    whole, part = divmod(abs(nanoseconds), 10 ** unit[1])
    text = f"{'-' if nanoseconds < 0 else ''}{whole}.{part:0{unit[1]}d}"
    assert read_instant(text, 10 ** unit[1]) == nanoseconds


def test_times_before_1970_are_times(read: Read) -> None:
    trace = read(b"time,ip\n-0.5,a\n1969-12-31T23:59:58Z,a\n-1e-10,b\n")
    assert trace.traffic.origin == -2 * SECOND
    assert trace.traffic.times.tolist() == [0, 3 * SECOND // 2, 2 * SECOND - 1]


@pytest.mark.parametrize("name", ["time", "timestamp", "ts", "@timestamp", "time_iso8601", "date", "msec"])
def test_the_usual_names_of_the_time_are_found(read: Read, name: str) -> None:
    for content in (f'{{"{name}": 1.5, "ip": "a"}}', f"ip,{name.title()}\na,1.5"):
        assert read(content.encode()).traffic.origin == 3 * SECOND // 2


@pytest.mark.parametrize("name", ["ip", "client_ip", "clientip", "remote_addr", "remote_ip", "client"])
def test_the_usual_names_of_the_client_are_found(read: Read, name: str) -> None:
    for content in (f'{{"time": 1, "{name}": "a"}}', f"{name},time\na,1"):
        assert read(content.encode()).traffic.names == ("a",)


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_at_ns_counts_nanoseconds_whatever_the_unit(read: Read, unit: str) -> None:
    for content in (b'{"at_ns": 1431857103000000001, "ip": "a"}', b"at_ns,ip\n1431857103000000001,a"):
        assert read(content, unit=unit).traffic.origin == START + 1


@pytest.mark.parametrize(
    "content",
    [
        b'{"when": 2.5, "time": 9, "user": {"name": "a"}, "size": 3}\n{"when": "3.5", "user.name": "b", "size": "2.0"}',
        b"When;time;user.name;size\n2.5;9;a;3\n 3.5 ;9; b ;2.0\n",
        b'"when"\t"time"\t"user.name"\t"size"\r\n"2.5"\t9\t"a"\t3\r\n3.5\t9\t"b"\t2\r\n',
        b"\xef\xbb\xbfwhen,time,user.name,size\n2.5,9,a,3\n3.5,9,b,2\n",
        b'\n\n{"when": 2.5, "user": {"name": "a"}, "size": 3}\n\n  {"when": 35e-1, "user": {"name": "b"}, "size": 2}',
    ],
)
def test_fields_may_be_named(read: Read, content: bytes) -> None:
    traffic = read(content, time="when", key="user.name", cost="size").traffic
    assert (traffic.origin, traffic.times.tolist()) == (5 * SECOND // 2, [0, SECOND])
    assert (traffic.names, traffic.costs.tolist()) == (("a", "b"), [3, 2])


def test_quotes_keep_a_delimiter(read: Read) -> None:
    assert read(b'time, ip\n1, "a, ""b"""\n').traffic.names == ('a, "b"',)


def test_numbers_name_clients_as_they_are_written(read: Read) -> None:
    names = ("7", "7.50", "123456789012345678901234567890")
    content = "\n".join(f'{{"time": 1, "ip": {name}}}' for name in names)
    assert read(content.encode()).traffic.names == names


# --- order, seconds, duration


def test_clients_are_numbered_as_the_file_names_them(read: Read) -> None:
    trace = read(log("10:00:03", "10:00:01", "10:00:02", "10:00:02", clients="cabc"))
    assert trace.traffic.names == ("c", "a", "b")
    assert names_of(trace) == ["a", "b", "c", "c"]
    assert trace.traffic.keys.tolist() == [0, 1, 2]
    assert trace.traffic.costs.tolist() == [1, 1, 1, 1]


def test_times_are_sorted_stably_and_the_late_ones_counted(read: Read) -> None:
    rows = zip([5, 1, 3, 5, 1, 6, 6], b"abcdefg", range(1, 8), strict=True)
    trace = read(b"time,ip,cost\n" + b"".join(b"%d.5,%c,%d\n" % row for row in rows), cost="cost")
    assert "".join(names_of(trace)) == "becadfg"
    assert trace.traffic.costs.tolist() == [2, 5, 3, 1, 4, 6, 7]
    assert trace.reordered == 3
    assert read(b"time,ip\n1.5,a\n1.5,b\n2,c\n").reordered == 0


@given(st.lists(st.integers(0, 3), min_size=50, max_size=200))
def test_equal_times_keep_the_order_of_the_file(times: list[int]) -> None:
    content = "time,ip\n" + "".join(f"{time}.5,{number}\n" for number, time in enumerate(times))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        trace = read_trace("-")
    assert names_of(trace) == [str(number) for _, number in sorted((time, n) for n, time in enumerate(times))]
    assert trace.reordered == sum(time < max(times[: n + 1]) for n, time in enumerate(times))


def test_whole_seconds_are_spread_in_the_order_of_the_file(read: Read) -> None:
    trace = read(log("10:00:07", "10:00:05", "10:00:05", "10:00:05", "10:00:07", "10:00:06", clients="abcdef"))
    assert trace.whole_seconds
    assert "".join(names_of(trace)) == "bcdfae"
    assert trace.traffic.times.tolist() == [
        0,
        SECOND // 3,
        SECOND * 2 // 3,
        SECOND,
        2 * SECOND,
        2 * SECOND + SECOND // 2,
    ]
    assert trace.traffic.duration == 3 * SECOND


def test_whole_seconds_may_stand_at_their_start(read: Read) -> None:
    traffic = read(log("10:00:05", "10:00:05", "10:00:07"), within_second="start").traffic
    assert (traffic.times.tolist(), traffic.duration) == ([0, 0, 2 * SECOND], 3 * SECOND)


@pytest.mark.parametrize("first", [b"1", b"1.000", b"1970-01-01T00:00:01Z"])
def test_one_fraction_of_a_second_says_that_times_are_exact(read: Read, first: bytes) -> None:
    trace = read(b"time,ip\n%s,a\n%s,b\n2.000000001,c\n" % (first, first))
    assert not trace.whole_seconds
    assert (trace.traffic.times.tolist(), trace.traffic.duration) == ([0, 0, SECOND + 1], SECOND + 1)
    assert read(b"time,ip\n%s,a\n%s,b\n" % (first, first)).traffic.times.tolist() == [0, SECOND // 2]


def test_traffic_lasts_at_least_a_nanosecond(read: Read) -> None:
    assert read(b"time,ip\n1.5,a\n1.5,a\n").traffic.duration == 1


# --- what cannot be read


@pytest.mark.parametrize("bad", BAD_LINES.values(), ids=BAD_LINES.keys())
def test_a_bad_line_is_counted_kept_and_passed_over(read: Read, bad: BadLine) -> None:
    header = {"log": b"", "jsonl": b"", "csv": b"time,ip,cost\n"}[bad.format]
    good = {"log": GOOD, "jsonl": b'{"time": 1, "ip": "a", "cost": 1}\n', "csv": b"1,a,1\n"}[bad.format]
    cost = "cost" if bad.format == "csv" or "cost" in bad.reason else None
    trace = read(header + good + bad.line.strip(b"\n") + b"\n" + good, format=bad.format, cost=cost)
    assert (trace.lines, trace.unparsed, len(trace.traffic)) == (3, 1, 2)
    assert trace.rejects[0].line == 2 + bool(header)
    assert bad.reason in trace.rejects[0].reason
    assert len(trace.rejects[0].text) <= 62


def test_the_first_three_bad_lines_are_kept_and_safe_to_print(read: Read) -> None:
    trace = read(GOOD + b"\n" + b"\x1b[2J\xff\0\n" * 10 + b" \n" + GOOD)
    assert (trace.lines, trace.unparsed, len(trace.traffic)) == (12, 10, 2)
    assert [reject.line for reject in trace.rejects] == [3, 4, 5]
    assert trace.rejects[0].text == r"'\x1b[2J" + "\N{REPLACEMENT CHARACTER}" + r"\x00'"


def test_a_clients_name_is_safe_to_print(read: Read) -> None:
    trace = read(rb'{"time": 1, "ip": "\u001b[2J\n\ud800"}')
    assert trace.traffic.names == (r"\x1b[2J\n\ud800",)


@pytest.mark.parametrize("bad", BAD_TRACES.values(), ids=BAD_TRACES.keys())
def test_a_bad_trace_is_one_line_that_names_the_remedy(read: Read, tmp_path: Path, bad: BadTrace) -> None:
    with pytest.raises(InputError) as caught:
        read(bad.content, **bad.options)
    message = str(caught.value)
    assert bad.says in message
    assert message.isprintable()
    assert len(message.removeprefix(str(tmp_path))) < 500
    assert message.startswith((f"{tmp_path / 'trace'}:", "format ", "unit ", "within_second "))


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("", "Is a directory"),
        ("missing", "No such file or directory"),
        ("a\0b", r"a\x00b: it cannot be opened (embedded null byte)"),
        ("two\nlines", r"two\nlines: it cannot be opened"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_path_that_is_no_file_is_refused(tmp_path: Path, path: str, says: str) -> None:
    with pytest.raises(InputError) as caught:
        read_trace(f"{tmp_path}/{path}")
    assert says in str(caught.value)
    assert str(caught.value).endswith(": give a log, JSON lines or CSV file")
    assert str(caught.value).isprintable()


# --- files, pipes, memory


class Pipe(io.RawIOBase):
    """Standard input that gives a byte at a time and cannot seek; at its end it breaks, if told to."""

    def __init__(self, content: bytes, breaks: bool = False) -> None:
        self.content = content
        self.breaks = breaks
        self.at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if self.breaks and self.at == len(self.content):
            raise OSError(5, "Input/output error")
        given = self.content[self.at : self.at + 1]
        buffer[: len(given)] = given
        self.at += len(given)
        return len(given)


def feed(monkeypatch: pytest.MonkeyPatch, pipe: Pipe) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(pipe)))


@pytest.mark.parametrize("content", [GOOD * 3, gzip.compress(GOOD * 3)])
def test_a_dash_reads_standard_input_plain_or_gzip(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    feed(monkeypatch, Pipe(content))
    assert read_trace("-").lines == 3


@pytest.mark.parametrize(
    ("pipe", "says"),
    [(Pipe(b""), "it holds no lines"), (Pipe(GOOD, breaks=True), "it cannot be read (Input/output error)")],
)
def test_standard_input_has_a_name_in_errors(monkeypatch: pytest.MonkeyPatch, pipe: Pipe, says: str) -> None:
    feed(monkeypatch, pipe)
    with pytest.raises(InputError) as caught:
        read_trace("-")
    assert str(caught.value).startswith(f"standard input: {says}")


def test_closed_standard_input_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", None)
    with pytest.raises(InputError, match="standard input: it is closed: pipe the trace in or give a file"):
        read_trace("-")


def test_gzip_may_have_members_and_padding(read: Read) -> None:
    content = gzip.compress(GOOD * 2 + GOOD[:30]) + gzip.compress(b"") + gzip.compress(GOOD[30:]) + bytes(700)
    assert (read(content).lines, read(content).unparsed) == (3, 0)


def test_gzip_that_unpacks_to_much_is_read_in_pieces(read: Read) -> None:
    lines = GOOD * 100_000
    assert len(read(gzip.compress(lines)).traffic) == 100_000


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_lines_end_as_they_like(read: Read, end: bytes) -> None:
    content = end.join([b"", b"time,ip", b"", b"1,a", b" ", b"2,a"])
    for text in (content, content + end, b"\xef\xbb\xbf" + content):
        assert (read(text).lines, read(text).unparsed, read(text).traffic.names) == (2, 0, ("a",))


def test_bytes_that_are_not_utf_8_are_replaced(read: Read) -> None:
    assert read("time,ip\n1,é\n2,".encode() + b"\xe9\n").traffic.names == ("é", "\N{REPLACEMENT CHARACTER}")


@pytest.mark.parametrize("opened", [Path.open, gzip.open], ids=["plain", "gzip"])
def test_a_line_of_50_megabytes_is_one_bad_line_and_takes_little_memory(
    tmp_path: Path, opened: Callable[[Path, str], BinaryIO]
) -> None:
    path = tmp_path / "trace"
    with opened(path, "wb") as file:
        file.write(GOOD)
        for _ in range(50):
            file.write(b"\xc3\xa9" * 500_000)
        file.write(b"\n" + GOOD)
    tracemalloc.start()
    trace = read_trace(str(path))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (trace.lines, trace.unparsed, trace.rejects[0].line) == (3, 1, 2)
    assert peak < 16 * 2**20


@pytest.mark.parametrize("character", ["a", "é", "\N{MUSICAL SYMBOL G CLEF}"])
def test_a_line_may_have_65536_characters(read: Read, character: str) -> None:
    long, longest = (f"1,{character * count}\n".encode() for count in (60_000, 65_534))
    trace = read(b"time,ip\n" + long * 20 + longest[:-1] + b"b\n" + longest)
    assert (trace.lines, trace.unparsed, trace.traffic.names) == (22, 1, (character * 60_000, character * 65_534))


def test_progress_is_told_in_bytes_as_stored(tmp_path: Path) -> None:
    path = tmp_path / "trace"
    path.write_bytes(GOOD * 50_000)
    told: list[int] = []
    read_trace(str(path), progress=told.append)
    assert len(told) > 1
    assert sum(told) == len(GOOD) * 50_000


# --- anything at all


PIECES = [
    GOOD,
    b'{"time": 1, "ip": "a", "cost": 2}\n',
    b'{"time": "2015-05-17T10:05:03.5Z", "ip": "b"}\n',
    b"time,ip,cost\n",
    b"1,a,1\n2.5,b,2\n",
    *(b"\n", b",", b'"', b"{", b"}", b"[", b"]", b"\\", b" - - [", b"\0", b"\r", b"\xef\xbb\xbf", b"\xff"),
    *(b"1e999", b"-1", b"99999999999", b"4e9", b"NaN", b"2015-02-29T00:00:00Z", b"31/Dec/9999:23:59:60 +9999"),
]


@given(
    content=st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=12).map(b"".join),
    zipped=st.booleans(),
    options=st.builds(
        TraceOptions,
        format=st.sampled_from(["auto", "log", "jsonl", "csv"]),
        key=st.sampled_from(["ip", "agent", "cost", "a.b"]),
        time=st.sampled_from([None, "time", "ip"]),
        cost=st.sampled_from([None, "cost"]),
        unit=st.sampled_from(["s", "ns"]),
        within_second=st.sampled_from(["spread", "start"]),
        strict=st.booleans(),
    ),
)
def test_anything_is_a_trace_or_an_input_error(content: bytes, zipped: bool, options: TraceOptions) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(content) if zipped else content)))
        try:
            trace = read_trace("-", options)
        except InputError:
            return
    traffic = trace.traffic
    assert trace.lines == len(traffic) + trace.unparsed
    assert traffic.times[0] == 0
    assert (traffic.times[1:] >= traffic.times[:-1]).all()
    assert traffic.duration > traffic.times[-1] or not trace.whole_seconds
    assert traffic.duration >= max(1, traffic.times[-1])
    assert sorted(set(traffic.clients.tolist())) == list(range(len(traffic.names)))
    assert (traffic.costs >= 1).all()
