"""Invalid scenario files: a one-line error with the place, and no output files."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from cli_runner import REMEDY, invoke
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from invalid_scenarios import INVALID_SCENARIOS, VALID, InvalidScenario
from mutated_lines import mutate_lines

from ratelab import InputError
from ratelab.lab.scenarios import load_scenario


def assert_one_line(result: Result, message: str, *parts: str) -> None:
    """Check that the only output is a one-line error that begins with `message` and contains `parts`."""
    assert result.exit_code == 2, result.exception
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {message}")
    assert [part for part in parts if part not in result.stderr] == []
    assert result.stderr.endswith("\n")
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stderr) < 500


@pytest.mark.parametrize("invalid", INVALID_SCENARIOS.values(), ids=INVALID_SCENARIOS.keys())
def test_an_invalid_file_is_a_one_line_error_and_leaves_no_file(tmp_path: Path, invalid: InvalidScenario) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(invalid.content)
    result = invoke("simulate", path, "--csv", tmp_path / "table.csv", "--events", tmp_path / "events.jsonl")
    assert_one_line(result, f"{path}{invalid.message}", invalid.other_part)
    assert REMEDY.search(result.stderr), result.stderr
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_or_a_directory_is_a_one_line_error(tmp_path: Path) -> None:
    assert_one_line(invoke("simulate", tmp_path / "no.yaml"), f"{tmp_path / 'no.yaml'}: No such file or directory")
    assert_one_line(invoke("simulate", tmp_path), f"{tmp_path}: Is a directory")
    assert_one_line(invoke("simulate", "x" * 300), "x", "File name too long")
    assert_one_line(invoke("simulate", "no\x1bm\r\nsuch.yaml"), "no m  such.yaml: No such file or directory")


def test_one_invalid_file_stops_the_run_of_all(tmp_path: Path) -> None:
    (tmp_path / "valid.yaml").write_text(VALID)
    (tmp_path / "bad.yaml").write_text(VALID.replace("10s", "x"))
    result = invoke("simulate", tmp_path / "valid.yaml", tmp_path / "bad.yaml", "--csv", tmp_path / "table.csv")
    assert_one_line(result, f"{tmp_path / 'bad.yaml'}:2: duration: ")
    assert not (tmp_path / "table.csv").exists()


def test_too_many_requests_are_rejected_client_by_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crowd.yaml").write_text(VALID.replace("cost: 1", "count: 100"))
    assert invoke("simulate", tmp_path / "crowd.yaml").exit_code == 0
    monkeypatch.setattr("ratelab.lab.scenarios.scenario.MAX_REQUESTS", 999)
    result = invoke("simulate", tmp_path / "crowd.yaml")
    assert_one_line(
        result, f"{tmp_path / 'crowd.yaml'}:7: clients[0]: a scenario may have at most 999 requests, got more"
    )


def test_a_log_too_large_for_memory_is_rejected_only_if_selected(tmp_path: Path) -> None:
    (tmp_path / "large.yaml").write_text(VALID.replace("burst: 5", "burst: 2000000"))
    result = invoke("simulate", tmp_path / "large.yaml", "--algo", "all")
    assert_one_line(result, "sliding-log keeps the time of every admission", "got 2000000", "lower the burst")
    result = invoke("simulate", tmp_path / "large.yaml", "--json")
    assert result.exit_code == 0
    assert result.stdout.count('"over_admitted": null, "over_denied": null') == 2


LINES = VALID.splitlines()
PIECES = [*VALID.split(), *"{}[]&*:-#|>'\"\t\0", "?", "---", "!!python/object", "1e400", "-1", "&a [*a]", "<<: *a", ""]


@pytest.mark.slow
@settings(max_examples=100)
@given(rng=st.randoms(use_true_random=False))
def test_a_mutated_file_is_a_scenario_or_an_error_with_its_path(
    tmp_path_factory: pytest.TempPathFactory, rng: Random
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(mutate_lines(LINES, PIECES, rng), encoding="utf-8")
    message = f"{path}:"
    try:
        load_scenario(str(path))
    except InputError as error:
        message = str(error)
    assert message.startswith(f"{path}:")
