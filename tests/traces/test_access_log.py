"""Access logs: every field, host and time zone that servers write; ambiguous lines are rejected."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invalid_traces import VALID_LINE
from trace_reading import START, Read

from ratelab.lab.traces.timestamps import parse_time
from ratelab.quota import NS_PER_S

COMBINED = (
    '192.0.2.7 - bob [17/May/2015:10:05:03 +0000] "GET /a?b=c HTTP/1.1" 404 12 "http://x/" "Mozilla/5.0 (\\"x\\")"'
)


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
@pytest.mark.parametrize("suffix", ["", ' "-" 0.003 upstream="10.0.0.1:80"', "\r"])
def test_any_field_of_a_combined_log_can_be_the_client(read: Read, key: str, client: str, suffix: str) -> None:
    trace = read(f"{COMBINED}{suffix}\n".encode(), key=key)
    assert (trace.format, trace.traffic.names) == ("log" if len(suffix) > 1 else "combined", (client,))
    assert trace.traffic.origin == START


@pytest.mark.parametrize(
    ("line", "client"),
    [
        ('2001:db8::1 - - [{}] "GET / HTTP/1.1" 200 12', "2001:db8::/64"),
        ('[2001:db8::1]:443 - - [{}] "GET / HTTP/1.1" 200 12', "2001:db8::/64"),
        ('::ffff:192.0.2.7 - - [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('192.0.2.7:40000 - - [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('::1 - - [{}] "GET / HTTP/1.1" 200 12', "::/64"),
        ('fe80::1%eth0 - - [{}] "GET / HTTP/1.1" 200 12', "fe80::/64"),
        ('crawl-1.example.com - - [{}] "GET / HTTP/1.1" 200 12', "crawl-1.example.com"),
        ('192.0.2.7 ident bob [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('192.0.2.7 - bob [the builder] [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('192.0.2.7 -  [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('example.com:443 192.0.2.7 - - [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('example.com 2001:db8::1 - - [{}] "GET / HTTP/1.1" 200 12', "2001:db8::/64"),
        ('example.com:80 192.0.2.7 - bob b [{}] "GET / HTTP/1.1" 200 12', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "-" 408 -', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "" 400 0 "-" "-"', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "\\x16\\x03\\x01" 400 226', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "\x16\x03\x01\x00" 400 226', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "GET /\\"quoted\\" \\\\" 200 12', "192.0.2.7"),
        ('192.0.2.7 - - [{}] "GET /[17/May/2015:10:05:04 +0000]" - - "\\"', "192.0.2.7"),
    ],
)
def test_log_lines_of_real_servers_are_parsed(read: Read, line: str, client: str) -> None:
    trace = read(f"{line}\n".format("17/May/2015:10:05:03 +0000").encode())
    assert (trace.traffic.names, trace.traffic.origin, trace.unparsed) == ((client,), START, 0)


@pytest.mark.parametrize("host", ["example.com 192.0.2.7 198.51.100.1", "example.com crawl.example.org"])
def test_a_line_with_two_possible_clients_is_rejected(read: Read, host: str) -> None:
    assert read(VALID_LINE + VALID_LINE.replace(b"192.0.2.7", host.encode())).unparsed == 1


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
def test_a_log_time_respects_its_zone(read: Read, time: str, seconds: float) -> None:
    trace = read(VALID_LINE.replace(b"17/May/2015:10:05:03 +0000", time.encode()))
    assert trace.traffic.origin == START + seconds * NS_PER_S


@given(
    st.datetimes(datetime(1830, 1, 1), datetime(2110, 1, 1)),
    st.integers(-23 * 60, 23 * 60),
)
def test_times_of_logs_and_iso_8601_agree_with_the_calendar(moment: datetime, minutes: int) -> None:
    moment = moment.replace(tzinfo=timezone(timedelta(minutes=minutes)))
    microseconds = (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    assert parse_time(moment.isoformat(), 1) == microseconds * 1000
    assert parse_time(moment.strftime("%d/%b/") + f"{moment.year}" + moment.strftime(":%X.%f %z"), 1) == (
        microseconds * 1000
    )


def test_lines_without_the_key_field_are_counted_and_left_out(read: Read) -> None:
    trace = read(VALID_LINE * 2 + COMBINED.encode(), key="user")
    assert (trace.traffic.names, trace.lines, trace.anonymous, trace.unparsed) == (("bob",), 3, 2, 0)
