"""`ratelab compare`: two scenarios side by side, as tables, sentences, JSON and a chart."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_json, get_output, invoke
from mutate import mutate
from outage_scenario import OUTAGE

from ratelab.report import compared

LOOP = OUTAGE.replace("name: outage", "name: NAME").replace("base: 1s", "base: 1s, attempts: ATTEMPTS")

OPEN = """\
name: NAME
duration: 10s
quota: {rate: 2/s, burst: 5}
algorithms: [ALGORITHMS]
clients:
  - name: alice
    traffic: [{pattern: steady, rate: 4/s}]
"""


def write(folder: Path, text: str, name: str, **values: str) -> Path:
    path = folder / f"{name}.yaml"
    for key, value in {"name": name, **values}.items():
        text = text.replace(key.upper(), value)
    path.write_text(text)
    return path


@pytest.fixture
def loops(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path, LOOP, "few", attempts="2"), write(tmp_path, LOOP, "many", attempts="3")


def test_clients_that_react_are_compared(loops: tuple[Path, Path]) -> None:
    text = get_output("compare", *loops)
    assert text.startswith("few and many\nfew: web: 10/s, evenly;")
    words = " ".join(text.split())
    assert "no-limit: many is better in goodput (" in words
    assert "and worse in amplification (1.17 to 1.30)" in words
    assert "figure few many first_tries 300 300 attempts 350 " in words


def test_json_has_both_values_as_simulate_reports_them(loops: tuple[Path, Path]) -> None:
    document = get_json("compare", *loops)
    rows = [get_json("simulate", path)["results"][0] for path in loops]
    (row,) = document["rows"]
    assert document["scenarios"] == ["few", "many"]
    assert len(row["figures"]) > 20
    assert all(values == [each[name] for each in rows] for name, values in row["figures"].items())


def test_clients_that_do_not_react_are_compared_by_algorithm(tmp_path: Path) -> None:
    one = write(tmp_path, OPEN, "one", algorithms="token-bucket, fixed-window")
    other = write(tmp_path, OPEN.replace("burst: 5", "burst: 9"), "other", algorithms="fixed-window, gcra")
    text = " ".join(get_output("compare", one, other).split())
    assert "one: quota for each client: 2/s, burst 5 (window 2.5 s)" in text
    assert "only in one: token-bucket only in other: gcra" in text
    document = get_json("compare", one, other)
    assert [row["row"] for row in document["rows"]] == ["fixed-window"]
    assert document["left_out"] == ["one: token-bucket", "other: gcra"]
    assert [row["row"] for row in get_json("compare", one, other, "--algo", "gcra")["rows"]] == ["gcra"]


def test_single_rows_are_compared_whatever_their_algorithm(tmp_path: Path) -> None:
    one = write(tmp_path, OPEN, "one", algorithms="token-bucket")
    other = write(tmp_path, OPEN, "other", algorithms="sliding-log")
    assert get_json("compare", one, other)["rows"][0]["row"] == "token-bucket and sliding-log"


def test_a_scenario_is_neither_better_nor_worse_than_itself(loops: tuple[Path, Path]) -> None:
    text = " ".join(get_output("compare", loops[0], loops[0]).split())
    assert "both scenarios have the same traffic, limits and clients" in text
    assert "is neither better nor worse." in text
    assert "* better" not in text


def test_files_with_one_name_are_called_after_their_paths(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    one = write(tmp_path / "a", LOOP, "same", attempts="2")
    other = write(tmp_path, LOOP, "same", attempts="3")
    assert get_json("compare", one, other)["scenarios"] == [str(one), str(other)]
    renamed = other.rename(tmp_path / "different.yaml")
    assert get_json("compare", one, renamed)["scenarios"] == ["same", "different"]


@pytest.mark.parametrize("width", [60, 80, 140])
def test_no_line_is_wider_than_the_terminal(loops: tuple[Path, Path], width: int) -> None:
    from click.testing import CliRunner

    from ratelab.cli import ratelab_command

    runner = CliRunner(env={"COLUMNS": str(width), "TERM": "dumb"})
    result = runner.invoke(ratelab_command, ["compare", *map(str, loops), "--all-figures"])
    assert result.exit_code == 0
    assert max(map(len, result.stdout.splitlines())) <= width


def test_a_chart_shows_clients_that_react(loops: tuple[Path, Path], tmp_path: Path) -> None:
    image = tmp_path / "both.svg"
    get_output("compare", *loops, "--plot", image, "--chart", "goodput")
    assert all(name in image.read_text() for name in ("few", "many"))
    assert "--plot shows clients that react to answers, unlike " in get_error("compare", BURST, BURST, "--plot", image)
    assert "--chart needs a file" in get_error("compare", *loops, "--chart", "goodput")


def test_scenarios_of_different_kinds_are_rejected_in_one_line(loops: tuple[Path, Path]) -> None:
    for pair in ((BURST, loops[0]), (loops[0], BURST)):
        error = get_error("compare", *pair)
        assert error.startswith(f"clients of {loops[0]} react to answers, or it has variants, unlike {BURST}: ")
    policies = SCENARIOS / "burned-quota.yaml"
    assert get_error("compare", BURST, policies).startswith(f"{policies} has several policies: ")
    variants = SCENARIOS / "clients-that-retry" / "retry-after-jitter.yaml"
    assert get_error("compare", loops[0], variants).startswith("few has rows for no-limit, retry-after-jitter for no ")
    assert invoke("compare", loops[0]).exit_code == 2


MUTANTS = {
    "more is always better": mutate(compared, "_list_changes", '(figure.better == "lower")', "False"),
    "equal values are listed": mutate(compared, "_list_changes", "was != became and texts[0] != texts[1]", "True"),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_of_comparisons_die(name: str, loops: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    before = get_output("compare", *loops)
    monkeypatch.setattr(*MUTANTS[name])
    assert get_output("compare", *loops) != before
