"""`ratelab replay`: recorded traffic through the algorithms, with what was read of it and who was denied."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from bad_traces import BAD_TRACES, GOOD, BadTrace
from click.testing import CliRunner, Result

from ratelab.algorithms import COMPARED
from ratelab.cli import ratelab_command
from ratelab.lab.traces.trace import FORMATS, TIME_UNITS, WITHIN_SECOND

SECOND = 10**9
START = 1_431_857_100 * SECOND
"""17 May 2015, 10:05:00 UTC."""
PLAIN = {"COLUMNS": None, "FORCE_COLOR": None, "NO_COLOR": None, "TTY_COMPATIBLE": None, "TERM": "dumb"}


def replay(*arguments: str | Path, stdin: bytes = b"") -> Result:
    return CliRunner(env=PLAIN).invoke(ratelab_command, ["replay", *map(str, arguments)], input=stdin)


def shown(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Return what a replay that succeeds prints, and see that it says nothing else."""
    result = replay(*arguments, stdin=stdin)
    assert (result.exit_code, result.stderr) == (0, ""), result.output
    return result.stdout


def told(*arguments: str | Path, stdin: bytes = b"") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(shown(*arguments, "--json", stdin=stdin))
    return found


def refused(*arguments: str | Path, stdin: bytes = b"") -> str:
    """Return the one line that a refused replay prints."""
    result = replay(*arguments, stdin=stdin)
    assert (result.exit_code, result.stdout, result.stderr.count("\n")) == (2, "", 1), result.output
    assert result.stderr.startswith("Error: ")
    return result.stderr.removeprefix("Error: ")


def line(host: str, time: str, path: str = "/", user: str = "-") -> str:
    return f'{host} - {user} [17/May/2015:10:{time} +0000] "GET {path} HTTP/1.1" 200 12\n'


def log(folder: Path, lines: Iterable[str]) -> Path:
    path = folder / "access.log"
    path.write_text("".join(lines), encoding="utf-8")
    return path


CROWD = [
    *[line("192.0.2.1", f"05:{second:02}") for second in range(30)],
    *[line("192.0.2.2", f"05:{second:02}") for second in range(0, 30, 3)],
    *[line("192.0.2.3", "05:30") for _ in range(4)],
    line("192.0.2.4", "05:31"),
]
"""45 requests of four clients in 32 s, those of two clients out of order."""


def test_the_report_says_what_was_read_what_was_granted_and_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path, CROWD)
    monkeypatch.chdir(tmp_path)
    lines = shown("access.log", "--rate", "10/min", "--burst", "5").splitlines()
    assert lines[:4] == [
        "access.log, read as log",
        "45 requests from 4 clients in 32s",
        "quota for each client: 10/min, burst 5 (window 30s)",
        "45 lines from 2015-05-17 10:05:00 UTC on",
    ]
    assert [name for name in COMPARED if not any(one.startswith(f"{name} ") for one in lines)] == []
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_json_is_one_object_of_the_names_agreed(tmp_path: Path) -> None:
    path = log(tmp_path, CROWD)
    found = told(path, "--rate", "10/min", "--burst", "5")
    results = found.pop("results")
    assert found == {
        "version": 1,
        "trace": str(path),
        "format": "log",
        "lines": 45,
        "unparsed": 0,
        "reordered": 10,
        "whole_seconds": True,
        "start": START,
        "quota": {"rate": "10/min", "burst": 5, "window": 30.0},
        "offered": 45,
        "duration": 32.0,
    }
    assert [result["algorithm"] for result in results] == list(COMPARED)
    exact = results[3]
    assert (exact["clients"], exact["clients_denied"], exact["clients_denied_ratio"]) == (4, 2, 0.5)
    assert exact["per_client"] == [
        {"client": "192.0.2.1", "offered": 30, "admitted": 5},
        {"client": "192.0.2.2", "offered": 10, "admitted": 5},
        {"client": "192.0.2.3", "offered": 4, "admitted": 4},
        {"client": "192.0.2.4", "offered": 1, "admitted": 1},
    ]


def test_the_share_of_clients_ever_denied_and_the_most_denied_are_told(tmp_path: Path) -> None:
    text = shown(log(tmp_path, CROWD), "--rate", "10/min", "--burst", "5", "--algo", "sliding-log")
    assert "Of 4 clients, denied at least once: 2 (50 %) by sliding-log." in text
    head, *most_denied = (one.split() for one in text.splitlines()[-3:])
    assert head == ["most", "denied", "client", "offered", "log"]
    assert most_denied == [["192.0.2.1", "30", "25"], ["192.0.2.2", "10", "5"]]


def test_what_all_algorithms_agree_on_is_not_laid_at_the_door_of_one(tmp_path: Path) -> None:
    path = log(tmp_path, [line("192.0.2.1", "05:00")] * 3)
    text = shown(path, "--rate", "1/min", "--algo", "token-bucket", "--algo", "gcra")
    assert "denied at least once: 1 (100 %) by each." in text


