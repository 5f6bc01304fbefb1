"""Choices of the reader: the client and the time are right, named in the report, and changed by an option."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from cli_runner import get_error, get_json, get_output
from hypothesis import given
from hypothesis import strategies as st
from trace_reading import Read

from ratelab import InputError
from ratelab.http import Identity
from ratelab.lab.traces import ClientRule, Trace, read_traces
from ratelab.quota import NS_PER_S

START = 1_793_613_600 * NS_PER_S
"""2 November 2026, 10:00:00 UTC."""


def get_clients(trace: Trace) -> list[str]:
    """Return the name of each request's client."""
    return [trace.traffic.names[client] for client in trace.traffic.clients.tolist()]


def get_seconds(trace: Trace) -> list[float]:
    """Return the time of each request in seconds after `START`."""
    return [(time - START) / NS_PER_S for time in trace.traffic.clock_times.tolist()]


def format_log(*heads: str, tail: str = "") -> bytes:
    """Return a log with a line for each second, which begins with the text in `heads` and ends with `tail`."""
    lines = [
        f'{head} [02/Nov/2026:10:00:{second:02} +0000] "GET / HTTP/1.1" 200 5{tail}\n'
        for second, head in enumerate(heads)
    ]
    return "".join(lines).encode()


def has_note(trace: Trace, text: str) -> bool:
    return any(text in note for note in trace.notes)


# --- the client


@pytest.mark.parametrize(
    "heads",
    [
        ("203.0.113.1 10.0.0.5 - -", "203.0.113.2 10.0.0.5 - -"),
        ("203.0.113.1 192.168.0.9 -", "203.0.113.2 192.168.0.8 -"),
        ("203.0.113.1 10.0.0.5", "203.0.113.2 10.0.0.5"),
        ("203.0.113.1, 10.0.0.7 10.0.0.5 - -", "203.0.113.2, 10.0.0.7 10.0.0.5 - -"),
        ("203.0.113.1 10.0.0.5 - -", "- 203.0.113.2 - -"),
        ('"198.51.100.9, 203.0.113.1" 10.0.0.5 - -', '"203.0.113.2" 10.0.0.5 - ada'),
        ("203.0.113.1 198.51.100.5 - -", "203.0.113.2 198.51.100.5 - -"),
    ],
    ids=["ident", "user", "neither", "list", "direct", "quoted list", "constant proxy"],
)
def test_of_two_addresses_the_proxy_is_not_the_client(read: Read, heads: tuple[str, ...]) -> None:
    trace = read(format_log(*heads))
    assert get_clients(trace) == ["203.0.113.1", "203.0.113.2"]
    assert has_note(trace, "each line begins with two addresses: the first is the client")
    assert has_note(trace, "(--key ip)")


def test_a_proxy_in_front_of_the_client_is_recognized(read: Read) -> None:
    trace = read(format_log("10.0.0.5 203.0.113.1 - -", "10.0.0.5 203.0.113.2 - -"))
    assert get_clients(trace) == ["203.0.113.1", "203.0.113.2"]
    assert has_note(trace, "the second is the client (--key forwarded: the first)")


def test_two_public_addresses_need_a_choice_which_then_works(read: Read) -> None:
    content = format_log("203.0.113.1 198.51.100.5 - -", "203.0.113.2 198.51.100.6 - -")
    with pytest.raises(InputError, match=r"--key forwarded \(the first\) or --key ip \(the second\)"):
        read(content)
    assert get_clients(read(content, key="forwarded")) == ["203.0.113.1", "203.0.113.2"]
    assert get_clients(read(content, key="ip")) == ["198.51.100.5", "198.51.100.6"]


@pytest.mark.parametrize(
    "tail",
    [
        ' "-" "curl" "{}"',
        ' "-" "curl" "-" "{}"',
        ' "-" "curl" 0.003 "{}"',
        ' "-" "curl" "unix:/x" 0.003 "{}" "extra"',
        ' "{}"',
    ],
)
def test_forwarded_addresses_at_the_end_are_read_on_request(read: Read, tail: str) -> None:
    content = format_log("10.0.0.5 - -", tail=tail.format("198.51.100.9, 203.0.113.1"))
    default = read(content)
    assert get_clients(default) == ["10.0.0.5"]
    assert has_note(default, "--key forwarded reads it")
    assert get_clients(read(content, key="forwarded")) == ["203.0.113.1"]


