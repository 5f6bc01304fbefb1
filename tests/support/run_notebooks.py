"""Notebook runner: executes notebooks in a fresh kernel of this interpreter without network access.

As a program, `python tests/support/run_notebooks.py notebooks/*.ipynb` executes them and stores their output.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

CELL_TIMEOUT_S = 30
"""No cell takes three seconds on an idle machine, but tests share theirs."""

KERNEL_PROGRAM = "; ".join(
    (
        "import sys",
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "import no_network",
        "sys.path.pop(0)",
        "from ipykernel.kernelapp import launch_new_instance",
        "launch_new_instance()",
    )
)


class ThisInterpreter(AsyncKernelManager):
    """Kernel manager that starts this interpreter, whichever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """Return the command that starts a kernel."""
        argv = [sys.executable, "-c", KERNEL_PROGRAM, "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=argv, display_name="Python", language="python")


def execute(path: Path) -> NotebookNode:
    """Return the notebook with the output of its cells; raise `CellExecutionError` if one of them fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=CELL_TIMEOUT_S,
        kernel_manager_class=ThisInterpreter,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    return notebook


def main() -> None:
    """Execute the named notebooks, and store their output."""
    for name in sys.argv[1:]:
        notebook = execute(Path(name))
        notebook.metadata.language_info = {"name": "python"}  # without details of this machine
        nbformat.write(notebook, name)


if __name__ == "__main__":
    main()
