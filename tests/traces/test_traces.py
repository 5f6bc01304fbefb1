"""Traces: requests sorted by time, irregular lines counted, and one-line errors for invalid files."""

from __future__ import annotations

import gzip
import io
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from invalid_traces import INVALID_LINES, INVALID_TRACES, VALID_LINE, InvalidLine, InvalidTrace
from trace_reading import Read

from ratelab import InputError
from ratelab.lab.traces import Trace, TraceOptions, read_trace
from ratelab.quota import NS_PER_S


def format_log(*times: str, clients: str = "") -> bytes:
    """Return a log with a line for each time of one day, from client `a` or the one at this place in `clients`."""
    return b"".join(
        f'{client} - - [17/May/2015:{time} +0000] "GET / HTTP/1.1" 200 12\n'.encode()
        for time, client in zip(times, clients or "a" * len(times), strict=True)
    )


def get_names(trace: Trace) -> list[str]:
    """Return the name of each request's client."""
    return [trace.traffic.names[client] for client in trace.traffic.clients]


# --- order, seconds, duration


def test_clients_are_numbered_in_the_order_of_the_file(read: Read) -> None:
    trace = read(format_log("10:00:03", "10:00:01", "10:00:02", "10:00:02", clients="cabc"))
    assert trace.traffic.names == ("c", "a", "b")
    assert get_names(trace) == ["a", "b", "c", "c"]
    assert trace.traffic.keys.tolist() == [0, 1, 2]
    assert trace.traffic.costs.tolist() == [1, 1, 1, 1]


def test_times_are_sorted_stably_and_late_ones_are_counted(read: Read) -> None:
    rows = zip([5, 1, 3, 5, 1, 6, 6], b"abcdefg", range(1, 8), strict=True)
    trace = read(b"time,ip,cost\n" + b"".join(b"%d.5,%c,%d\n" % row for row in rows), cost="cost")
    assert "".join(get_names(trace)) == "becadfg"
    assert trace.traffic.costs.tolist() == [2, 5, 3, 1, 4, 6, 7]
    assert trace.reordered == 3
    assert read(b"time,ip\n1.5,a\n1.5,b\n2,c\n").reordered == 0


@given(st.binary(min_size=50, max_size=200))  # drawn at once, unlike the elements of a list
def test_equal_times_keep_the_order_of_the_file(drawn: bytes) -> None:
    times = [byte % 4 for byte in drawn]
    content = "time,ip\n" + "".join(f"{time}.5,{number}\n" for number, time in enumerate(times))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content.encode())))
        trace = read_trace("-")
    assert get_names(trace) == [str(number) for _, number in sorted((time, n) for n, time in enumerate(times))]
    assert trace.reordered == sum(time < max(times[: n + 1]) for n, time in enumerate(times))


def test_whole_seconds_are_spread_in_the_order_of_the_file(read: Read) -> None:
    trace = read(format_log("10:00:07", "10:00:05", "10:00:05", "10:00:05", "10:00:07", "10:00:06", clients="abcdef"))
    assert trace.whole_seconds
    assert "".join(get_names(trace)) == "bcdfae"
    assert trace.traffic.times.tolist() == [
        0,
        NS_PER_S // 3,
        NS_PER_S * 2 // 3,
        NS_PER_S,
        2 * NS_PER_S,
        2 * NS_PER_S + NS_PER_S // 2,
    ]
    assert trace.traffic.duration == 3 * NS_PER_S


def test_whole_seconds_may_stay_at_their_start(read: Read) -> None:
    traffic = read(format_log("10:00:05", "10:00:05", "10:00:07"), within_second="start").traffic
    assert (traffic.times.tolist(), traffic.duration) == ([0, 0, 2 * NS_PER_S], 3 * NS_PER_S)