@pytest.mark.parametrize(
    ("rule", "client"),
    [
        (ClientRule(trusted_hops=1), "10.9.9.9"),
        (ClientRule(trusted_hops=2), "203.0.113.1"),
        (ClientRule(trusted_hops=4), "10.0.0.5"),
        (ClientRule(trusted_proxies=("10.0.0.0/8",)), "203.0.113.1"),
        (ClientRule(trusted_proxies=("10.0.0.0/8", "203.0.113.0/24")), "198.51.100.9"),
        (ClientRule(trusted_proxies=("192.0.2.1",)), "10.0.0.5"),
    ],
)
def test_trusted_proxies_are_walked_as_in_the_service(read: Read, rule: ClientRule, client: str) -> None:
    content = format_log("10.0.0.5 - -", tail=' "-" "curl" "198.51.100.9, 203.0.113.1, 10.9.9.9"')
    assert get_clients(read(content, clients=rule)) == [client]


def test_forwarded_addresses_are_read_from_fields_of_json_and_csv(read: Read) -> None:
    objects = b'{"time": 1793613600, "ip": "10.0.0.5", "http_x_forwarded_for": "203.0.113.1, 10.0.0.4"}\n'
    rows = b'time,ip,x_forwarded_for\n1793613600,10.0.0.5,"203.0.113.1, 10.0.0.4"\n1793613601,10.0.0.6,-\n'
    assert get_clients(read(objects, key="forwarded")) == ["203.0.113.1"]
    assert get_clients(read(rows, key="forwarded")) == ["203.0.113.1", "10.0.0.6"]
    with pytest.raises(InputError, match="no field forwarded"):
        read(b"time,ip\n1793613600,10.0.0.5\n", key="forwarded")


def test_ipv6_clients_are_networks_as_in_the_service(read: Read) -> None:
    content = format_log("2001:db8:1:1::a - -", "2001:db8:1:1::b - -", "2001:db8:1:2::c - -", "::ffff:203.0.113.1 - -")
    names = ("2001:db8:1:1::/64", "2001:db8:1:2::/64", "203.0.113.1")
    assert read(content).traffic.names == names
    assert read(content, clients=ClientRule(ipv6_prefix=56)).traffic.names == ("2001:db8:1::/56", "203.0.113.1")


@pytest.mark.parametrize("address", ["203.0.113.1:40000", "203.0.113.1", "[::ffff:203.0.113.1]:443"])
def test_a_port_is_no_part_of_a_client(read: Read, address: str) -> None:
    assert get_clients(read(b'{"time":1793613600,"client_ip":"%s"}' % address.encode())) == ["203.0.113.1"]


@pytest.mark.parametrize(
    "content",
    [
        b'{"time":1793613600,"user":"ada"}\n{"time":1793613601,"user":"-"}\n{"time":1793613602,"user":""}\n{"time":1}\n',
        b"time,user\n1793613600,ada\n1793613601,-\n1793613602,\n1793613603, \n",
        format_log("192.0.2.1 - ada", "192.0.2.1 - -", "192.0.2.1 - -", "192.0.2.1 - -"),
    ],
    ids=["json", "csv", "log"],
)
def test_lines_without_a_client_are_left_out_and_counted(read: Read, content: bytes, tmp_path: Path) -> None:
    trace = read(content, key="user")
    assert (get_clients(trace), trace.anonymous, trace.unparsed, trace.lines) == (["ada"], 3, 0, 4)
    assert "3 lines left out: no client" in get_output("replay", tmp_path / "trace", "--rate", "1/s", "--key", "user")


def test_a_field_that_nearly_matches_is_suggested_with_its_path(read: Read) -> None:
    content = b'{"timestamp":1793613600,"httpRequest":{"remoteIp":"203.0.113.1","tags":["a","b"]}}\n'
    with pytest.raises(InputError, match=r"did you mean --key httpRequest.remoteIp\?"):
        read(content)
    assert get_clients(read(content, key="httpRequest.remoteIp")) == ["203.0.113.1"]
    assert get_clients(read(content, key="httpRequest.tags")) == ["a"]


