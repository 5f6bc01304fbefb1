"""JSON and options of `ratelab simulate`: stable names, and the same bytes for the same seed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from cli_runner import BURST, QUOTA_SCENARIOS, SCENARIOS, get_error, get_output, run_python
from figure_types import FIGURES

from ratelab import ALGORITHMS
from ratelab.algorithms import COMPARED

HERD = str(SCENARIOS / "thundering-herd.yaml")


# --- JSON


@pytest.mark.parametrize("path", QUOTA_SCENARIOS, ids=lambda path: path.stem)
def test_json_has_the_documented_names_and_types(path: Path) -> None:
    document = json.loads(get_output("simulate", path, "--json"))
    assert list(document) == [
        "version",
        "scenario",
        "seed",
        "quota",
        "offered",
        "duration",
        "client_timeout",
        "results",
    ]
    assert (document["version"], document["scenario"]) == (1, path.stem)
    assert list(document["quota"]) == ["rate", "burst", "window"]
    for result in document["results"]:
        assert list(result) == [*FIGURES, "per_client"]
        assert [name for name, kind in FIGURES.items() if not isinstance(result[name], kind)] == []
        assert result["offered"] == document["offered"] == result["admitted"] + result["denied"]
        assert {tuple(row) for row in result["per_client"]} == {("client", "offered", "admitted")}
        assert sum(row["admitted"] for row in result["per_client"]) == result["admitted"]


def test_json_has_the_seed_the_quota_and_the_algorithms() -> None:
    document = json.loads(get_output("simulate", BURST, "--json"))
    assert (document["seed"], document["offered"], document["duration"]) == (42, 30, 10.0)
    assert document["quota"] == {"rate": "2/s", "burst": 5, "window": 2.5}
    assert [result["algorithm"] for result in document["results"]] == list(COMPARED)
    assert document["results"][0]["per_client"] == [{"client": "alice", "offered": 30, "admitted": 14}]


def test_several_scenarios_are_printed_as_runs() -> None:
    document = json.loads(get_output("simulate", BURST, HERD, "--json"))
    assert list(document) == ["version", "runs"]
    assert document["runs"] == [json.loads(get_output("simulate", path, "--json")) for path in (BURST, HERD)]


@pytest.mark.slow
def test_the_output_depends_on_the_seed_and_not_on_the_hash_seed() -> None:
    random_paths = [
        str(path) for path in sorted(SCENARIOS.glob("*.yaml")) if "poisson" in path.read_text(encoding="utf-8")
    ]
    assert len(random_paths) >= 3
    command = ("-m", "ratelab", "simulate", *random_paths, "--json")
    assert (
        run_python(*command, PYTHONHASHSEED="1")
        == run_python(*command, PYTHONHASHSEED="2")
        == get_output("simulate", *random_paths, "--json")
    )


# --- options


@pytest.mark.parametrize(
    ("options", "quota"),
    [
        ([], "2/s, burst 5"),
        (["--rate", "100/min"], "100/min, burst 5"),
        (["--burst", "9"], "2/s, burst 9"),
        (["--rate", "7/13s", "--burst", "9"], "7/13s, burst 9"),
    ],
)
def test_rate_and_burst_override_those_of_the_scenario(options: list[str], quota: str) -> None:
    assert f"quota for each client: {quota} (window " in get_output("simulate", BURST, *options)


def test_the_seed_overrides_that_of_the_scenario() -> None:
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
        (["--algo", "gcra", "--algo", "all"], ["gcra", *(name for name in ALGORITHMS if name != "gcra")]),
    ],
)
def test_algo_selects_algorithms_in_order(options: list[str], algorithms: list[str]) -> None:
    document = json.loads(get_output("simulate", BURST, "--json", *options))
    assert [result["algorithm"] for result in document["results"]] == algorithms


@pytest.mark.parametrize(
    ("options", "message"),
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
def test_an_invalid_value_is_reported_in_one_line(options: list[str], message: str) -> None:
    assert message in get_error("simulate", BURST, *options)


def test_a_pattern_selects_the_scenarios_that_match() -> None:
    assert get_output("simulate", f"{SCENARIOS}/burs*.yaml", "--json") == get_output("simulate", BURST, "--json")
    assert f"no file matches {SCENARIOS}/none*.yaml: check the pattern" in get_error(
        "simulate", f"{SCENARIOS}/none*.yaml"
    )


@pytest.mark.parametrize("options", [["--burst", "0"], ["--seed", "-1"], ["--burst", "x"], ["--no-such-option"], []])
def test_a_usage_error_is_reported_in_one_line(options: list[str]) -> None:
    assert get_error("simulate", *([BURST, *options] if options else [])).endswith("; see ratelab simulate --help\n")


def test_a_wave_with_a_cycle_of_zero_is_rejected(tmp_path: Path) -> None:
    path = tmp_path / "wave.yaml"
    wave = "{pattern: wave, mean: 1/s, amplitude: 1/s, cycle: 0s}"
    path.write_text(f"name: x\nduration: 10us\nquota: {{rate: 1/s}}\nclients: [{{name: a, traffic: [{wave}]}}]\n")
    assert "cycle must be longer" in get_error("simulate", path)


def test_a_scenario_without_requests_has_nothing_to_compare(tmp_path: Path) -> None:
    path = tmp_path / "quiet.yaml"
    poisson = "{pattern: poisson, rate: 1/day}"
    path.write_text(f"name: quiet\nduration: 1s\nquota: {{rate: 1/s}}\nclients: [{{name: a, traffic: [{poisson}]}}]\n")
    text = get_output("simulate", path, "--timeline", "--csv", tmp_path / "t.csv", "--events", tmp_path / "e.jsonl")
    assert "0 requests from 1 client in 1 s" in text
    assert "There were no requests, so there is nothing to compare." in text
    assert ((tmp_path / "e.jsonl").read_text(), len((tmp_path / "t.csv").read_text().splitlines())) == ("", 6)
