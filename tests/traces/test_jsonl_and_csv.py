"""JSON lines and CSV: times exact to the nanosecond, and fields by name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from trace_reading import START, Read

from ratelab.lab.traces.timestamps import parse_time
from ratelab.quota import NS_PER_S

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


@pytest.mark.parametrize(("text", "unit", "offset"), TIMES)
@pytest.mark.parametrize("form", ['{{"time": "{}", "ip": "a"}}', 'time,ip\n"{}",a'])
def test_a_time_is_exact_to_the_nanosecond(read: Read, form: str, text: str, unit: str, offset: int) -> None:
    assert read(form.format(text).encode(), unit=unit).traffic.origin == START + offset


@given(st.integers(1 - 2**62, 2**62 - 1), st.sampled_from([("s", 9), ("ms", 6), ("us", 3), ("ns", 0)]))
def test_a_numeric_time_is_exact_in_every_unit(nanoseconds: int, unit: tuple[str, int]) -> None:
    whole, part = divmod(abs(nanoseconds), 10 ** unit[1])
    text = f"{'-' if nanoseconds < 0 else ''}{whole}.{part:0{unit[1]}d}"
    assert parse_time(text, 10 ** unit[1]) == nanoseconds


def test_times_before_1970_are_accepted(read: Read) -> None:
    trace = read(b"time,ip\n-0.5,a\n1969-12-31T23:59:58Z,a\n-1e-10,b\n")
    assert trace.traffic.origin == -2 * NS_PER_S
    assert trace.traffic.times.tolist() == [0, 3 * NS_PER_S // 2, 2 * NS_PER_S - 1]


@pytest.mark.parametrize("name", ["time", "timestamp", "ts", "@timestamp", "time_iso8601", "date", "msec"])
def test_common_names_of_the_time_field_are_found(read: Read, name: str) -> None:
    for content in (f'{{"{name}": 1.5, "ip": "a"}}', f"ip,{name.title()}\na,1.5"):
        assert read(content.encode()).traffic.origin == 3 * NS_PER_S // 2


@pytest.mark.parametrize("name", ["ip", "client_ip", "clientip", "remote_addr", "remote_ip", "client"])
def test_common_names_of_the_client_field_are_found(read: Read, name: str) -> None:
    for content in (f'{{"time": 1, "{name}": "a"}}', f"{name},time\na,1"):
        assert read(content.encode()).traffic.names == ("a",)


@pytest.mark.parametrize("unit", ["s", "ms"])
def test_at_ns_is_in_nanoseconds_for_every_unit(read: Read, unit: str) -> None:
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
def test_options_name_the_fields(read: Read, content: bytes) -> None:
    traffic = read(content, time="when", key="user.name", cost="size").traffic
    assert (traffic.origin, traffic.times.tolist()) == (5 * NS_PER_S // 2, [0, NS_PER_S])
    assert (traffic.names, traffic.costs.tolist()) == (("a", "b"), [3, 2])


def test_a_delimiter_within_quotes_is_text(read: Read) -> None:
    assert read(b'time, ip\n1, "a, ""b"""\n').traffic.names == ('a, "b"',)


def test_a_number_as_client_keeps_its_digits(read: Read) -> None:
    names = ("7", "7.50", "123456789012345678901234567890")
    content = "\n".join(f'{{"time": 1, "ip": {name}}}' for name in names)
    assert read(content.encode()).traffic.names == names