ADDRESSES = [
    *(
        "203.0.113.1",
        "203.0.113.2",
        "10.0.0.5",
        "10.1.2.3",
        "::ffff:203.0.113.1",
        "203.0.113.1:80",
        "64:ff9b::cb00:7101",
    ),
    *("2001:db8:1:1::a", "2001:db8:1:1::b", "2001:db8:1:2::a", "[2001:db8:1:1::c]:443", "fe80::1%eth0", "::1"),
]
RULES = [
    *(ClientRule(), ClientRule(ipv6_prefix=48), ClientRule(trusted_hops=1), ClientRule(trusted_hops=2)),
    *(ClientRule(trusted_proxies=("10.0.0.0/8",)), ClientRule(trusted_proxies=("10.0.0.5", "2001:db8::/32"))),
]


@given(
    st.sampled_from(RULES),
    st.lists(
        st.tuples(st.sampled_from(ADDRESSES), st.lists(st.sampled_from([*ADDRESSES, "unknown", ""]), max_size=3)),
        min_size=2,
        max_size=4,
    ),
)
def test_two_requests_are_of_one_client_in_the_lab_if_they_are_in_the_service(
    rule: ClientRule, requests: list[tuple[str, list[str]]]
) -> None:
    identity = Identity("ip", rule.trusted_proxies, rule.trusted_hops, "secret", rule.ipv6_prefix)
    names = rule.create_names(rule.reads_forwarded)
    keys, clients = [], []
    for peer, hops in requests:
        scope = {"type": "http", "client": (peer, 1), "headers": [(b"x-forwarded-for", ", ".join(hops).encode())]}
        keys.append(identity(scope))
        clients.append(names[(peer, ", ".join(hops))[: 1 + rule.reads_forwarded]])
    assert [keys.index(key) for key in keys] == [clients.index(client) for client in clients]


@pytest.mark.parametrize("place", ["begin", "end"])
@pytest.mark.parametrize("late", [0, 150, 399])
def test_a_forwarded_address_in_any_line_is_noted_with_the_option_that_reads_it(
    place: str, late: int, read: Read
) -> None:
    head, end = ("203.0.113.1 10.0.0.5 - -", "") if place == "begin" else ("10.0.0.5 - -", ' "203.0.113.1"')
    lines = format_log(*["198.51.100.7 - -"] * 60, tail=' "-" "curl 10.0.0.1"').splitlines(keepends=True) * 8
    lines[late] = format_log(head, tail=f' "-" "curl"{end}')
    default, forwarded, by_peer = (read(b"".join(lines), key=key) for key in (None, "forwarded", "ip"))
    assert has_note(default, "two addresses" if place == "begin" else "address of a forwarded client")
    assert "203.0.113.1" in forwarded.traffic.names
    assert "203.0.113.1" not in by_peer.traffic.names
    assert not has_note(by_peer, "forwarded")


# --- the time


@pytest.mark.parametrize(
    ("times", "seconds"),
    [
        (("2026-11-02 10:00", "2026-11-02 10:00", "2026-11-02 10:01", "2026-11-02 10:01"), [0, 30, 60, 90]),
        (("1793613600", "1793613600", "1793613660"), [0, 30, 60]),
        (("2026-11-02T10:00:00Z",) * 2, [0, 0.5]),
        (("1793613600",) * 4 + ("1793613601.5",), [0, 0.25, 0.5, 0.75, 1.5]),
        (("1793613600", "1793613600.25", "1793613600.75"), [0, 0.25, 0.75]),
        (("1793613600000", "1793613600250"), [0, 0.25]),
        (("1793613600000000", "1793613600250000"), [0, 0.25]),
        (("1793613600000000000", "1793613600250000000"), [0, 0.25]),
        (("2026-11-02 10:00:00.123456 UTC", "02/Nov/2026:10:00:00.25"), [0.123456, 0.25]),
        (("2026/11/02 10:00:00.5 GMT", "2026-11-02T10:00:01,5+00:00"), [0.5, 1.5]),
        (("2026-11-02 10:00:00.25 +0000 UTC", "2026-11-02 12:00:00.5 +0200 CEST"), [0.25, 0.5]),
        (("Mon, 02 Nov 2026 10:00:00 GMT", "Mon Nov  2 10:00:01 2026", "02-Nov-2026 10:00:02 +0000"), [0, 1, 2]),
    ],
)
def test_times_are_read_and_spread_by_their_resolution(
    read: Read, times: tuple[str, ...], seconds: list[float]
) -> None:
    trace = read("".join(["time;ip\n", *(f"{time};203.0.113.1\n" for time in times)]).encode())
    assert get_seconds(trace) == seconds


