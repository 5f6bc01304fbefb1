"""The files of `ratelab simulate`: its table as CSV and its events, each written whole or not at all."""

from __future__ import annotations

import csv
import json
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_output, run_python
from figure_types import FIGURES

from ratelab import Decision, create
from ratelab.algorithms import COMPARED
from ratelab.lab.scenarios import load_scenario

HERD, NOISY = (str(SCENARIOS / f"{stem}.yaml") for stem in ("thundering-herd", "noisy-neighbour"))


def rows_of(path: Path) -> list[dict[str, Any]]:
    """Read a file of events or a table; every value as the JSON would have it."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_table_is_the_json_row_by_row(tmp_path: Path) -> None:
    told = json.loads(get_output("simulate", BURST, HERD, "--json", "--csv", tmp_path / "table.csv"))
    rows = rows_of(tmp_path / "table.csv")
    assert list(rows[0]) == ["scenario", *FIGURES]
    results = [{"scenario": run["scenario"], **result} for run in told["runs"] for result in run["results"]]
    expected = [{name: "" if result[name] is None else str(result[name]) for name in rows[0]} for result in results]
    assert rows == expected


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl"])
def test_events_are_each_algorithms_decisions_made_by_hand_in_the_order_of_arrival(tmp_path: Path, name: str) -> None:
    get_output("simulate", NOISY, "--events", tmp_path / name)
    rows = rows_of(tmp_path / name)
    assert list(rows[0]) == ["at_ns", "client", "cost", "algorithm", *Decision._fields]
    scenario = load_scenario(NOISY)
    kernels = [create(algorithm, scenario.quota) for algorithm in COMPARED]
    states: dict[tuple[str, int], list[int]] = {}
    expected = []
    for at, client in zip(scenario.traffic.times.tolist(), scenario.traffic.clients.tolist(), strict=True):
        for kernel in kernels:
            state = states.setdefault((kernel.name, client), kernel.start(at))
            expected.append((at, scenario.traffic.names[client], 1, kernel.name, *kernel.step(state, at, 1)))
    as_text = name.endswith(".csv")
    assert [tuple(row.values()) for row in rows] == [tuple(map(str, row)) if as_text else row for row in expected]


def test_events_of_several_scenarios_say_whose_they_are(tmp_path: Path) -> None:
    get_output("simulate", BURST, HERD, "--events", tmp_path / "events.jsonl", "--algo", "gcra")
    rows = rows_of(tmp_path / "events.jsonl")
    assert [row["scenario"] for row in rows] == ["burst"] * 30 + ["thundering-herd"] * 2400


@pytest.mark.parametrize(
    ("option", "name", "told"),
    [
        ("--events", "events.txt", "ends in .csv or .jsonl, got "),
        ("--events", "events", "ends in .csv or .jsonl, got "),
        ("--events", "folder.csv", "it is a directory; name a file in it"),
        ("--csv", "folder.csv", "it is a directory; name a file in it"),
        ("--csv", "no/table.csv", "there is no directory "),
        ("--events", "no/events.csv", "there is no directory "),
        ("--csv", "burst.yaml/table.csv", "there is no directory "),
        ("--csv", "x" * 300, "cannot write "),
    ],
)
def test_a_file_that_cannot_be_written_is_told_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, name: str, told: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "burst.yaml").write_bytes(Path(BURST).read_bytes())

    def work(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ratelab.lab.scenarios.load_scenario", work)
    assert told in get_error("simulate", BURST, option, tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["burst.yaml", "folder.csv"]


def test_a_file_without_permission_is_told_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    (tmp_path / "table.csv").touch()
    assert "table.csv: permission denied" in get_error("simulate", BURST, "--csv", tmp_path / "table.csv")


def test_a_table_may_go_to_a_device() -> None:
    text = run_python("-m", "ratelab", "simulate", BURST, "--algo", "gcra", "--json", "--csv", "/dev/stdout")
    assert text.startswith("scenario,algorithm,")
    assert json.loads(text.splitlines()[-1])["scenario"] == "burst"


def failing(folder: Path) -> str:
    """Write an algorithm that fails at its twentieth request, and return how to name it."""
    (folder / "tired.py").write_text(
        "from ratelab.algorithms.token_bucket import TokenBucket\n\n\n"
        "class Tired(TokenBucket):\n"
        "    name = 'tired'\n\n"
        "    def step(self, state, now, cost):\n"
        "        return 1 // 0 if now > 3_150_000_000 else super().step(state, now, cost)\n"
    )
    return f"{folder / 'tired.py'}:Tired"


def test_a_replay_that_fails_leaves_no_file_and_changes_none(tmp_path: Path) -> None:
    table, events, algorithm = tmp_path / "table.csv", tmp_path / "events.csv", failing(tmp_path)
    events.write_text("precious")
    told = get_error("simulate", BURST, "--algo", "gcra", "--algo", algorithm, "--csv", table, "--events", events)
    assert "tired failed: ZeroDivisionError" in told
    assert events.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["events.csv", "tired.py"]


def test_writing_that_fails_leaves_the_old_file_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "table.csv"
    table.write_text("precious")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("csv.DictWriter.writerows", full)
    assert "No space left on device" in get_error("simulate", BURST, "--csv", table)
    assert table.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [table]


def test_a_new_file_takes_the_place_of_the_old_and_may_be_read_by_all(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("old")
    get_output("simulate", BURST, "--csv", table)
    assert len(rows_of(table)) == len(COMPARED)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(table.stat().st_mode) == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize("options", [["--csv", "mine.yaml"], ["--csv", "a.csv", "--events", "./a.csv"]])
def test_no_file_is_written_twice_nor_over_what_is_read(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_bytes(Path(BURST).read_bytes())
    assert "would be overwritten: give each output a different file" in get_error("simulate", "mine.yaml", *options)
    assert Path("mine.yaml").read_bytes() == Path(BURST).read_bytes()


def test_what_a_link_leads_to_is_written_and_the_link_kept(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("table.csv")
    get_output("simulate", BURST, "--csv", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text().startswith("scenario,algorithm,")


def test_a_full_device_is_one_line() -> None:
    command = f"{sys.executable} -m ratelab simulate {BURST} > /dev/full"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=60)  # noqa: S607
    assert done.returncode == 2
    assert done.stderr == "Error: the output cannot be written: No space left on device\n"


@pytest.mark.parametrize(("option", "ending"), [("--html", "html"), ("--csv", "csv"), ("--events", "jsonl")])
def test_of_two_files_for_one_thing_none_is_passed_over(tmp_path: Path, option: str, ending: str) -> None:
    one, other = (f"{tmp_path}/{name}.{ending}" for name in "ab")
    said = f"{option} can be given once, got '{one}', '{other}': keep one of them"
    assert said in get_error("simulate", BURST, option, one, option, other)
    assert list(tmp_path.iterdir()) == []


def test_a_timeline_goes_with_tables() -> None:
    assert "leave out one of them" in get_error("simulate", BURST, "--json", "--timeline")
