"""`ratelab tune`: the report, its JSON and CSV, lists of clients, checks and errors."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_json, get_output, invoke

from ratelab.lab.traces import read_trace
from ratelab.lab.tune import tune
from ratelab.report.numbers import format_factor, format_percent

BOTS = {"10.0.0.7": 300, "10.0.0.8": 200}


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an hour of 300 clients that send up to five requests, and of two that send hundreds, one of many agents."""
    lines = []
    for number in range(300):
        for request in range(1 + number % 5):
            lines.append((number * 11 + request, f"192.0.2.{number % 250}" if number < 250 else f"198.51.100.{number}"))
    for bot, count in BOTS.items():
        lines += [(10 * request if bot == "10.0.0.7" else request * 7 % 3600, bot) for request in range(count)]
        lines += [(1800, bot)] * 40
    path = tmp_path_factory.mktemp("tune") / "access.log"
    with path.open("w", encoding="utf-8") as file:
        for place, (second, client) in enumerate(sorted(lines)):
            agent = f"browser {place % 9}" if client == "10.0.0.8" else "-" if client == "10.0.0.7" else "curl"
            status = 404 if client == "10.0.0.7" else 200
            time = f"{second // 60:02}:{second % 60:02}.{place % 1000:03}"
            file.write(
                f'{client} - - [17/May/2015:10:{time} +0000] "GET /{place % 3} HTTP/1.1" {status} 1 "-" "{agent}"\n'
            )
    return path


def test_the_report_has_at_most_30_lines_of_80_columns(log: Path) -> None:
    lines = get_output("tune", log).splitlines()
    assert len(lines) <= 30
    assert max(map(len, lines[1:-1])) <= 80
    assert lines[-1].startswith("Next: ratelab replay ")


def test_no_note_on_the_reading_is_left_out_in_a_narrow_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = '{} 10.0.0.5 - - [17/May/2015:10:00:{:02}] "GET / HTTP/1.1" 200 1\n'
    lines = [line.format(f"203.0.113.{second % 7}", second * 7 % 60) for second in range(60)]
    (tmp_path / "access.log").write_text("".join(lines) + "?\n")
    monkeypatch.setenv("COLUMNS", "60")
    text = " ".join(get_output("tune", tmp_path / "access.log").split())
    for note in get_json("replay", tmp_path / "access.log", "--rate", "1/s")["notes"]:
        assert note in text
    assert "1 line left out" in text


def test_the_next_command_runs(log: Path) -> None:
    command = get_output("tune", log, "--rate", "10/min", "--time-zone", "UTC").splitlines()[-1].split()[2:]
    assert "--time-zone" in command
    assert "token-bucket" in get_output(*command)


def test_outliers_are_listed_with_their_signals(log: Path) -> None:
    script, shared = get_json("tune", log, "--rate", "1/min")["outliers"]
    assert (script["client"], script["client_errors_ratio"], script["empty_agent_ratio"]) == ("10.0.0.7", 1, 1)
    assert (script["agents"], script["likely_shared"]) == (0, False)
    assert (shared["client"], shared["agents"], shared["likely_shared"]) == ("10.0.0.8", 9, True)
    assert (shared["client_errors_ratio"], shared["requests"]) == (0, 240)
    text = get_output("tune", log, "--rate", "1/min")
    assert "10.0.0.8 is likely a shared address: look before you deny." in text


