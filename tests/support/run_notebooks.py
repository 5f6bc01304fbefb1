"""Run notebooks whole, in a fresh kernel of this interpreter that is kept from the network.

As a program, `python tests/support/run_notebooks.py notebooks/*.ipynb` runs them and keeps what they put out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbformat import NotebookNode

LONGEST = 30
"""Seconds after which a cell is given up; by itself none takes three, but tests share their machine."""

STARTER = "; ".join(
    (
        "import sys",
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})",
        "import offline",
        "sys.path.pop(0)",
        "from ipykernel.kernelapp import launch_new_instance",
        "launch_new_instance()",
    )
)


class Kernels(AsyncKernelManager):
    """Starts this very interpreter, whatever kernels are installed."""

    @property
    def kernel_spec(self) -> KernelSpec:
        """Say how a kernel is started."""
        argv = [sys.executable, "-c", STARTER, "-f", "{connection_file}", "--log-level=ERROR"]
        return KernelSpec(argv=argv, display_name="Python", language="python")


def executed(path: Path) -> NotebookNode:
    """Return the notebook with what its cells put out now; raise `CellExecutionError` if one of them fails."""
    notebook = nbformat.read(path, as_version=4)
    NotebookClient(
        notebook,
        timeout=LONGEST,
        kernel_manager_class=Kernels,
        coalesce_streams=True,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    ).execute()
    return notebook


def main() -> None:
    """Run the notebooks named and keep what they put out."""
    for name in sys.argv[1:]:
        notebook = executed(Path(name))
        notebook.metadata.language_info = {"name": "python"}  # the rest is of this machine
        nbformat.write(notebook, name)


if __name__ == "__main__":
    main()
