"""Traces in `ratelab replay`: their formats, and the report of how they were read."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from access_log_lines import CROWD, START, format_line, write_log
from cli_runner import BURST, get_error, get_json, get_output

from ratelab.algorithms import COMPARED
from ratelab.quota import NS_PER_S

# --- formats and standard input


def format_csv(crowd: list[str]) -> bytes:
    rows = (f"2015-05-17T10:{line.partition(':10:')[2][:5]}Z,{line.split()[0]}\n" for line in crowd)
    return f"time,ip\n{''.join(rows)}".encode()


def format_json_lines(crowd: list[str]) -> bytes:
    rows = [(int(line.partition(":05:")[2][:2]), line.split()[0]) for line in crowd]
    return b"".join(b'{"ts": %d, "ip": "%s"}\n' % (START // NS_PER_S + second, ip.encode()) for second, ip in rows)


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (gzip.compress("".join(CROWD).encode()), "common"),
        (format_csv(CROWD), "csv"),
        (format_json_lines(CROWD), "jsonl"),
        (gzip.compress(format_json_lines(CROWD)), "jsonl"),
    ],
    ids=["gzip", "csv", "jsonl", "jsonl.gz"],
)
def test_the_same_requests_have_the_same_figures_in_every_format(tmp_path: Path, content: bytes, format_: str) -> None:
    expected = get_json("replay", write_log(tmp_path, CROWD), "--rate", "10/min")
    (tmp_path / "trace").write_bytes(content)
    report = get_json("replay", tmp_path / "trace", "--rate", "10/min")
    assert report == {**expected, "trace": str(tmp_path / "trace"), "format": format_}


def test_a_dash_is_standard_input() -> None:
    stdin = "".join(CROWD).encode()
    assert get_json("replay", "-", "--rate", "10/min", stdin=stdin)["trace"] == "-"
    command = [sys.executable, "-m", "ratelab", "replay", "-", "--rate", "10/min", "--json"]
    process = subprocess.run(command, input=gzip.compress(stdin), capture_output=True, timeout=300)
    assert (process.returncode, process.stderr) == (0, b"")
    assert json.loads(process.stdout) == get_json("replay", "-", "--rate", "10/min", stdin=stdin)


# --- report of the reading


def test_unparsed_lines_are_counted_and_the_first_three_printed(tmp_path: Path) -> None:
    path = write_log(tmp_path, [*CROWD[:3], "rubbish one\n", "\n", *[f"rubbish {n}\n" for n in range(2, 9)], CROWD[3]])
    report = get_json("replay", path, "--rate", "10/min", "--lenient")
    assert (report["lines"], report["unparsed"], report["offered"]) == (12, 8, 4)
    text = get_output("replay", path, "--rate", "10/min", "--lenient")
    assert "8 lines left out, beginning with:" in text
    joined = " ".join(text.split())
    assert [n for n in (4, 6, 7, 8) if f"line {n}: a log line must begin" in joined] == [4, 6, 7]
    assert "'rubbish one'" in joined


def test_strict_rejects_a_trace_with_an_unparsed_line(tmp_path: Path) -> None:
    path = write_log(tmp_path, [*CROWD[:3], "rubbish\n"])
    assert get_error("replay", path, "--rate", "10/min", "--strict").startswith(
        f"{path}:4: a log line must begin HOST IDENT"
    )


def test_times_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    path = write_log(tmp_path, [format_line("a", "05:02"), format_line("a", "05:00"), format_line("a", "05:01")])
    report = get_json("replay", path, "--rate", "1/s", "--burst", "1")
    assert (report["reordered"], report["start"], report["results"][0]["denied"]) == (2, START, 0)
    assert "2 requests out of order, sorted by time" in get_output("replay", path, "--rate", "1/s")


@pytest.mark.parametrize(
    ("options", "denied", "note"),
    [
        ([], 0, "the requests of a second are spread evenly over it"),
        (["--within-second", "spread"], 0, "the requests of a second are spread evenly over it"),
        (["--within-second", "start"], 3, "all requests of a second are at its start"),
    ],
)
def test_whole_seconds_are_spread_or_kept_at_their_start(
    tmp_path: Path, options: list[str], denied: int, note: str
) -> None:
    path = write_log(tmp_path, [format_line("a", "05:00")] * 4)
    arguments = (str(path), "--rate", "4/s", "--burst", "1", "--algo", "gcra", *options)
    assert get_json("replay", *arguments)["results"][0]["denied"] == denied
    assert note in " ".join(get_output("replay", *arguments).split())


def test_times_with_fractions_are_not_changed(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time,ip\n1.25,a\n1.5,a\n2,a\n")
    report = get_json("replay", tmp_path / "trace.csv", "--rate", "4/s", "--burst", "1")
    assert (report["whole_seconds"], report["start"], report["duration"]) == (False, 1_250_000_000, 0.75)
    assert "whole seconds" not in get_output("replay", tmp_path / "trace.csv", "--rate", "4/s")


def test_windows_are_aligned_to_the_clock(tmp_path: Path) -> None:
    path = write_log(tmp_path, [*[format_line("a", "05:59")] * 3, *[format_line("a", "06:00")] * 3])
    report = get_json("replay", path, "--rate", "3/min")
    assert {result["algorithm"]: result["admitted"] for result in report["results"]} == dict.fromkeys(COMPARED, 3) | {
        "fixed-window": 6
    }


def get_admitted(report: dict[str, Any]) -> list[int]:
    return [result["admitted"] for result in report["results"]]


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_an_events_file_of_several_algorithms_has_each_request_once(tmp_path: Path, ending: str) -> None:
    events = tmp_path / f"events.{ending}"
    get_output("simulate", BURST, "--events", events)
    options = ["--rate", "2/s", "--burst", "5", "--key", "client", "--time", "at_ns", "--cost", "cost"]
    replayed, simulated = get_json("replay", events, *options), get_json("simulate", BURST)
    assert tuple(replayed[name] for name in ("lines", "offered", "repeated", "unparsed")) == (150, 30, 120, 0)
    assert "120 lines left out: the same requests, decided by other algorithms" in get_output(
        "replay", events, *options, "--strict"
    )
    assert get_admitted(replayed) == get_admitted(simulated)


def test_denied_clients_are_only_counted_if_there_are_some(tmp_path: Path) -> None:
    text = get_output("replay", "-", "--rate", "100/s", stdin=b"time,ip\n1,a\n2,b\n")
    assert text.startswith("standard input, read as csv\n")
    assert "All 2 requests were admitted." in text
    assert "denied at least once" not in text
    assert "Every algorithm denied 1 of 2 clients (50 %) at least once." in get_output(
        "replay", "-", "--rate", "1/h", stdin=b"time,ip\n1,a\n2,a\n1,b\n"
    )
