"""`ratelab sweep`: every quota and algorithm gives the same counts as a comparison of its own."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
from access_log_lines import CROWD, write_log
from cli_runner import BURST, get_error, get_json, get_output

from ratelab.algorithms import COMPARED, find
from ratelab.lab.comparison import compare
from ratelab.lab.scenarios import load_scenario
from ratelab.lab.sweep import build_policies, parse_quotas, sweep

SCENARIO = str(Path(BURST).with_name("noisy-neighbour.yaml"))
KINDS = [find(name) for name in COMPARED]


def test_a_sweep_counts_as_comparisons_do_with_any_number_of_workers() -> None:
    traffic, tried = load_scenario(SCENARIO).traffic, parse_quotas("1/s,3/s..30/s", "5,20", 3)
    single, several = (sweep(build_policies(KINDS, tried), traffic, workers=workers) for workers in (1, 5))
    assert single == several
    policies = {quota: build_policies(KINDS, [quota]) for quota in tried}
    expected = [(quota, result) for quota in tried for result in compare(policies[quota], traffic).results]
    for row, (quota, result) in zip(single.rows, expected, strict=True):
        assert (row.algorithm, row.quota) == (result.algorithm, quota)
        assert (single.offered, row.denied) == (result.offered, result.denied)
        assert (single.clients, row.clients_denied) == (result.clients, result.clients_denied)


@pytest.mark.parametrize(
    ("rates", "bursts", "steps", "expected"),
    [
        ("1/s, 5/s", None, 10, ["1/s, burst 1", "5/s, burst 5"]),
        ("10/min..1000/min", "5", 3, ["10/min, burst 5", "100/min, burst 5", "1000/min, burst 5"]),
        ("1/s..4/s", "1", 10, ["1/s, burst 1", "2/s, burst 1", "3/s, burst 1", "4/s, burst 1"]),
        ("0.5/s..2/s", "1", 3, ["30/min, burst 1", "1/s, burst 1", "2/s, burst 1"]),
        ("1/min..1/s", "7", 2, ["1/min, burst 7", "1/s, burst 7"]),
        ("1/s", "5..500,8", 3, ["1/s, burst 5", "1/s, burst 50", "1/s, burst 500", "1/s, burst 8"]),
    ],
)
def test_ranges_have_equal_factors_between_values(
    rates: str, bursts: str | None, steps: int, expected: list[str]
) -> None:
    assert [str(quota) for quota in parse_quotas(rates, bursts, steps)] == expected


def test_the_table_has_rows_of_quotas_and_columns_of_algorithms() -> None:
    lines = get_output("sweep", SCENARIO, "--rate", "1/s..100/s", "--burst", "5", "--steps", "3").splitlines()
    requests, clients = (
        next(number for number, line in enumerate(lines) if line.startswith(caption))
        for caption in ("Requests denied, of 1,800", "Clients denied at least once, of 11")
    )
    assert [line.split()[0] for line in lines[requests + 2 : requests + 5]] == ["1/s", "10/s", "100/s"]
    assert "1,466 (81.4 %)" in lines[requests + 2]
    assert "1 (9.09 %)" in lines[clients + 3]
    assert "100/s 5 0 0 0" in " ".join(lines[requests + 4].split())
    assert "goal: at most 1 % of requests" in lines
    assert " ".join(lines[-3:]).startswith("100/s, burst 5 is the lowest quota tried with which every algorithm")
    assert max(map(len, lines)) <= 80


def test_all_rates_of_a_sweep_have_one_unit() -> None:
    lines = get_output("sweep", SCENARIO, "--rate", "1000/min,3000/min", "--burst", "5", "--algo", "gcra").splitlines()
    rates = [line.split()[0] for line in lines if "/min " in line]
    assert rates == ["1,000/min", "3,000/min"] * 2
    assert "3,000/min, burst 5 is the lowest quota tried" in " ".join(lines)


def test_json_and_csv_have_the_same_values(tmp_path: Path) -> None:
    trace = write_log(tmp_path, CROWD)
    options = ("--rate", "10/min,20/min", "--burst", "5", "--algo", "sliding-log")
    document = get_json("sweep", trace, *options, "--csv", tmp_path / "table.csv")
    results = document.pop("results")
    assert (document["version"], document["trace"], document["offered"]) == (1, str(trace), 45)
    assert results[0] == {
        "algorithm": "sliding-log",
        "rate": "10/min",
        "burst": 5,
        "window": 30.0,
        "offered": 45,
        "denied": 30,
        "denied_ratio": round(30 / 45, 6),
        "clients": 4,
        "clients_denied": 2,
        "clients_denied_ratio": 0.5,
    }
    with (tmp_path / "table.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"trace": str(trace), **{name: str(value) for name, value in row.items()}} for row in results]


@pytest.mark.parametrize(
    ("options", "line"),
    [
        (["--rate", "10/min..5/min"], "a range must go from less to more, got '10/min..5/min'"),
        (["--rate", "..5/min"], "a range of rates must look like 10/min..1000/min, got '..5/min'"),
        (["--rate", "3..5/s"], "rate must look like 2/s, 100/min or 5/2.5s, got '3'"),
        (["--rate", "1/s,"], "rate must look like"),
        (["--rate", "1/s", "--burst", "0"], "bursts must be whole numbers >= 1"),
        (["--rate", "1/s", "--burst", "5..x"], "bursts must be whole numbers >= 1"),
        (["--rate", "1/s..9999/s", "--burst", "1..9999", "--steps", "900"], "lower --steps"),
        (["--rate", "1/s", "--burst", "2000000"], "sliding-log keeps the time of every admission"),
        (["--rate", "1/s", "--csv", BURST], "would be overwritten"),
    ],
)
def test_an_invalid_option_is_reported_before_reading(options: list[str], line: str) -> None:
    assert line in get_error("sweep", BURST, *options)


@pytest.mark.parametrize(
    "option",
    ["--key=user", "--format=log", "--time=t", "--time-unit=s", "--cost=c", "--within-second=start", "--strict"],
)
def test_options_of_traces_are_rejected_for_a_scenario(option: str) -> None:
    name = option.partition("=")[0]
    assert get_error("sweep", BURST, "--rate", "1/s", option) == f"a scenario is not a trace: leave out {name}\n"


def test_two_scenarios_are_rejected() -> None:
    assert "only one scenario can be loaded at a time, got 2 sources" in get_error(
        "sweep", BURST, SCENARIO, "--rate", "1/s"
    )