def test_a_trace_in_which_nobody_is_denied_names_nobody(tmp_path: Path) -> None:
    text = shown(log(tmp_path, CROWD), "--rate", "100/s")
    assert "most denied client" not in text
    assert "All 45 requests were admitted" in text


@pytest.mark.parametrize(("top", "names"), [("1", ["192.0.2.1"]), ("2", ["192.0.2.1", "192.0.2.2"])])
def test_top_says_how_many_clients_to_tell_of(tmp_path: Path, top: str, names: list[str]) -> None:
    path = log(tmp_path, CROWD)
    found = told(path, "--rate", "10/min", "--burst", "5", "--top", top)
    assert [[row["client"] for row in result["per_client"]] for result in found["results"]] == [names] * 5
    text = shown(path, "--rate", "10/min", "--burst", "5", "--top", top)
    assert [one.split()[0] for one in text.splitlines() if one.startswith("192.")] == names


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
    expected = told(log(tmp_path, CROWD), "--rate", "10/min")
    (tmp_path / "trace").write_bytes(content)
    found = told(tmp_path / "trace", "--rate", "10/min")
    assert found == {**expected, "trace": str(tmp_path / "trace"), "format": format_}


def test_a_minus_is_standard_input() -> None:
    stdin = "".join(CROWD).encode()
    assert told("-", "--rate", "10/min", stdin=stdin)["trace"] == "-"
    command = [sys.executable, "-m", "ratelab", "replay", "-", "--rate", "10/min", "--json"]
    done = subprocess.run(command, input=gzip.compress(stdin), capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert json.loads(done.stdout) == told("-", "--rate", "10/min", stdin=stdin)


# --- what is said of the reading


def test_lines_that_cannot_be_read_are_counted_and_the_first_few_shown(tmp_path: Path) -> None:
    path = log(tmp_path, [*CROWD[:3], "rubbish one\n", "\n", *[f"rubbish {n}\n" for n in range(2, 9)], CROWD[3]])
    found = told(path, "--rate", "10/min")
    assert (found["lines"], found["unparsed"], found["offered"]) == (12, 8, 4)
    text = shown(path, "--rate", "10/min")
    assert "8 lines left out, not readable, beginning with:" in text
    joined = " ".join(text.split())
    assert [n for n in (4, 6, 7, 8) if f"line {n}: a log line must begin" in joined] == [4, 6, 7]
    assert "'rubbish one'" in joined


def test_strict_refuses_the_first_line_that_cannot_be_read(tmp_path: Path) -> None:
    path = log(tmp_path, [*CROWD[:3], "rubbish\n"])
    assert refused(path, "--rate", "10/min", "--strict").startswith(f"{path}:4: a log line must begin HOST IDENT")


def test_times_out_of_order_are_sorted_and_counted(tmp_path: Path) -> None:
    path = log(tmp_path, [line("a", "05:02"), line("a", "05:00"), line("a", "05:01")])
    found = told(path, "--rate", "1/s", "--burst", "1")
    assert (found["reordered"], found["start"], found["results"][0]["denied"]) == (2, START, 0)
    assert "2 requests out of order, sorted by time" in shown(path, "--rate", "1/s")


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
    assert told(*arguments)["results"][0]["denied"] == denied
    assert note in " ".join(shown(*arguments).split())


def test_times_with_fractions_are_taken_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("time,ip\n1.25,a\n1.5,a\n2,a\n")
    found = told(tmp_path / "trace.csv", "--rate", "4/s", "--burst", "1")
    assert (found["whole_seconds"], found["start"], found["duration"]) == (False, 1_250_000_000, 0.75)
    assert "whole seconds" not in shown(tmp_path / "trace.csv", "--rate", "4/s")


def test_windows_are_those_of_the_clock(tmp_path: Path) -> None:
    path = log(tmp_path, [*[line("a", "05:59")] * 3, *[line("a", "06:00")] * 3])
    found = told(path, "--rate", "3/min")
    assert {one["algorithm"]: one["admitted"] for one in found["results"]} == dict.fromkeys(COMPARED, 3) | {
        "fixed-window": 6
    }


# --- options


@pytest.mark.parametrize(
    ("key", "clients"),
    [("ip", ["192.0.2.7", "192.0.2.8"]), ("path", ["/a", "/b"]), ("user", ["bob", "eve"]), ("method", ["GET"])],
)
def test_key_says_what_a_client_is(tmp_path: Path, key: str, clients: list[str]) -> None:
    path = log(tmp_path, [line("192.0.2.7", "05:00", "/a?q=1", "bob"), line("192.0.2.8", "05:00", "/b", "eve")])
    found = told(path, "--rate", "1/s", "--key", key)
    assert sorted(row["client"] for row in found["results"][0]["per_client"]) == clients


def test_fields_of_other_names_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("begun,who,size\n1000,ann,3\n1500,ann,3\n")
    options = ["--key", "who", "--time", "begun", "--time-unit", "ms", "--cost", "size", "--format", "csv"]
    found = told(tmp_path / "trace.csv", "--rate", "2/s", "--burst", "4", "--algo", "gcra", *options)
    (result,) = found["results"]
    assert (result["admitted"], result["peak_in_window"], found["duration"]) == (1, 3, 0.5)


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl"])
def test_events_tell_the_time_of_the_clock(tmp_path: Path, name: str) -> None:
    path = log(tmp_path, [line("192.0.2.7", "05:00")] * 2)
    shown(path, "--rate", "1/s", "--algo", "gcra", "--events", tmp_path / name)
    written = (tmp_path / name).read_text()
    assert [str(START + half) in row for half, row in zip((0, SECOND // 2), written.splitlines()[-2:], strict=True)]
    assert written.startswith("at_ns,client,cost," if name.endswith(".csv") else f'{{"at_ns": {START}, "client":')


def test_the_csv_table_says_which_trace_it_is_of(tmp_path: Path) -> None:
    path = log(tmp_path, CROWD)
    shown(path, "--rate", "1/s", "--csv", tmp_path / "table.csv", "--timeline")
    head, *rows = (tmp_path / "table.csv").read_text().splitlines()
    assert head.startswith("trace,algorithm,offered,")
    assert [row.split(",")[:2] for row in rows] == [[str(path), name] for name in COMPARED]


def test_a_name_that_is_a_trick_is_printed_as_text(tmp_path: Path) -> None:
    names = ["[bold]a[/]", "\x1b[2Jb", "c" * 300]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps({"time": 1, "ip": name}) + "\n" for name in names * 2))
    text = shown(tmp_path / "trace.jsonl", "--rate", "1/min")
    assert "[bold]a[/]" in text
    assert r"\x1b[2Jb" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80


# --- what is wrong


def spoken_by_click(bad: BadTrace) -> bool:
    """Say whether the command line itself refuses the options, with its usage."""
    choices = {"format": FORMATS, "unit": TIME_UNITS, "within_second": WITHIN_SECOND}
    return any(option in choices and value not in choices[option] for option, value in bad.options.items())


REFUSED = {name: bad for name, bad in BAD_TRACES.items() if not spoken_by_click(bad)}


def as_options(bad: BadTrace) -> list[str]:
    names = {"unit": "time-unit", "within_second": "within-second"}
    given = [(f"--{names.get(name, name)}", value) for name, value in bad.options.items()]
    return [word for name, value in given for word in ([name] if value is True else [name, str(value)])]


@pytest.mark.parametrize("bad", REFUSED.values(), ids=REFUSED.keys())
def test_a_bad_trace_is_one_line_and_leaves_nothing_behind(tmp_path: Path, bad: BadTrace) -> None:
    path = tmp_path / "trace"
    path.write_bytes(bad.content)
    files = ["--csv", f"{tmp_path}/table.csv", "--events", f"{tmp_path}/events.csv"]
    message = refused(path, "--rate", "1/s", *files, *as_options(bad))
    assert message.startswith(f"{path}:")
    assert bad.says in message
    assert len(message) < 600
    assert list(tmp_path.iterdir()) == [path]


def test_what_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    assert "No such file or directory" in refused(tmp_path / "no.log", "--rate", "1/s")
    assert "it cannot be " in refused(tmp_path, "--rate", "1/s")
    assert "File name too long" in refused("x" * 300, "--rate", "1/s")
    assert refused("-", "--rate", "1/s").startswith("standard input: it holds no lines")


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--rate", "100"], "rate must look like 2/s, 100/min or 5/2.5s, got '100'"),
        (["--rate", ""], "rate must look like"),
        (["--rate", "1/s", "--algo", "leakybucket"], "did you mean leaky-bucket?"),
        (["--rate", "1/s", "--events", "x.txt"], "ends in .csv or .jsonl"),
        (["--rate", "1/s", "--burst", "2000000"], "sliding-log keeps the time of every admission"),
    ],
)
def test_a_bad_option_is_one_line(tmp_path: Path, options: list[str], says: str) -> None:
    (tmp_path / "a.log").write_bytes(GOOD)
    assert says in refused(tmp_path / "a.log", *options)


@pytest.mark.parametrize(
    "options",
    [
        [],
        ["--rate", "1/s", "--format", "xml"],
        ["--rate", "1/s", "--top", "0"],
        ["--rate", "1/s", "--time-unit", "min"],
    ],
)
def test_an_option_of_the_wrong_kind_is_told_with_the_usage(tmp_path: Path, options: list[str]) -> None:
    (tmp_path / "a.log").write_bytes(GOOD)
    result = replay(tmp_path / "a.log", *options)
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Usage: ratelab replay [OPTIONS] TRACE")
