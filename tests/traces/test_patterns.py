"""Patterns, filters, and errors whose next step works as printed."""

from __future__ import annotations

import gzip
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest
from cli_runner import get_error, get_json, get_output
from hypothesis import given, settings
from hypothesis import strategies as st
from real_log_lines import REAL_LINES
from test_columnar import assert_same_results
from trace_reading import Read

from ratelab import InputError
from ratelab.lab.traces import TraceOptions, parse_filters, read_traces
from ratelab.quota import NS_PER_S

START_S = 1_793_613_600
"""2 November 2026, 10:00:00 UTC."""

# --- patterns

LINES = b"".join(
    b"2026-11-02T10:00:0%d.5Z GET /p%d 203.0.113.%d took=%d\n" % (n, n % 2, n % 3, n + 1) for n in range(6)
)
PATTERN = r"^(?P<time>\S+) (?P<method>[A-Z]+) (?P<path>\S+) (?P<client>[0-9.]+) took=(?P<took>\d+)$"


def test_a_pattern_reads_client_time_cost_and_other_fields(read: Read) -> None:
    trace = read(LINES, pattern=PATTERN, cost="took", filters=parse_filters(["path=/p1"], []))
    assert (trace.format, trace.traffic.names) == ("pattern", ("203.0.113.1", "203.0.113.0", "203.0.113.2"))
    assert (trace.traffic.costs.tolist(), trace.filtered) == ([2, 4, 6], (("--only path=/p1", 3),))
    assert trace.traffic.origin == (START_S + 1) * NS_PER_S + NS_PER_S // 2
    assert read(LINES, pattern=PATTERN, key="path").traffic.names == ("/p0", "/p1")


def test_lines_that_do_not_match_a_pattern_are_rejected(read: Read) -> None:
    trace = read(LINES + b"rubbish\n\n" + LINES.replace(b"\n", b"\r\n"), pattern=PATTERN.removesuffix("$"))
    assert (len(trace.traffic), trace.unparsed) == (12, 1)
    assert trace.rejects[0].reason == "it does not match --pattern"


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(?P<client>.)", "a pattern must have the groups client and time, got client"),
        ("no groups", "got none: write them as (?P<client>...)"),
        ("(?P<client>.)(?P<time>.", "invalid pattern"),
        (r"(?P<client>.)(?P<time>.)\1", "invalid pattern"),
        ("(?P<client>.)(?P<time>.)(?=x)", "invalid pattern"),
        ("(?P<client>.)(?P<client>.)(?P<time>.)", "two groups 'client'"),
        ("(?P<client>.)(.)(?P<time>.)", "invalid pattern"),
    ],
)
def test_an_invalid_pattern_is_a_one_line_error(tmp_path: Path, pattern: str, message: str) -> None:
    (tmp_path / "a.log").write_bytes(LINES)
    assert message in get_error("replay", tmp_path / "a.log", "--rate", "1/s", "--pattern", pattern)


def test_a_pattern_needs_arrow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.lab.traces.files.find_spec", lambda name: None)
    (tmp_path / "a.log").write_bytes(LINES)
    message = get_error("replay", tmp_path / "a.log", "--rate", "1/s", "--pattern", PATTERN)
    assert message.startswith("--pattern needs pyarrow, whose RE2 cannot hang: run pip install '.[logs]'")


def test_a_pattern_that_would_hang_elsewhere_takes_linear_time(read: Read) -> None:
    content = LINES + b"a" * 60_000 + b"\n"
    assert read(content, pattern=r"(?:(?:a+)+)+b|(?P<time>\S+) \S+ \S+ (?P<client>\S+)").unparsed == 1


@settings(max_examples=30)
@given(st.lists(st.sampled_from([*LINES.splitlines(), b"x", b"\xff", b" " + LINES[:30]]), min_size=1, max_size=9))
def test_both_readers_match_patterns_alike(lines: list[bytes]) -> None:
    assert_same_results(b"\n".join(lines), TraceOptions(pattern=PATTERN, lenient=True), 100)


