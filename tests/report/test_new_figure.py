"""A new figure: a field and its value in `lab/metrics.py` are all that JSON, CSV, tables and pages need."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path

import pytest
from cli_runner import BURST, run_python

import ratelab
from ratelab.algorithms import COMPARED

FIELD = """    deny_ratio: float = field(
        metadata=figure("denied divided by offered", "percent", header="denied part", better="lower")
    )
"""
VALUE = "        deny_ratio=1 - counts.admitted / len(traffic),\n"

RENDER_PAGE = f"""
from ratelab.algorithms import create
from ratelab.lab.comparison import compare, with_accuracy
from ratelab.lab.scenarios import load_scenario
from ratelab.report.html.page import Provenance, render_page
from ratelab.report.summary import Run

scenario = load_scenario({BURST!r})
comparison = with_accuracy(compare([create("gcra", scenario.quota)], scenario.traffic))
print(render_page(Run(comparison, {{"scenario": "burst"}}, "burst"), [], Provenance("", "")))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the package, and add a figure to the copy of its module."""
    folder = tmp_path_factory.mktemp("edited")
    package = Path(ratelab.__file__).parent
    shutil.copytree(package, folder / "ratelab", ignore=shutil.ignore_patterns("__pycache__"))
    path = folder / "ratelab" / "lab" / "metrics.py"
    text = path.read_text(encoding="utf-8")
    edits = {"    client_offered: Integers\n": FIELD, "        client_offered=client_offered,\n": VALUE}
    for line, addition in edits.items():
        assert text.count(line) == 1
        text = text.replace(line, f"{addition}{line}")
    path.write_text(text, encoding="utf-8")
    return folder


@pytest.mark.slow
def test_a_new_figure_is_in_json_csv_and_the_table(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    command = ("-m", "ratelab", "simulate", BURST)
    results = json.loads(run_python(*command, "--json", "--csv", "table.csv"))["results"]
    assert [row["deny_ratio"] for row in results] == [row["denied"] / row["offered"] for row in results]
    with Path("table.csv").open(encoding="utf-8") as file:
        assert [float(row["deny_ratio"]) for row in csv.DictReader(file)] == [row["deny_ratio"] for row in results]
    lines = run_python(*command).splitlines()
    assert max(map(len, lines)) <= 80
    rows = [line for line in lines if line.startswith(COMPARED) and line.endswith(" %")]
    assert [" ".join(row.split()[-2:]) for row in rows] == ["53.3 %", "53.3 %", "56.7 %", "60 %", "63.3 %"]


@pytest.mark.slow
def test_a_new_figure_is_in_the_table_and_the_legend_of_a_page(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    page = run_python("-c", RENDER_PAGE)
    header = '<th scope="col">denied part</th>'
    assert page.count(header) == 1
    assert re.search(r"<td>53\.3 %</td>", page)
    assert (
        '<dt><code>deny_ratio</code> <span class="quiet">denied part</span></dt><dd>denied divided by offered</dd>'
        in page
    )
