"""`ratelab replay`: its report, most denied clients and options."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from access_log_lines import CROWD, START, format_line, write_log
from cli_runner import get_json, get_output

from ratelab.algorithms import COMPARED
from ratelab.quota import NS_PER_S


def test_the_report_has_the_trace_the_quota_and_every_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_log(tmp_path, CROWD)
    monkeypatch.chdir(tmp_path)
    lines = get_output("replay", "access.log", "--rate", "10/min", "--burst", "5").splitlines()
    assert lines[:4] == [
        "access.log, read as common",
        "45 requests from 4 clients in 32 s",
        "quota for each client: 10/min, burst 5 (window 30 s)",
        "45 lines from 2015-05-17 10:05:00 UTC on",
    ]
    assert [name for name in COMPARED if not any(line.startswith(f"{name} ") for line in lines)] == []
    assert max(map(len, lines)) <= 80
    assert "\x1b" not in "".join(lines)


def test_json_is_one_object_with_stable_names(tmp_path: Path) -> None:
    path = write_log(tmp_path, CROWD)
    report = get_json("replay", path, "--rate", "10/min", "--burst", "5")
    results = report.pop("results")
    assert report == {
        "version": 1,
        "trace": str(path),
        "format": "common",
        "lines": 45,
        "repeated": 0,
        "anonymous": 0,
        "filtered": {},
        "unparsed": 0,
        "reordered": 10,
        "whole_seconds": True,
        "start": START,
        "notes": [],
        "quota": {"rate": "10/min", "burst": 5, "window": 30.0},
        "offered": 45,
        "duration": 32.0,
        "client_timeout": 10.0,
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


def test_the_report_has_the_share_of_denied_clients_and_the_most_denied(tmp_path: Path) -> None:
    text = get_output("replay", write_log(tmp_path, CROWD), "--rate", "10/min", "--burst", "5", "--algo", "sliding-log")
    assert "Of 4 clients, sliding-log denied 2 (50 %) at least once." in text
    head, *most_denied = (line.split() for line in text.splitlines()[-3:])
    assert head == ["client", "offered", "sliding-log"]
    assert most_denied == [["192.0.2.1", "30", "25"], ["192.0.2.2", "10", "5"]]


@pytest.mark.slow
def test_a_small_share_of_clients_is_the_same_in_table_and_text(tmp_path: Path) -> None:
    crowd = [format_line(f"10.0.{n // 250}.{n % 250}", "05:00") for n in range(20_001)]
    text = get_output("replay", write_log(tmp_path, [*crowd, crowd[0]]), "--rate", "1/min", "--algo", "sliding-log")
    assert "sliding-log denied 1 (0.005 %) at least once." in text
    assert " 1 (0.005 %)\n" in text


def test_a_finding_common_to_all_algorithms_names_none_of_them(tmp_path: Path) -> None:
    path = write_log(tmp_path, [format_line("192.0.2.1", "05:00")] * 3)
    text = get_output("replay", path, "--rate", "1/min", "--algo", "token-bucket", "--algo", "gcra")
    assert "Every algorithm denied 2 of 3 requests (66.7 %)." in text
    assert "Every algorithm denied the only client at least once." in text


def test_no_client_is_listed_if_none_is_denied(tmp_path: Path) -> None:
    text = get_output("replay", write_log(tmp_path, CROWD), "--rate", "100/s")
    assert "most denied" not in text
    assert "All 45 requests were admitted" in text


@pytest.mark.parametrize(("top", "names"), [("1", ["192.0.2.1"]), ("2", ["192.0.2.1", "192.0.2.2"])])
def test_top_sets_the_number_of_clients_listed(tmp_path: Path, top: str, names: list[str]) -> None:
    path = write_log(tmp_path, CROWD)
    report = get_json("replay", path, "--rate", "10/min", "--burst", "5", "--top", top)
    assert [[row["client"] for row in result["per_client"]] for result in report["results"]] == [names] * 5
    text = get_output("replay", path, "--rate", "10/min", "--burst", "5", "--top", top)
    assert [line.split()[0] for line in text.splitlines() if line.startswith("192.")] == names


# --- options


@pytest.mark.parametrize(
    ("key", "clients"),
    [("ip", ["192.0.2.7", "192.0.2.8"]), ("path", ["/a", "/b"]), ("user", ["bob", "eve"]), ("method", ["GET"])],
)
def test_key_names_the_field_that_identifies_clients(tmp_path: Path, key: str, clients: list[str]) -> None:
    path = write_log(
        tmp_path, [format_line("192.0.2.7", "05:00", "/a?q=1", "bob"), format_line("192.0.2.8", "05:00", "/b", "eve")]
    )
    report = get_json("replay", path, "--rate", "1/s", "--key", key)
    assert sorted(row["client"] for row in report["results"][0]["per_client"]) == clients


def test_options_name_the_fields_of_a_csv_file(tmp_path: Path) -> None:
    (tmp_path / "trace.csv").write_text("started,user,size\n1000,ann,3\n1500,ann,3\n")
    options = ["--key", "user", "--time", "started", "--time-unit", "ms", "--cost", "size", "--format", "csv"]
    report = get_json("replay", tmp_path / "trace.csv", "--rate", "2/s", "--burst", "4", "--algo", "gcra", *options)
    (result,) = report["results"]
    assert (result["admitted"], result["peak_in_window"], report["duration"]) == (1, 3, 0.5)


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl"])
def test_events_have_the_time_of_the_clock(tmp_path: Path, name: str) -> None:
    path = write_log(tmp_path, [format_line("192.0.2.7", "05:00")] * 2)
    get_output("replay", path, "--rate", "1/s", "--algo", "gcra", "--events", tmp_path / name)
    written = (tmp_path / name).read_text()
    assert [str(START + half) in row for half, row in zip((0, NS_PER_S // 2), written.splitlines()[-2:], strict=True)]
    assert written.startswith("at_ns,client,cost," if name.endswith(".csv") else f'{{"at_ns": {START}, "client":')


def test_the_csv_table_names_its_trace(tmp_path: Path) -> None:
    path = write_log(tmp_path, CROWD)
    get_output("replay", path, "--rate", "1/s", "--csv", tmp_path / "table.csv", "--timeline")
    head, *rows = (tmp_path / "table.csv").read_text().splitlines()
    assert head.startswith("trace,algorithm,offered,")
    assert [row.split(",")[:2] for row in rows] == [[str(path), name] for name in COMPARED]


def test_markup_and_escapes_in_a_name_are_printed_as_text(tmp_path: Path) -> None:
    names = ["[bold]a[/]", "\x1b[2Jb", "c" * 300]
    (tmp_path / "trace.jsonl").write_text("".join(json.dumps({"time": 1, "ip": name}) + "\n" for name in names * 2))
    text = get_output("replay", tmp_path / "trace.jsonl", "--rate", "1/min")
    assert "[bold]a[/]" in text
    assert r"\x1b[2Jb" in text
    assert "\x1b" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80
