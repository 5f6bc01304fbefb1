"""Invalid scenario files: one line of error with its position, and no files left behind."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from cli_runner import invoke
from click.testing import Result
from hypothesis import given, settings
from hypothesis import strategies as st
from invalid_scenarios import BAD_SCENARIOS, GOOD, BadScenario

from ratelab import InputError
from ratelab.lab.scenarios import load_scenario


def assert_one_line(result: Result, message: str, *more: str) -> None:
    """Check for a single line of error that begins with `message` and holds `more`, and for nothing else."""
    assert result.exit_code == 2, result.exception
    assert result.stdout == ""
    assert result.stderr.startswith(f"Error: {message}")
    assert [part for part in more if part not in result.stderr] == []
    assert result.stderr.endswith("\n")
    assert len(result.stderr.splitlines()) == 1
    assert len(result.stderr) < 500


@pytest.mark.parametrize("bad", BAD_SCENARIOS.values(), ids=BAD_SCENARIOS.keys())
def test_an_invalid_file_is_one_line_and_leaves_nothing_behind(tmp_path: Path, bad: BadScenario) -> None:
    path = tmp_path / "bad.yaml"
    path.write_bytes(bad.content)
    result = invoke("simulate", path, "--csv", tmp_path / "table.csv", "--events", tmp_path / "events.jsonl")
    assert_one_line(result, f"{path}{bad.says}", bad.and_says)
    assert list(tmp_path.iterdir()) == [path]


def test_a_missing_file_or_a_folder_is_one_line(tmp_path: Path) -> None:
    assert_one_line(invoke("simulate", tmp_path / "no.yaml"), f"{tmp_path / 'no.yaml'}: No such file or directory")
    assert_one_line(invoke("simulate", tmp_path), f"{tmp_path}: Is a directory")
    assert_one_line(invoke("simulate", "x" * 300), "x", "File name too long")
    assert_one_line(invoke("simulate", "no\x1bm\r\nsuch.yaml"), "no m  such.yaml: No such file or directory")


def test_an_invalid_file_among_valid_ones_stops_all(tmp_path: Path) -> None:
    (tmp_path / "good.yaml").write_text(GOOD)
    (tmp_path / "bad.yaml").write_text(GOOD.replace("10s", "x"))
    result = invoke("simulate", tmp_path / "good.yaml", tmp_path / "bad.yaml", "--csv", tmp_path / "table.csv")
    assert_one_line(result, f"{tmp_path / 'bad.yaml'}:2: duration: ")
    assert not (tmp_path / "table.csv").exists()


def test_too_many_requests_are_rejected_client_by_client(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "crowd.yaml").write_text(GOOD.replace("cost: 1", "count: 100"))
    assert invoke("simulate", tmp_path / "crowd.yaml").exit_code == 0
    monkeypatch.setattr("ratelab.lab.scenarios.scenario.MOST_REQUESTS", 999)
    result = invoke("simulate", tmp_path / "crowd.yaml")
    assert_one_line(result, f"{tmp_path / 'crowd.yaml'}:7: clients[0]: the scenario makes more than 999 requests")


def test_a_log_too_large_for_memory_is_rejected_only_if_selected(tmp_path: Path) -> None:
    (tmp_path / "vast.yaml").write_text(GOOD.replace("burst: 5", "burst: 2000000"))
    result = invoke("simulate", tmp_path / "vast.yaml", "--algo", "all")
    assert_one_line(result, "sliding-log keeps the time of every admission", "got 2000000", "lower the burst")
    result = invoke("simulate", tmp_path / "vast.yaml", "--json")
    assert result.exit_code == 0
    assert result.stdout.count('"over_admitted": null, "over_denied": null') == 2


LINES = GOOD.splitlines()
PIECES = [*GOOD.split(), *"{}[]&*:-#|>'\"\t\0", "?", "---", "!!python/object", "1e400", "-1", "&a [*a]", "<<: *a", ""]


def mutated(rng: random.Random) -> str:
    """Return the good file with a few lines dropped, doubled, moved or written over."""
    lines = list(LINES)
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(lines))
        begin, end = sorted(rng.choices(range(len(lines[place]) + 1), k=2))
        spliced = lines[place][:begin] + rng.choice(PIECES) + lines[place][end:]
        lines[place : place + 1] = rng.choice([[], [lines[place]] * 2, [rng.choice(LINES)], [spliced], [spliced]])
        lines = lines or [""]
    return "\n".join(lines)


@settings(max_examples=200)
@given(rng=st.randoms(use_true_random=False))
def test_a_damaged_file_is_a_scenario_or_an_error_of_one_line(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    path = tmp_path_factory.getbasetemp() / "mutated.yaml"
    path.write_text(mutated(rng), encoding="utf-8")
    try:
        told = f"{path}:" if load_scenario(str(path)) else ""
    except InputError as error:
        told = str(error)
    assert told.startswith(f"{path}:")