def test_json_and_csv_have_the_figures_of_the_library(log: Path, tmp_path: Path) -> None:
    document = get_json("tune", log, "--csv", tmp_path / "needs.csv")
    tuning = tune(read_trace(str(log)).traffic)
    best = tuning.recommended
    assert document["recommended"] == {
        "algorithm": "token-bucket",
        "rate": best.policy.quota.rate,
        "burst": best.policy.quota.burst,
        "clients_denied": best.clients_denied,
        "clients_denied_ratio": best.clients_denied_ratio,
        "requests_denied": best.requests_denied,
        "requests_denied_ratio": best.requests_denied_ratio,
        "margin_below": best.margin_below,
        "margin_above": best.margin_above,
    }
    assert (document["offered"], document["clients"], document["tolerate"]) == (tuning.offered, 302, 0.001)
    assert [row["needs"] for row in document["rates"]] == [row.needs for row in tuning.rates]
    assert len(document["tightest"]) == len(document["rates"])
    with (tmp_path / "needs.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["p99"]) for row in rows] == [row["needs"]["p99"] for row in document["rates"]]
    assert [row["gap_below"] for row in rows] == [str((row["gap"] or {}).get("below", "")) for row in document["rates"]]


def write_lines(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines), encoding="utf-8")
    return path


def test_ignored_clients_do_not_count(log: Path, tmp_path: Path) -> None:
    document = get_json("tune", log, "--ignore", write_lines(tmp_path / "bots", "# bots", "10.0.0.0/8"))
    assert (document["clients"], document["recommended"]["clients_denied"], document["outliers"]) == (300, 0, [])


def test_no_traffic_without_ignored_clients_is_an_error(log: Path, tmp_path: Path) -> None:
    names = write_lines(tmp_path / "all", "*")
    assert f"no request is left after --ignore {names}: name fewer clients" in get_error("tune", log, "--ignore", names)


def test_good_clients_are_not_denied(log: Path, tmp_path: Path) -> None:
    document = get_json("tune", log, "--rate", "1/min", "--good", write_lines(tmp_path / "good", "10.0.0.8"))
    assert [outlier["client"] for outlier in document["outliers"]] == ["10.0.0.7"]
    assert document["recommended"]["clients_denied"] == 1


def test_a_list_that_names_no_client_is_a_warning(log: Path, tmp_path: Path) -> None:
    names = write_lines(tmp_path / "names", "nobody")
    assert "no client is named in the file of --good" in get_json("tune", log, "--good", names)["warnings"]


@pytest.mark.parametrize(("limit", "status"), [("token-bucket:1/min:1000", 0), ("token-bucket:1/min:1", 1)])
def test_a_check_decides_the_exit_status(log: Path, limit: str, status: int) -> None:
    result = invoke("tune", log, "--check", limit, "--json")
    check = json.loads(result.stdout)["check"]
    assert (result.exit_code, check["passed"], check["clients_denied"] == 0) == (status, not status, not status)
    assert ("Failed: " if status else "Passed: ") in invoke("tune", log, "--check", limit).stdout


def test_denials_in_the_log_are_counted(tmp_path: Path) -> None:
    line = '192.0.2.1 - - [17/May/2015:10:05:0{} +0000] "GET / HTTP/1.1" {} 1 "-" "-"'
    log = write_lines(tmp_path / "a.log", line.format(1, 200), line.format(2, 429), line.format(3, 503))
    document = get_json("tune", log)
    assert document["denied_in_log"] == {"429": 1, "503": 1}
    assert "requests in the log were already denied (1 with 429, 1 with 503)" in document["warnings"][0]


def test_whole_seconds_give_an_interval(tmp_path: Path) -> None:
    line = '192.0.2.1 - - [17/May/2015:10:05:00 +0000] "GET / HTTP/1.1" 200 1'
    log = write_lines(tmp_path / "a.log", *[line] * 10)
    spread, start = (
        get_json("tune", log, "--rate", "2/s", "--within-second", how)["bursts_within_second"]
        for how in ("spread", "start")
    )
    assert spread == start == {"spread": 14, "start": 15}


def test_standard_input_is_not_read_twice(log: Path) -> None:
    document: dict[str, Any] = get_json("tune", "-", stdin=log.read_bytes())
    assert document["denied_in_log"] is None
    assert document["outliers"][0]["agents"] is None


