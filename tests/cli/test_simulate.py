"""`ratelab simulate`: what it is asked, and its JSON, the same names and the same bytes each time."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_output, run_python
from figure_types import FIGURES

from ratelab import ALGORITHMS
from ratelab.algorithms import COMPARED

EVERY = sorted(SCENARIOS.glob("*.yaml"))
HERD = str(SCENARIOS / "thundering-herd.yaml")


# --- JSON


@pytest.mark.parametrize("path", EVERY, ids=lambda path: path.stem)
def test_json_is_one_object_of_the_names_and_types_agreed(path: Path) -> None:
    told = json.loads(get_output("simulate", path, "--json"))
    assert list(told) == ["version", "scenario", "seed", "quota", "offered", "duration", "results"]
    assert (told["version"], told["scenario"]) == (1, path.stem)
    assert list(told["quota"]) == ["rate", "burst", "window"]
    for result in told["results"]:
        assert list(result) == [*FIGURES, "per_client"]
        assert [name for name, kind in FIGURES.items() if not isinstance(result[name], kind)] == []
        assert result["offered"] == told["offered"] == result["admitted"] + result["denied"]
        assert {tuple(row) for row in result["per_client"]} == {("client", "offered", "admitted")}
        assert sum(row["admitted"] for row in result["per_client"]) == result["admitted"]


def test_json_tells_the_run_it_comes_from() -> None:
    told = json.loads(get_output("simulate", BURST, "--json"))
    assert (told["seed"], told["offered"], told["duration"]) == (42, 30, 10.0)
    assert told["quota"] == {"rate": "2/s", "burst": 5, "window": 2.5}
    assert [result["algorithm"] for result in told["results"]] == list(COMPARED)
    assert told["results"][0]["per_client"] == [{"client": "alice", "offered": 30, "admitted": 14}]


def test_several_scenarios_are_several_runs() -> None:
    told = json.loads(get_output("simulate", BURST, HERD, "--json"))
    assert list(told) == ["version", "runs"]
    assert told["runs"] == [json.loads(get_output("simulate", path, "--json")) for path in (BURST, HERD)]


def test_the_same_seed_prints_the_same_bytes_whatever_the_hash_seed() -> None:
    by_chance = [str(path) for path in EVERY if "poisson" in path.read_text(encoding="utf-8")]
    assert len(by_chance) >= 3
    command = ("-m", "ratelab", "simulate", *by_chance, "--json")
    assert (
        run_python(*command, PYTHONHASHSEED="1")
        == run_python(*command, PYTHONHASHSEED="2")
        == get_output("simulate", *by_chance, "--json")
    )


# --- what is asked of it


@pytest.mark.parametrize(
    ("options", "quota"),
    [
        ([], "2/s, burst 5"),
        (["--rate", "100/min"], "100/min, burst 5"),
        (["--burst", "9"], "2/s, burst 9"),
        (["--rate", "7/13s", "--burst", "9"], "7/13s, burst 9"),
    ],
)
def test_rate_and_burst_take_the_place_of_the_scenarios(options: list[str], quota: str) -> None:
    assert f"quota for each client: {quota} (window " in get_output("simulate", BURST, *options)


def test_seed_takes_the_place_of_the_scenarios() -> None:
    seeds: list[list[str]] = [[], ["--seed", "3"], ["--seed", "4"]]
    written, same, other = (
        json.loads(get_output("simulate", SCENARIOS / "overload.yaml", "--json", *seed)) for seed in seeds
    )
    assert written == same
    assert (written["seed"], other["seed"]) == (3, 4)
    assert written["offered"] != other["offered"]


@pytest.mark.parametrize(
    ("options", "algorithms"),
    [
        ([], list(COMPARED)),
        (["--algo", "gcra"], ["gcra"]),
        (["-a", "sliding-log", "-a", "gcra"], ["sliding-log", "gcra"]),
        (["--algo", "gcra", "--algo", "gcra"], ["gcra"]),
        (["--algo", "all"], list(ALGORITHMS)),
        (["--algo", "gcra", "--algo", "all"], ["gcra", *COMPARED]),
    ],
)
def test_algo_says_which_algorithms_in_which_order(options: list[str], algorithms: list[str]) -> None:
    told = json.loads(get_output("simulate", BURST, "--json", *options))
    assert [result["algorithm"] for result in told["results"]] == algorithms


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--algo", "tokenbucket"], "unknown algorithm 'tokenbucket': did you mean token-bucket?"),
        (["--algo", "x"], "unknown algorithm 'x': choose one of token-bucket, leaky-bucket,"),
        (["--rate", "2"], "rate must look like 2/s, 100/min or 5/2.5s, got '2'"),
        (["--rate", ""], "rate must look like 2/s, 100/min or 5/2.5s, got ''"),
        (["--rate", "1/day", "--burst", "60000"], "lower the burst or raise the rate"),
        (["--burst", str(10**30)], "burst must be a whole number from 1 to 2**62"),
        (["--burst", "1000001"], "sliding-log keeps the time of every admission"),
    ],
)
def test_an_option_that_cannot_be_is_one_line(options: list[str], told: str) -> None:
    assert told in get_error("simulate", BURST, *options)


def test_a_pattern_stands_for_the_scenarios_that_it_matches() -> None:
    assert get_output("simulate", f"{SCENARIOS}/bur*.yaml", "--json") == get_output("simulate", BURST, "--json")
    assert f"no file matches {SCENARIOS}/none*.yaml: check the pattern" in get_error(
        "simulate", f"{SCENARIOS}/none*.yaml"
    )


@pytest.mark.parametrize("options", [["--burst", "0"], ["--seed", "-1"], ["--burst", "x"], ["--no-such-option"], []])
def test_an_option_of_the_wrong_kind_is_one_line_and_so_is_none(options: list[str]) -> None:
    assert get_error("simulate", *([BURST, *options] if options else [])).endswith("; see ratelab simulate --help\n")


def test_a_wave_without_a_cycle_is_refused_however_short_it_is(tmp_path: Path) -> None:
    path = tmp_path / "wave.yaml"
    wave = "{pattern: wave, mean: 1/s, amplitude: 1/s, cycle: 0s}"
    path.write_text(f"name: x\nduration: 10us\nquota: {{rate: 1/s}}\nclients: [{{name: a, traffic: [{wave}]}}]\n")
    command = [sys.executable, "-m", "ratelab", "simulate", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stdout) == (2, "")
    assert "cycle must be longer" in done.stderr


def test_a_scenario_without_a_request_is_told_as_such(tmp_path: Path) -> None:
    path = tmp_path / "quiet.yaml"
    poisson = "{pattern: poisson, rate: 1/day}"
    path.write_text(f"name: quiet\nduration: 1s\nquota: {{rate: 1/s}}\nclients: [{{name: a, traffic: [{poisson}]}}]\n")
    text = get_output("simulate", path, "--timeline", "--csv", tmp_path / "t.csv", "--events", tmp_path / "e.jsonl")
    assert "0 requests from 1 client in 1s" in text
    assert "There were no requests, so there is nothing to compare." in text
    assert ((tmp_path / "e.jsonl").read_text(), len((tmp_path / "t.csv").read_text().splitlines())) == ("", 6)
