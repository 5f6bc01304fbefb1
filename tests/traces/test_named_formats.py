"""Formats by name: lines of real programs, wrapped lines, and samples are read right by both readers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import get_error, get_json, get_output, invoke
from real_log_lines import CLIENT, REAL_LINES, START_S, WRAPPED, WRAPPED_IN_JSON, RealLine
from slow_parameters import COMMON_FORMATS, mark_slow
from trace_reading import Read

from ratelab.lab.traces import parse_filters
from ratelab.lab.traces.formats import FORMATS
from ratelab.quota import NS_PER_S

LOG_LINE = REAL_LINES["combined"].line
NO_OWN_LINE = {"gunicorn", "log"}
"""Formats whose lines are detected as `combined`, or have other fields."""


@pytest.mark.parametrize(("name", "real"), REAL_LINES.items(), ids=REAL_LINES.keys())
def test_a_real_line_is_detected_and_read(read: Read, name: str, real: RealLine) -> None:
    for options in ({}, {"format": name}):
        trace = read(real.line.encode() + b"\n", **options)
        assert (trace.format, trace.traffic.names, trace.unparsed, len(trace.traffic)) == (name, (CLIENT,), 0, 1)
        assert trace.traffic.origin // 10**6 == START_S * 1000 + real.milliseconds


@pytest.mark.parametrize(("name", "real"), REAL_LINES.items(), ids=REAL_LINES.keys())
def test_requests_are_filtered_by_path_and_status(read: Read, name: str, real: RealLine) -> None:
    trace = read(real.line.encode() + b"\n", format=name, filters=parse_filters(["path=/a", "status=20*"], []))
    assert trace.filtered == (("--only path=/a", 0), ("--only status=20*", 0))
    assert len(trace.traffic) == 1


SIZES = {
    **dict.fromkeys(["combined", "common", "vhost_combined", "nginx-main", "ingress-nginx", "kong", "traefik"], 612),
    "istio": 135,
    "envoy": 154,
    "haproxy": 2750,
    "aws-alb": 366,
    "aws-elb": 29,
    "aws-s3": 113,
    "squid": 507,
    "heroku": 1548,
}
"""The size of the response in each real line that has one."""


@pytest.mark.parametrize(("name", "size"), SIZES.items(), ids=SIZES.keys())
def test_the_size_of_a_response_is_its_cost(read: Read, name: str, size: int) -> None:
    trace = read(REAL_LINES[name].line.encode() + b"\n", format=name, cost="bytes")
    assert (trace.traffic.costs.tolist(), trace.unparsed) == ([size], 0)
    assert any("the cost is the size of the response" in note for note in trace.notes)


@pytest.mark.parametrize("size", ["-", "0"])
def test_a_response_without_a_body_costs_1_but_keeps_its_size(read: Read, size: str) -> None:
    line = REAL_LINES["combined"].line.replace(" 612 ", f" {size} ")
    trace = read(line.encode() + b"\n", cost="bytes", filters=parse_filters([f"bytes={size}"], []))
    assert trace.traffic.costs.tolist() == [1]


def test_a_log_without_sizes_has_no_field_of_them(tmp_path: Path) -> None:
    (tmp_path / "a.log").write_text(REAL_LINES["uvicorn"].line + "\n")
    error = get_error("replay", tmp_path / "a.log", "--rate", "1/s", "--cost", "bytes")
    assert "its lines have no field bytes: leave out --cost" in error


def test_every_format_has_a_real_line() -> None:
    assert {*REAL_LINES, *NO_OWN_LINE} == {*FORMATS}


@pytest.mark.parametrize("template", WRAPPED.values(), ids=WRAPPED.keys())
def test_text_in_front_of_a_line_is_removed_and_reported(read: Read, template: str) -> None:
    content = "".join(template.replace("12:", f"{number}:").format(LOG_LINE) + "\n" for number in range(12, 15))
    trace = read(content.encode())
    assert (trace.format, trace.traffic.names, trace.unparsed, len(trace.traffic)) == ("combined", (CLIENT,), 0, 3)
    assert "each log line is after text that " in trace.notes[0]


@pytest.mark.parametrize("field", WRAPPED_IN_JSON.values(), ids=WRAPPED_IN_JSON.keys())
def test_a_line_in_a_json_object_is_read(read: Read, field: str) -> None:
    content = json.dumps({field: f"{LOG_LINE}\n", "time": "2026-11-02T11:00:00Z", "stream": "stdout"})
    trace = read(content.encode() + b"\n")
    assert (trace.format, trace.traffic.names, trace.traffic.origin) == ("combined", (CLIENT,), START_S * NS_PER_S)


def test_wrappings_may_be_nested_and_hold_json(read: Read) -> None:
    inner = REAL_LINES["pino"].line
    content = f"web-1  | {json.dumps({'log': inner})}\n"
    assert read(content.encode()).format == "pino"


@pytest.mark.parametrize("field", WRAPPED_IN_JSON.values(), ids=WRAPPED_IN_JSON.keys())
def test_an_object_in_a_field_of_an_object_is_read_if_the_outer_one_has_no_client(read: Read, field: str) -> None:
    inner = json.dumps({"time": START_S, "ip": CLIENT})
    outer = {field: f"{inner}\n", "stream": "stdout", "time": "2026-11-02T11:00:00Z"}
    for more, expected in (({}, CLIENT), ({"ip": "192.0.2.9"}, "192.0.2.9")):
        trace = read(json.dumps({**outer, **more}).encode() + b"\n")
        assert (trace.format, trace.traffic.names) == ("jsonl", (expected,))


def test_grep_in_front_of_a_csv_file_is_removed_with_its_header(read: Read) -> None:
    trace = read(b"a.csv:time,ip\na.csv:1793613600,192.0.2.1\nb.csv:1793613601,192.0.2.1\n")
    assert (trace.format, trace.traffic.names, len(trace.traffic)) == ("csv", ("192.0.2.1",), 2)


def test_a_frame_of_syslog_in_front_of_the_heroku_router_is_removed(read: Read) -> None:
    line = REAL_LINES["heroku"].line.replace(" heroku[router]: ", " host heroku router - ")
    assert read(f"259 <158>1 {line}\n".encode()).format == "heroku"


def test_numbers_of_grep_are_no_part_of_an_address(read: Read) -> None:
    line = LOG_LINE.replace(CLIENT, "2001:db8::1")
    assert read(f"access.log:{line}\naccess.log:{line}\n".encode()).traffic.names == ("2001:db8::/64",)
    assert read(f"access.log:1:{line}\naccess.log:2:{line}\n".encode()).traffic.names == ("2001:db8::/64",)


@pytest.mark.parametrize("name", mark_slow(FORMATS, COMMON_FORMATS))
def test_a_sample_of_each_format_is_read_by_both_readers(tmp_path: Path, read: Read, name: str) -> None:
    path = tmp_path / "sample"
    get_output("sample", path, "--lines", "100", "--clients", "5", "--rate", "10/s", "--format", name)
    trace = read(path.read_bytes())
    assert (trace.format, trace.unparsed, trace.anonymous) == ("combined" if name in NO_OWN_LINE else name, 0, 0)
    assert (len(trace.traffic), len(trace.traffic.names)) == (100, 5)
    get_output("sample", path, "--lines", "1", "--format", name), "an earlier sample is replaced"


def test_formats_are_listed_with_the_programs_that_write_them() -> None:
    listed = invoke("formats").stdout.splitlines()
    assert [line.split()[0] for line in listed] == [*FORMATS, "parquet"]
    assert "Apache" in listed[0]


def test_a_sample_cannot_be_of_no_format(tmp_path: Path) -> None:
    assert "name a text format" in get_error("sample", tmp_path / "s", "--format", "parquet")


def test_columns_that_change_within_a_file_are_an_error(read: Read, tmp_path: Path) -> None:
    header, row = "#Fields: date time c-ip cs-uri-stem\n", "2026-11-02 10:00:00 203.0.113.1 /a\n"
    (tmp_path / "iis.log").write_text(header + row + header + row)
    assert get_json("replay", tmp_path / "iis.log", "--rate", "1/s")["offered"] == 2
    (tmp_path / "iis.log").write_text(header + row + "#Fields: date time s-ip c-ip\n" + row)
    assert "its columns change at '#Fields: date time s-ip c-ip'" in get_error(
        "replay", tmp_path / "iis.log", "--rate", "1/s"
    )