# --- filters


@pytest.mark.parametrize(
    ("only", "exclude", "kept", "left_out"),
    [
        (["path=/a"], [], [0, 2], [2]),
        (["path=/a", "path=/b"], [], [0, 1, 2], [1]),
        ([], ["path=/a*"], [1, 3], [2]),
        ([], ["agent=*bot*"], [0, 1], [2]),
        (["ip=10.0.0.0/8"], ["status=404"], [0], [2, 1]),
        (["method=GET"], ["path=@paths"], [1], [0, 3]),
    ],
)
def test_filters_keep_or_leave_out_requests_and_count_them(
    read: Read,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    only: list[str],
    exclude: list[str],
    kept: list[int],
    left_out: list[int],
) -> None:
    (tmp_path / "paths").write_text("# checks\n/a\n\n/health\n")
    monkeypatch.chdir(tmp_path)
    requests = [("10.0.0.1", "/a", 200, "x"), ("192.0.2.1", "/b?q=1", 200, "y"), ("10.0.0.2", "/a", 404, "googlebot")]
    requests.append(("192.0.2.2", "/health", 200, "a bot"))
    lines = [
        f'{ip} - - [02/Nov/2026:10:00:0{n} +0000] "GET {path} HTTP/1.1" {status} 5 "-" "{agent}"\n'
        for n, (ip, path, status, agent) in enumerate(requests)
    ]
    trace = read("".join(lines).encode(), filters=parse_filters(only, exclude))
    seconds = (trace.traffic.clock_times // NS_PER_S - START_S).tolist()
    assert (seconds, [count for _, count in trace.filtered]) == (kept, left_out)


def test_the_report_counts_what_each_filter_left_out(tmp_path: Path) -> None:
    path = tmp_path / "a.log"
    path.write_text(REAL_LINES["combined"].line + "\n" + REAL_LINES["combined"].line.replace("/a?", "/health?") + "\n")
    options = ["--rate", "1/s", "--exclude", "path=/health"]
    assert "1 request left out by --exclude path=/health" in get_output("replay", path, *options)
    assert get_json("replay", path, *options)["filtered"] == {"--exclude path=/health": 1}
    assert "no request is left after --only path=/x: change the filters" in get_error(
        "replay", path, "--rate", "1/s", "--only", "path=/x"
    )


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("path", "--only must look like FIELD=VALUE, such as path=/health, got 'path'"),
        ("=x", "--only must look like FIELD=VALUE"),
        ("pth=/x", "did you mean --only path?"),
        ("path=@none", "none cannot be read (No such file or directory): name a file with a value in each line"),
    ],
)
def test_an_invalid_filter_is_a_one_line_error(tmp_path: Path, option: str, message: str) -> None:
    (tmp_path / "a.log").write_text(REAL_LINES["combined"].line + "\n")
    assert message in get_error("replay", tmp_path / "a.log", "--rate", "1/s", "--only", option)


# --- next steps

UNKNOWN = {
    "time first": "2026-11-02 10:00:00,123 worker-3 served 203.0.113.1 in 4 ms",
    "client first": "203.0.113.1|02/Nov/2026:10:00:00 +0000|GET|/a",
    "epoch": "id=7 at 1793613600.250 from 203.0.113.1 (cached)",
    "IPv6": "<7> 2026-11-02T10:00:00Z peer=2001:db8::1 ok",
    "brackets": "req [2026/11/02 10:00:00] {203.0.113.1} done",
}


