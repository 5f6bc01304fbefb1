"""The trace that `ratelab replay` reads: where it comes from, and what is said of the reading."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pytest
from access_log_lines import CROWD, SECOND, START, line, log
from cli_runner import BURST, refused, shown, told

from ratelab.algorithms import COMPARED

# --- where the trace comes from


def as_csv(crowd: list[str]) -> bytes:
    rows = (f"2015-05-17T10:{one.partition(':10:')[2][:5]}Z,{one.split()[0]}\n" for one in crowd)
    return f"time,ip\n{''.join(rows)}".encode()


def as_json_lines(crowd: list[str]) -> bytes:
    rows = [(int(one.partition(":05:")[2][:2]), one.split()[0]) for one in crowd]
    return b"".join(b'{"ts": %d, "ip": "%s"}\n' % (START // SECOND + second, ip.encode()) for second, ip in rows)


@pytest.mark.parametrize(
    ("content", "format_"),
    [
        (gzip.compress("".join(CROWD).encode()), "log"),
        (as_csv(CROWD), "csv"),
        (as_json_lines(CROWD), "jsonl"),
        (gzip.compress(as_json_lines(CROWD)), "jsonl"),
    ],
    ids=["gzip", "csv", "jsonl", "jsonl.gz"],
)
def test_the_same_requests_in_another_form_give_the_same_figures(tmp_path: Path, content: bytes, format_: str) -> None:
    expected = told("replay", log(tmp_path, CROWD), "--rate", "10/min")
    (tmp_path / "trace").write_bytes(content)
    found = told("replay", tmp_path / "trace", "--rate", "10/min")
    assert found == {**expected, "trace": str(tmp_path / "trace"), "format": format_}


def test_a_minus_is_standard_input() -> None:
    stdin = "".join(CROWD).encode()
    assert told("replay", "-", "--rate", "10/min", stdin=stdin)["trace"] == "-"
    command = [sys.executable, "-m", "ratelab", "replay", "-", "--rate", "10/min", "--json"]
    done = subprocess.run(command, input=gzip.compress(stdin), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == told("replay", "-", "--rate", "10/min", stdin=stdin)


# --- what is said of the reading


def test_lines_that_cannot_be_read_are_counted_and_the_first_few_shown(tmp_path: Path) -> None:
    path = log(tmp_path, [*CROWD[:3], "rubbish one\n", "\n", *[f"rubbish {n}\n" for n in range(2, 9)], CROWD[3]])
    found = told("replay", path, "--rate", "10/min")
    assert (found["lines"], found["unparsed"], found["offered"]) == (12, 8, 4)
    text = shown("replay", path, "--rate", "10/min")
    assert "8 lines left out, beginning with:" in text
    joined = " ".join(text.split())
    assert [n for n in (4, 6, 7, 8) if f"line {n}: a log line must begin" in joined] == [4, 6, 7]
    assert "'rubbish one'" in joined


def test_strict_refuses_the_first_line_that_cannot_be_read(tmp_path: Path) -> None:
    path = log(tmp_path, [*CROWD[:3], "rubbish\n"])
    assert refused("replay", path, "--rate", "10/min", "--strict").startswith(
        f"{path}:4: a log line must begin HOST IDENT"
    )


def test_times_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    path = log(tmp_path, [line("a", "05:02"), line("a", "05:00"), line("a", "05:01")])
    found = told("replay", path, "--rate", "1/s", "--burst", "1")
    assert (found["reordered"], found["start"], found["results"][0]["denied"]) == (2, START, 0)
    assert "2 requests out of order, sorted by time" in shown("replay", path, "--rate", "1/s")


@pytest.mark.parametrize(
    ("options", "denied", "note"),
    [
        ([], 0, "the requests of a second are spread evenly over it"),
        (["--within-second", "spread"], 0, "the requests of a second are spread evenly over it"),
        (["--within-second", "start"], 3, "the requests of a second all stand at its start"),
    ],
)
def test_whole_seconds_are_spread_or_start_together(tmp_path: Path, options: list[str], denied: int, note: str) -> None:
    path = log(tmp_path, [line("a", "05:00")] * 4)
    arguments = (str(path), "--rate", "4/s", "--burst", "1", "--algo", "gcra", *options)
    assert told("replay", *arguments)["results"][0]["denied"] == denied
    assert note in " ".join(shown("replay", *arguments).split())


def test_times_with_fractions_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time,ip\n1.25,a\n1.5,a\n2,a\n")
    found = told("replay", tmp_path / "trace.csv", "--rate", "4/s", "--burst", "1")
    assert (found["whole_seconds"], found["start"], found["duration"]) == (False, 1_250_000_000, 0.75)
    assert "whole seconds" not in shown("replay", tmp_path / "trace.csv", "--rate", "4/s")


def test_windows_are_those_of_the_clock(tmp_path: Path) -> None:
    path = log(tmp_path, [*[line("a", "05:59")] * 3, *[line("a", "06:00")] * 3])
    found = told("replay", path, "--rate", "3/min")
    assert {one["algorithm"]: one["admitted"] for one in found["results"]} == dict.fromkeys(COMPARED, 3) | {
        "fixed-window": 6
    }


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_the_events_of_several_algorithms_are_each_request_once(tmp_path: Path, ending: str) -> None:
    events = tmp_path / f"events.{ending}"
    shown("simulate", BURST, "--events", events)
    options = ["--rate", "2/s", "--burst", "5", "--key", "client", "--time", "at_ns", "--cost", "cost"]
    read, made = told("replay", events, *options), told("simulate", BURST)
    assert (read["lines"], read["offered"], read["repeated"], read["unparsed"]) == (150, 30, 120, 0)
    assert "120 lines left out: the same requests as decided by other algorithms" in shown(
        "replay", events, *options, "--strict"
    )
    assert [one["admitted"] for one in read["results"]] == [one["admitted"] for one in made["results"]]


def test_where_nobody_is_denied_nobody_is_counted(tmp_path: Path) -> None:
    few = shown("replay", "-", "--rate", "100/s", stdin=b"time,ip\n1,a\n2,b\n")
    assert few.startswith("standard input, read as csv\n")
    assert "All 2 requests were admitted." in few
    assert "denied at least once" not in few
    assert "Every algorithm denied 1 of 2 clients at least once." in shown(
        "replay", "-", "--rate", "1/h", stdin=b"time,ip\n1,a\n2,a\n1,b\n"
    )
