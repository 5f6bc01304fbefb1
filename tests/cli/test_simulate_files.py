"""Files of `ratelab simulate`: the table as CSV and the events, written atomically."""

from __future__ import annotations

import csv
import json
import os
import re
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from cli_runner import BURST, SCENARIOS, get_error, get_json, get_output, run_python
from figure_types import FIGURES

from ratelab import create
from ratelab.algorithms import COMPARED
from ratelab.lab.scenarios import load_scenario
from ratelab.limiter import ROW_FIELDS

HERD, NOISY = (str(SCENARIOS / f"{stem}.yaml") for stem in ("thundering-herd", "noisy-neighbour"))


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Read events or a table; the values of a CSV file are strings."""
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_the_csv_table_has_the_values_of_the_json(tmp_path: Path) -> None:
    document = json.loads(get_output("simulate", BURST, HERD, "--json", "--csv", tmp_path / "table.csv"))
    rows = read_rows(tmp_path / "table.csv")
    assert list(rows[0]) == ["scenario", *FIGURES]
    results = [{"scenario": run["scenario"], **result} for run in document["runs"] for result in run["results"]]
    expected = [{name: "" if result[name] is None else str(result[name]) for name in rows[0]} for result in results]
    assert rows == expected


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl"])
def test_events_are_the_decisions_of_each_algorithm_in_order(tmp_path: Path, name: str) -> None:
    get_output("simulate", NOISY, "--events", tmp_path / name)
    rows = read_rows(tmp_path / name)
    assert list(rows[0]) == ["at_ns", "client", "cost", "algorithm", *ROW_FIELDS]
    scenario = load_scenario(NOISY)
    kernels = [create(algorithm, scenario.open_loop_quota) for algorithm in COMPARED]
    states: dict[tuple[str, int], list[int]] = {}
    expected = []
    for at, client in zip(scenario.traffic.times.tolist(), scenario.traffic.clients.tolist(), strict=True):
        for kernel in kernels:
            state = states.setdefault((kernel.name, client), kernel.start(at))
            expected.append((at, scenario.traffic.names[client], 1, kernel.name, *kernel.step(state, at, 1)))
    as_text = name.endswith(".csv")
    assert [tuple(row.values()) for row in rows] == [tuple(map(str, row)) if as_text else row for row in expected]


def test_events_of_several_scenarios_name_the_scenario(tmp_path: Path) -> None:
    get_output("simulate", BURST, HERD, "--events", tmp_path / "events.jsonl", "--algo", "gcra")
    rows = read_rows(tmp_path / "events.jsonl")
    assert [row["scenario"] for row in rows] == ["burst"] * 30 + ["thundering-herd"] * 2400


@pytest.mark.parametrize(
    ("option", "name", "message"),
    [
        ("--events", "events.txt", "the events file must end in .csv or .jsonl, got "),
        ("--events", "events", "the events file must end in .csv or .jsonl, got "),
        ("--events", "folder.csv", "it is a directory; name a file in it"),
        ("--csv", "folder.csv", "it is a directory; name a file in it"),
        ("--csv", "no/table.csv", "there is no directory "),
        ("--events", "no/events.csv", "there is no directory "),
        ("--csv", "burst.yaml/table.csv", "there is no directory "),
        ("--csv", "x" * 300, "cannot write "),
    ],
)
def test_an_unwritable_file_is_rejected_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, option: str, name: str, message: str
) -> None:
    (tmp_path / "folder.csv").mkdir()
    (tmp_path / "burst.yaml").write_bytes(Path(BURST).read_bytes())

    def work(*arguments: object) -> None:
        raise AssertionError

    monkeypatch.setattr("ratelab.lab.scenarios.load_scenario", work)
    assert message in get_error("simulate", BURST, option, tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["burst.yaml", "folder.csv"]


def test_a_file_without_permission_is_rejected_before_any_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    (tmp_path / "table.csv").touch()
    assert "table.csv: permission denied" in get_error("simulate", BURST, "--csv", tmp_path / "table.csv")


def test_a_table_may_be_written_to_a_device() -> None:
    text = run_python("-m", "ratelab", "simulate", BURST, "--algo", "gcra", "--json", "--csv", "/dev/stdout")
    assert text.startswith("scenario,algorithm,")
    assert json.loads(text.splitlines()[-1])["scenario"] == "burst"


def write_failing_algorithm(folder: Path) -> str:
    """Write an algorithm that fails after 3.15 s; return the value of `--algo` for it."""
    (folder / "failing.py").write_text(
        "from ratelab.algorithms.token_bucket import TokenBucket\n\n\n"
        "class Failing(TokenBucket):\n"
        "    name = 'failing'\n\n"
        "    def step(self, state, now, cost):\n"
        "        return 1 // 0 if now > 3_150_000_000 else super().step(state, now, cost)\n"
    )
    return f"{folder / 'failing.py'}:Failing"


def test_a_failed_replay_leaves_all_files_unchanged(tmp_path: Path) -> None:
    table, events, algorithm = tmp_path / "table.csv", tmp_path / "events.csv", write_failing_algorithm(tmp_path)
    events.write_text("precious")
    message = get_error("simulate", BURST, "--algo", "gcra", "--algo", algorithm, "--csv", table, "--events", events)
    assert "failing failed: ZeroDivisionError" in message
    assert events.read_text() == "precious"
    assert sorted(path.name for path in tmp_path.glob("*.*")) == ["events.csv", "failing.py"]


def test_a_failed_write_leaves_the_old_file_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    table = tmp_path / "table.csv"
    table.write_text("precious")

    def raise_disk_full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("csv.DictWriter.writerows", raise_disk_full)
    assert "No space left on device" in get_error("simulate", BURST, "--csv", table)
    assert table.read_text() == "precious"
    assert list(tmp_path.iterdir()) == [table]


def test_a_new_file_replaces_the_old_one_with_default_permissions(tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("old")
    get_output("simulate", BURST, "--csv", table)
    assert len(read_rows(table)) == len(COMPARED)
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(table.stat().st_mode) == 0o666 & ~umask
    assert list(tmp_path.iterdir()) == [table]


@pytest.mark.parametrize("options", [["--csv", "mine.yaml"], ["--csv", "a.csv", "--events", "./a.csv"]])
def test_no_file_is_written_twice_and_no_input_is_overwritten(
    options: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_bytes(Path(BURST).read_bytes())
    assert "would be overwritten: give each output a different file" in get_error("simulate", "mine.yaml", *options)
    assert Path("mine.yaml").read_bytes() == Path(BURST).read_bytes()


def test_the_target_of_a_link_is_replaced_and_the_link_kept(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("old")
    (tmp_path / "link.csv").symlink_to("table.csv")
    get_output("simulate", BURST, "--csv", tmp_path / "link.csv")
    assert (tmp_path / "link.csv").is_symlink()
    assert (tmp_path / "table.csv").read_text().startswith("scenario,algorithm,")


@pytest.mark.slow
def test_a_full_device_is_reported_in_one_line() -> None:
    command = f"{sys.executable} -m ratelab simulate {BURST} > /dev/full"
    completed = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=300)  # noqa: S607
    assert completed.returncode == 2
    assert completed.stderr == "Error: the output cannot be written: No space left on device\n"


# --- text that a spreadsheet would take for a formula

FORMULAS = ["=1+1", "+1", "-1", "@SUM(A1)", "'=1+1", "''-x", "'quoted", "plain", "a=b"]


def write_formula_scenario(folder: Path) -> Path:
    """Write a scenario whose name and clients are formulas."""
    clients = [{"name": name, "traffic": [{"pattern": "steady", "rate": "1/s"}]} for name in FORMULAS]
    scenario = {"name": "=EVIL()", "duration": "3s", "quota": {"rate": "1/min"}, "clients": clients}
    path = folder / "formulas.yaml"
    path.write_text(json.dumps(scenario), encoding="utf-8")
    return path


def test_no_cell_of_a_csv_file_starts_a_formula(tmp_path: Path) -> None:
    scenario = write_formula_scenario(tmp_path)
    table, events, swept = (tmp_path / f"{name}.csv" for name in ("table", "events", "sweep"))
    get_output("simulate", scenario, BURST, "--accuracy", "--csv", table, "--events", events)
    get_output("sweep", scenario, "--rate", "1/s", "--csv", swept)
    for path in (table, events, swept):
        rows = read_rows(path)
        assert rows[0]["scenario"] == "'=EVIL()"
        numbers = re.compile(r"-?[0-9.]+(e[+-][0-9]+)?")
        cells = [cell for row in rows for cell in row.values() if not numbers.fullmatch(cell)]
        assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r", "\n"))]


@pytest.mark.parametrize("name", ["events.csv", "events.jsonl"])
def test_events_read_back_have_the_names_of_the_clients(tmp_path: Path, name: str) -> None:
    get_output("simulate", write_formula_scenario(tmp_path), "--events", tmp_path / name)
    fields = ("--key", "client", "--time", "at_ns", "--cost", "cost", "--rate", "1/min", "--algo", "gcra")
    (result,) = get_json("replay", tmp_path / name, *fields)["results"]
    assert sorted(client["client"] for client in result["per_client"]) == sorted(FORMULAS)


@pytest.mark.parametrize("name", ["quoted", "'quoted", "it's"])
def test_an_apostrophe_before_other_text_belongs_to_it(tmp_path: Path, name: str) -> None:
    (tmp_path / "log.csv").write_text(f"time,ip\n1,{name}\n2,{name}\n")
    (result,) = get_json("replay", tmp_path / "log.csv", "--rate", "1/min", "--algo", "gcra")["results"]
    assert [client["client"] for client in result["per_client"]] == [name]


def test_a_timeline_needs_tables() -> None:
    assert "leave out one of them" in get_error("simulate", BURST, "--json", "--timeline")
