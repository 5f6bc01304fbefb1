"""Notebooks: they run from the first cell to the last without a network, and contain the output of such a run."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_notebook
from run_notebooks import execute

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
PICTURE = "image/png"  # its pixels depend on the versions of libraries; its title is stored next to it as text

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def output_of(cell: NotebookNode) -> list[Any]:
    """Return the output of a cell without pictures; if the cell takes measurements, only the kinds of output."""
    outputs = [output.get("data", {output.get("name"): output.get("text")}) for output in cell.outputs]
    if "varies" in cell.metadata.get("tags", []):
        return [sorted(output) for output in outputs]
    return [{kind: text for kind, text in output.items() if kind != PICTURE} for output in outputs]


def count_pictures(cell: NotebookNode) -> int:
    return sum(PICTURE in output.get("data", {}) for output in cell.outputs)


@pytest.mark.slow
@each_notebook
def test_a_notebook_runs_and_contains_its_output(path: Path) -> None:
    stored, executed = code_cells(nbformat.read(path, as_version=4)), code_cells(execute(path))
    for number, (before, after) in enumerate(zip(stored, executed, strict=True), 1):
        assert before.execution_count == number
        assert output_of(before) == output_of(after), before.source
        assert count_pictures(before) == count_pictures(after)


@each_notebook
def test_a_notebook_is_small_and_contains_no_details_of_a_machine(path: Path) -> None:
    assert path.stat().st_size < 600_000
    assert str(path.parent.parent) not in path.read_text(encoding="utf-8")
    assert all(cell.metadata.keys() <= {"tags"} for cell in code_cells(nbformat.read(path, as_version=4)))


@each_notebook
def test_links_between_notebooks_have_a_target(path: Path) -> None:
    text = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    headings = {heading.replace(" ", "-") for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}
    links = re.findall(r"\]\(([^):]+)\)", text)
    assert links
    for link in links:
        assert link[1:] in headings if link.startswith("#") else (path.parent / link).is_file()


@pytest.mark.slow
def test_a_cell_cannot_use_the_network(tmp_path: Path) -> None:
    connecting = "import socket\nsocket.create_connection(('192.0.2.1', 80), 1)"
    nbformat.write(new_notebook(cells=[new_code_cell(connecting)]), tmp_path / "connecting.ipynb")
    with pytest.raises(CellExecutionError, match="network access is denied"):
        execute(tmp_path / "connecting.ipynb")