def test_a_scenario_can_be_tuned() -> None:
    document = get_json("tune", SCENARIOS / "noisy-neighbour.yaml")
    assert (document["scenario"], document["clients"], document["holdout"]["clients"]) == ("noisy-neighbour", 11, 11)
    assert any("fewer than 100 clients" in warning for warning in document["warnings"])


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--tolerate", "110%"], "--tolerate must be a share from 0 to below 100 %, such as 0.1% or 1/3, got '110%'"),
        (["--tolerate", "1e-3"], "--tolerate must be a share"),
        (["--holdout", "1"], "--holdout must be a share"),
        (["--holdout", "1/0"], "--holdout must be a share"),
        (["--rate", "5"], "rate must look like 2/s, 100/min or 5/2.5s, got '5'"),
        (["--check", "token-bucket"], "a policy must look like ALGORITHM:RATE:BURST, such as token-bucket:100/min:40"),
        (["--check", "leaky:1/s"], "unknown algorithm 'leaky'"),
        (
            ["--good", "missing"],
            "missing cannot be read (No such file or directory): name a file with a value in each line",
        ),
        (["--csv", BURST], "would be overwritten"),
        (["--key", "user"], "a scenario is not a trace: leave out --key"),
    ],
)
def test_an_invalid_option_is_one_line(options: list[str], line: str) -> None:
    assert line in get_error("tune", BURST, *options)


def test_a_tolerance_of_0_denies_none_of_the_clients(log: Path) -> None:
    document = get_json("tune", log, "--tolerate", "0")
    assert {candidate["clients_denied"] for candidate in document["tightest"]} == {0}
    assert invoke("tune", log, "--tolerate", "0", "--check", "token-bucket:1/min:30").exit_code == 1


def test_a_window_algorithm_admits_the_ordinary_clients(log: Path) -> None:
    document = get_json("tune", log, "--algo", "sliding-log")
    assert (document["recommended"]["algorithm"], document["recommended"]["clients_denied"]) == ("sliding-log", 2)
    assert {outlier["client"] for outlier in document["outliers"]} == {*BOTS}
    assert "burst needed" not in get_output("tune", log, "--algo", "sliding-log")


@pytest.mark.slow
def test_the_longest_report_has_at_most_30_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = []
    for day in range(9):
        for number in range(300):
            lines += [(day * 86400 + number * 200 + place % 2, f"192.0.2.{number % 250}") for place in range(4)]
        for bot in ("10.0.0.7", "10.0.0.8"):
            lines += [(day * 86400 + place * 7, bot) for place in range(400)]
    path = tmp_path / "access.log"
    with path.open("w", encoding="utf-8") as file:
        for place, (second, client) in enumerate(sorted(lines)):
            time = f"{17 + second // 86400}/May/2015:{second // 3600 % 24:02}:{second // 60 % 60:02}:{second % 60:02}"
            status = 429 if place % 50 == 0 else 200
            line = f'{client} - - [{time} +0000] "GET /{place} HTTP/1.1" {status} 1 "-" "agent {place % 9}"'
            file.write(f"{'broken' if place % 999 == 9 else line}\n")
    kinds = [option for name in ("token-bucket", "fixed-window") for option in ("--algo", name)]
    monkeypatch.chdir(tmp_path)
    report = invoke("tune", path.name, *kinds, "--check", "token-bucket:1/min:5").stdout
    assert report.count("\n") <= 30
    assert "19 lines left out" in report
    assert report.count("Caution: ") >= 3
    assert "Failed: token-bucket, 1/min, burst 5" in report


@pytest.mark.parametrize(
    ("factor", "text"), [(8.3e-5, "0.000083"), (1.5312, "1.53"), (999.7, "1,000"), (8387.2, "8,387"), (2, "2")]
)
def test_a_factor_has_no_exponent(factor: float, text: str) -> None:
    assert format_factor(factor) == text
    assert format_percent(1 + factor).count("e") == 0