@pytest.mark.parametrize("first", [b"1", b"1.000", b"1970-01-01T00:00:01Z"])
def test_whole_seconds_among_finer_times_are_spread_if_most_are_whole(read: Read, first: bytes) -> None:
    trace = read(b"time,ip\n%s,a\n%s,b\n2.000000001,c\n" % (first, first))
    assert not trace.whole_seconds
    assert (trace.traffic.times.tolist(), trace.traffic.duration) == ([0, NS_PER_S // 2, NS_PER_S + 1], 2 * NS_PER_S)
    assert "2 of 3 times are whole seconds: the requests of each are spread evenly" in trace.notes[-2]
    exact = read(b"time,ip\n%s,a\n%s,b\n2.000000001,c\n2.5,c\n" % (first, first))
    assert exact.traffic.times.tolist()[:2] == [0, 0]
    assert read(b"time,ip\n%s,a\n%s,b\n" % (first, first)).traffic.times.tolist() == [0, NS_PER_S // 2]


def test_traffic_lasts_at_least_a_nanosecond(read: Read) -> None:
    assert read(b"time,ip\n1.5,a\n1.5,a\n").traffic.duration == 1


# --- invalid lines and files


@pytest.mark.parametrize("invalid", INVALID_LINES.values(), ids=INVALID_LINES.keys())
def test_an_invalid_line_is_counted_kept_and_skipped(read: Read, invalid: InvalidLine) -> None:
    header = {"log": b"", "jsonl": b"", "csv": b"time,ip,cost\n"}[invalid.format]
    valid = {"log": VALID_LINE, "jsonl": b'{"time": 1, "ip": "a", "cost": 1}\n', "csv": b"1,a,1\n"}[invalid.format]
    cost = "cost" if invalid.format == "csv" or "cost" in invalid.reason else None
    trace = read(header + valid + invalid.line.strip(b"\n") + b"\n" + valid, format=invalid.format, cost=cost)
    assert (trace.lines, trace.unparsed, len(trace.traffic)) == (3, 1, 2)
    assert trace.rejects[0].line == 2 + bool(header)
    assert invalid.reason in trace.rejects[0].reason
    assert len(trace.rejects[0].text) <= 62


def test_the_first_three_rejects_are_kept_and_printable(read: Read) -> None:
    trace = read(VALID_LINE + b"\n" + b"\x1b[2J\xff\0\n" * 10 + b" \n" + VALID_LINE, lenient=True)
    assert (trace.lines, trace.unparsed, len(trace.traffic)) == (12, 10, 2)
    assert [reject.line for reject in trace.rejects] == [3, 4, 5]
    assert trace.rejects[0].text == r"'\x1b[2Jÿ\x00'"


def test_a_trace_of_which_most_lines_are_invalid_is_rejected_unless_lenient(read: Read) -> None:
    content = VALID_LINE + b"rubbish\n" * 2
    with pytest.raises(InputError, match=r"2 of its 3 lines cannot be parsed as common: .* add --lenient"):
        read(content)
    assert read(content, lenient=True).unparsed == 2
    assert read(VALID_LINE * 2 + b"rubbish\n" * 2).unparsed == 2


def test_a_client_name_is_printable(read: Read) -> None:
    trace = read(rb'{"time": 1, "ip": "\u001b[2J\n\ud800"}')
    assert trace.traffic.names == (r"\x1b[2J\n\ud800",)


@pytest.mark.parametrize("invalid", INVALID_TRACES.values(), ids=INVALID_TRACES.keys())
def test_an_invalid_trace_is_a_one_line_error_with_the_remedy(
    read: Read, tmp_path: Path, invalid: InvalidTrace
) -> None:
    with pytest.raises(InputError) as caught:
        read(invalid.content, **invalid.options)
    message = str(caught.value)
    assert invalid.message in message
    assert message.isprintable()
    assert len(message.removeprefix(str(tmp_path))) < 500
    assert message.startswith((f"{tmp_path / 'trace'}:", "'xml' is not one", "unit ", "within_second "))


# --- arbitrary content


PIECES = [
    VALID_LINE,
    b'{"time": 1, "ip": "a", "cost": 2}\n',
    b'{"time": "2015-05-17T10:05:03.5Z", "ip": "b"}\n',
    b"time,ip,cost\n",
    b"1,a,1\n2.5,b,2\n",
    *(b"\n", b",", b'"', b"{", b"}", b"[", b"]", b"\\", b" - - [", b"\0", b"\r", b"\xef\xbb\xbf", b"\xff"),
    *(b"1e999", b"-1", b"99999999999", b"4e9", b"NaN", b"2015-02-29T00:00:00Z", b"31/Dec/9999:23:59:60 +9999"),
]


@given(
    content=st.lists(st.sampled_from(PIECES) | st.binary(max_size=20), max_size=12).map(b"".join),
    compressed=st.booleans(),
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
def test_any_content_is_a_trace_or_an_input_error(content: bytes, compressed: bool, options: TraceOptions) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(gzip.compress(content) if compressed else content)))
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
