"""The notebooks run whole, without the network, and what they are kept with is what they say."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from run_notebooks import executed

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
PICTURE = "image/png"  # its pixels differ with the libraries that draw; what it says is kept beside it as text


def code(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def said(cell: NotebookNode) -> list[Any]:
    """Return what a cell put out; of one that measures, only what kinds of things."""
    told = [output.get("data", {output.get("name"): output.get("text")}) for output in cell.outputs]
    if "varies" in cell.metadata.get("tags", []):
        return [sorted(one) for one in told]
    return [{kind: text for kind, text in one.items() if kind != PICTURE} for one in told]


def pictures(cell: NotebookNode) -> int:
    return sum(PICTURE in output.get("data", {}) for output in cell.outputs)


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_whole_and_says_what_it_is_kept_with(path: Path) -> None:
    kept, found = code(nbformat.read(path, as_version=4)), code(executed(path))
    for number, (before, after) in enumerate(zip(kept, found, strict=True), 1):
        assert before.execution_count == number
        assert said(before) == said(after), before.source
        assert pictures(before) == pictures(after)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_is_small_and_keeps_nothing_of_the_machine_it_ran_on(path: Path) -> None:
    assert path.stat().st_size < 600_000
    assert str(path.parent.parent) not in path.read_text(encoding="utf-8")
    assert all(cell.metadata.keys() <= {"tags"} for cell in code(nbformat.read(path, as_version=4)))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_links_within_the_notebooks_lead_somewhere(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    headings = {heading.replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    links = re.findall(r"\]\(([^):]+)\)", text)
    assert links
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (path.parent / link).is_file()


@pytest.mark.slow
def test_a_cell_that_asks_the_network_fails(tmp_path: Path) -> None:
    asking = "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)"
    nbformat.write(new_notebook(cells=[new_code_cell(asking)]), tmp_path / "asking.ipynb")
    with pytest.raises(CellExecutionError, match="there is no network here"):
        executed(tmp_path / "asking.ipynb")