@pytest.mark.parametrize("line", UNKNOWN.values(), ids=UNKNOWN.keys())
def test_a_proposed_pattern_works_as_printed(tmp_path: Path, line: str) -> None:
    path = tmp_path / "app.log"
    path.write_text(f"{line}\n{line}\n")
    message = get_error("replay", path, "--rate", "1/s")
    proposal = re.search("--pattern '.*'", message)
    assert proposal is not None
    option, pattern = shlex.split(proposal[0])
    report = get_json("replay", path, "--rate", "1/s", option, pattern)
    assert (report["offered"], report["start"] // NS_PER_S) == (2, START_S)
    assert report["results"][0]["per_client"][0]["client"] in ("203.0.113.1", "2001:db8::/64")


CONVERTED = {
    "an array in one line": '[{"time":1793613600,"ip":"203.0.113.1"},{"time":1793613601,"ip":"203.0.113.1"}]\n',
    "an indented array": '[\n  {\n    "time": 1793613600,\n    "ip": "203.0.113.1"\n  }\n]\n',
    "indented objects": '{\n  "time": 1793613600,\n  "ip": "203.0.113.1"\n}\n',
    "objects in one line": '{"time":1793613600,"ip":"a"} {"time":1793613601,"ip":"a"}\n',
    "objects in one line, with commas": '{"time":1793613600,"ip":"a"}, {"time":1793613601,"ip":"a"},\n',
    "objects in a list": '{"records":[{"time":1793613600,"ip":"203.0.113.1"}]}\n',
    "a CSV file without a header": "2026-11-02T10:00:00Z,203.0.113.1,/p\n",
}


@pytest.mark.skipif(shutil.which("jq") is None, reason="needs jq")
@pytest.mark.parametrize("layout", CONVERTED)
def test_a_command_that_converts_a_file_works_as_printed(tmp_path: Path, layout: str) -> None:
    is_compressed = layout in ("an array in one line", "an indented array", "a CSV file without a header")
    path = tmp_path / ("trace.json.gz" if is_compressed else "my trace.json")
    content = CONVERTED[layout].encode()
    path.write_bytes(gzip.compress(content) if is_compressed else content)
    message = get_error("replay", path, "--rate", "1/s")
    command = message.partition(" with ")[2].strip().removesuffix("| ratelab replay -")
    converted = subprocess.run(["/bin/sh", "-c", command], capture_output=True, check=True).stdout
    assert get_json("replay", "-", "--rate", "1/s", stdin=converted)["start"] == START_S * NS_PER_S


def test_a_first_row_that_is_a_request_is_never_a_header(tmp_path: Path) -> None:
    for client in ("203.0.113.1", "ada"):
        (tmp_path / "h.csv").write_text(f"2026-11-02T10:00:00Z,{client},/p\n2026-11-02T10:00:01Z,{client},/p\n")
        options = ["--format", "csv", "--time", "2026-11-02T10:00:00Z", "--key", client]
        message = get_error("replay", tmp_path / "h.csv", "--rate", "1/s", *options)
        assert "its first row is a request, not a header: add one with (echo 'time,ip,field3'" in message


def test_an_array_with_an_object_in_each_line_is_read(read: Read) -> None:
    one = b'{"time":1793613600,"ip":"a"}'
    for content in (b"[%s,\n %s]\n", b"%s,\n%s,\n", b"[\n%s,\n%s\n]\n", b"[%s,\n%s\n]"):
        assert len(read(content % (one, one)).traffic) == 2


def test_lines_without_a_time_are_explained(tmp_path: Path) -> None:
    (tmp_path / "u.log").write_text('INFO:     203.0.113.1:52188 - "GET / HTTP/1.1" 200 OK\n')
    message = get_error("replay", tmp_path / "u.log", "--rate", "1/s")
    assert "docker logs --timestamps" in message


# --- linear time


@pytest.mark.slow
@pytest.mark.parametrize("text", ['"', '\\"', " ", "- ", "1.1.1.1, ", "::", "a=", '" "', "INFO ", "[", "0", "1:"])
def test_no_line_takes_long(tmp_path: Path, text: str) -> None:
    path = tmp_path / "trace"
    lines = [real.line.replace("GET", (text * 65_000)[:60_000]) for real in REAL_LINES.values()]
    lines += [(text * 65_000)[:65_000], "203.0.113.1 - " + (text * 65_000)[:65_000]]
    for line in lines:
        path.write_text(line + "\n")
        try:
            read_traces([str(path)], TraceOptions(lenient=True), columnar=False)
        except InputError:
            continue