def test_each_file_has_its_own_resolution(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("time,ip\n1793613600,a\n1793613600,a\n")
    (tmp_path / "b.csv").write_text("time,ip\n1793613600.25,b\n1793613600.75,b\n")
    trace = read_traces([str(tmp_path / "a.csv"), str(tmp_path / "b.csv")])
    assert (get_clients(trace), get_seconds(trace)) == (["a", "b", "a", "b"], [0, 0.25, 0.5, 0.75])


def test_a_duration_is_not_read_as_the_time(read: Read) -> None:
    content = b'{"timestamp":"2026-11-02T10:00:0%dZ","ip":"a","time":0.4}\n'
    trace = read(content % 0 + content % 5)
    assert get_seconds(trace) == [0, 5]
    assert has_note(trace, "times are those of timestamp, since time holds no times (--time)")


@pytest.mark.parametrize(
    ("content", "options", "note"),
    [
        (b"time,ip\n0.4,a\n0.5,a\n", {}, "times begin in 1970, so they may be durations: name the field of the time"),
        (b"time,ip\n46328.416667,a\n", {}, "--time-unit excel reads them as such"),
        (b"time,ip\n2026-11-02 10:00:00,a\n", {}, "times name no zone and are read as UTC (--time-zone)"),
        (b"time,ip\n1793613600000,a\n", {}, "times are milliseconds since 1970 (--time-unit)"),
        (b"time,ip\n1793613600,a\n1793613600,a\n1793613600.5,a\n", {"within_second": "start"}, "stay at its start"),
    ],
)
def test_a_doubtful_time_is_reported(read: Read, content: bytes, options: dict[str, Any], note: str) -> None:
    assert has_note(read(content, **options), note)


def test_times_of_spreadsheets_and_other_zones_are_read_on_request(read: Read) -> None:
    assert get_seconds(read(b"time,ip\n46328.4166666667,a\n", unit="excel")) == [0]
    assert get_seconds(read(b"time,ip\n2026-11-02 11:00:00,a\n", time_zone="Europe/Berlin")) == [0]
    assert get_seconds(read(b"time,ip\n02.11.2026 10:00,a\n", time_format="%d.%m.%Y %H:%M")) == [0]
    assert get_seconds(read(b"time,ip\n02.11.2026 12:00:00.5+0200,a\n", time_format="%d.%m.%Y %H:%M:%S.%f%z")) == [0.5]


def test_invalid_times_and_zones_are_one_line_errors(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("time,ip\nnoon,a\n")
    for options, message in (
        (["--time-zone", "Mars/Olympus"], "unknown time zone 'Mars/Olympus': give one such as UTC"),
        (["--time-format", "%H:%M"], "a time format must have a year, %Y, got '%H:%M': add the date"),
        (["--time-format", "%Y"], "time must look like %Y, got 'noon': check --time-format"),
    ):
        assert message in get_error("replay", tmp_path / "t.csv", "--rate", "1/s", *options)


# --- files


def test_unreadable_files_among_several_are_skipped_and_reported(tmp_path: Path) -> None:
    (tmp_path / "good.log").write_bytes(format_log("203.0.113.1 - -"))
    (tmp_path / "empty.log").touch()
    (tmp_path / "other.log").write_text("Dear diary\n")
    (tmp_path / "cut.gz").write_bytes(b"\x1f\x8b\x08")
    paths = [str(tmp_path / name) for name in ("empty.log", "good.log", "other.log", "cut.gz")]
    report = get_json("replay", *paths, "--rate", "1/s")
    assert report["offered"] == 1
    assert [note.split(":")[0] for note in report["notes"]] == [f"skipped {paths[n]}" for n in (0, 2, 3)]
    assert get_error("replay", *paths, "--rate", "1/s", "--strict").startswith(f"{paths[0]}: it has no lines")
    assert "No such file" in get_error("replay", paths[1], tmp_path / "none", "--rate", "1/s")
    assert get_error("replay", paths[0], paths[2], "--rate", "1/s").startswith(f"{paths[0]}: it has no lines")


def test_one_file_with_two_names_is_read_once(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_bytes(format_log("203.0.113.1 - -"))
    (tmp_path / "b.log").symlink_to(tmp_path / "a.log")
    os.link(tmp_path / "a.log", tmp_path / "c.log")
    report = get_json("replay", *(tmp_path / name for name in ("a.log", "b.log", "c.log")), "--rate", "1/s")
    assert (report["offered"], len(report["notes"])) == (1, 2)
    assert "are the same file, which is read once" in report["notes"][0]
