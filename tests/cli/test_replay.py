"""`ratelab replay`: recorded traffic through the algorithms, who was denied, and what may be asked of it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from access_log_lines import CROWD, SECOND, START, line, log
from cli_runner import shown, told

from ratelab.algorithms import COMPARED


def test_the_report_says_what_was_read_what_was_granted_and_what_became_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log(tmp_path, CROWD)
    monkeypatch.chdir(tmp_path)
    lines = shown("replay", "access.log", "--rate", "10/min", "--burst", "5").splitlines()
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
    found = told("replay", path, "--rate", "10/min", "--burst", "5")
    results = found.pop("results")
    assert found == {
        "version": 1,
        "trace": str(path),
        "format": "log",
        "lines": 45,
        "repeated": 0,
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
    text = shown("replay", log(tmp_path, CROWD), "--rate", "10/min", "--burst", "5", "--algo", "sliding-log")
    assert "Of 4 clients, denied at least once: 2 (50 %) by sliding-log." in text
    head, *most_denied = (one.split() for one in text.splitlines()[-3:])
    assert head == ["client", "offered", "log"]
    assert most_denied == [["192.0.2.1", "30", "25"], ["192.0.2.2", "10", "5"]]


def test_a_small_share_of_clients_is_told_alike_in_the_table_and_in_words(tmp_path: Path) -> None:
    crowd = [line(f"10.0.{n // 250}.{n % 250}", "05:00") for n in range(20_001)]
    text = shown("replay", log(tmp_path, [*crowd, crowd[0]]), "--rate", "1/min", "--algo", "sliding-log")
    assert "1 (0.005 %) by sliding-log." in text
    assert " 0.005%" in text


def test_what_all_algorithms_agree_on_is_not_laid_at_the_door_of_one(tmp_path: Path) -> None:
    path = log(tmp_path, [line("192.0.2.1", "05:00")] * 3)
    text = shown("replay", path, "--rate", "1/min", "--algo", "token-bucket", "--algo", "gcra")
    assert "Every algorithm denied 2 of 3 requests." in text
    assert "Every algorithm denied the one client at least once." in text


def test_a_trace_in_which_nobody_is_denied_names_nobody(tmp_path: Path) -> None:
    text = shown("replay", log(tmp_path, CROWD), "--rate", "100/s")
    assert "most denied" not in text
    assert "All 45 requests were admitted" in text


@pytest.mark.parametrize(("top", "names"), [("1", ["192.0.2.1"]), ("2", ["192.0.2.1", "192.0.2.2"])])
def test_top_says_how_many_clients_to_tell_of(tmp_path: Path, top: str, names: list[str]) -> None:
    path = log(tmp_path, CROWD)
    found = told("replay", path, "--rate", "10/min", "--burst", "5", "--top", top)
    assert [[row["client"] for row in result["per_client"]] for result in found["results"]] == [names] * 5
    text = shown("replay", path, "--rate", "10/min", "--burst", "5", "--top", top)
    assert [one.split()[0] for one in text.splitlines() if one.startswith("192.")] == names


# --- options


@pytest.mark.parametrize(
    ("key", "clients"),
    [("ip", ["192.0.2.7", "192.0.2.8"]), ("path", ["/a", "/b"]), ("user", ["bob", "eve"]), ("method", ["GET"])],
)
def test_key_says_what_a_client_is(tmp_path: Path, key: str, clients: list[str]) -> None:
    path = log(tmp_path, [line("192.0.2.7", "05:00", "/a?q=1", "bob"), line("192.0.2.8", "05:00", "/b", "eve")])
    found = told("replay", path, "--rate", "1/s", "--key", key)
    assert sorted(row["client"] for row in found["results"][0]["per_client"]) == clients


def test_fields_of_other_names_can_be_named(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("begun,who,size\n1000,ann,3\n1500,ann,3\n")
    options = ["--key", "who", "--time", "begun", "--time-unit", "ms", "--cost", "size", "--format", "csv"]
    found = told("replay", tmp_path / "trace.csv", "--rate", "2/s", "--burst", "4", "--algo", "gcra", *options)
    (result,) = found["results"]
    assert (result["admitted"], result["peak_in_window"], found["duration"]) == (1, 3, 0.5)


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl"])
def test_events_tell_the_time_of_the_clock(tmp_path: Path, name: str) -> None:
    path = log(tmp_path, [line("192.0.2.7", "05:00")] * 2)
    shown("replay", path, "--rate", "1/s", "--algo", "gcra", "--events", tmp_path / name)
    written = (tmp_path / name).read_text()
    assert [str(START + half) in row for half, row in zip((0, SECOND // 2), written.splitlines()[-2:], strict=True)]
    assert written.startswith("at_ns,client,cost," if name.endswith(".csv") else f'{{"at_ns": {START}, "client":')


def test_the_csv_table_says_which_trace_it_is_of(tmp_path: Path) -> None:
    path = log(tmp_path, CROWD)
    shown("replay", path, "--rate", "1/s", "--csv", tmp_path / "table.csv", "--timeline")
    head, *rows = (tmp_path / "table.csv").read_text().splitlines()
    assert head.startswith("trace,algorithm,offered,")
    assert [row.split(",")[:2] for row in rows] == [[str(path), name] for name in COMPARED]


def test_a_name_that_is_a_trick_is_printed_as_text(tmp_path: Path) -> None:
    names = ["[bold]a[/]", "\x1b[2Jb", "c" * 300]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps({"time": 1, "ip": name}) + "\n" for name in names * 2))
    text = shown("replay", tmp_path / "trace.jsonl", "--rate", "1/min")
    assert "[bold]a[/]" in text
    assert r"\x1b[2Jb" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80
