"""A seventh built-in algorithm is one file and one line in the registry, and breaks no test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "ratelab" / "docs" / "algorithms.md"
REGISTRY = Path("ratelab", "algorithms", "__init__.py")
LAST = '    "gcra": Gcra,\n'


def documented_algorithm() -> str:
    """Return the example of the manual."""
    blocks: list[str] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    (block,) = (block for block in blocks if "def step(" in block)
    return block


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Copy the project, with machine code that is compiled already, and add the documented algorithm to it."""
    tree = tmp_path_factory.mktemp("seventh") / "ratelab"
    ignored = shutil.ignore_patterns(".git", ".venv", "*.pyc", ".*_cache", ".hypothesis", "*.egg-info")
    shutil.copytree(ROOT, tree, ignore=ignored)
    (tree / "ratelab" / "algorithms" / "cooldown.py").write_text(documented_algorithm(), encoding="utf-8")
    registry = tree / REGISTRY
    text = registry.read_text(encoding="utf-8")
    assert text.count(LAST) == 1
    text = text.replace(LAST, f'    "cooldown": Cooldown,\n{LAST}')
    text = text.replace("from ratelab.", "from ratelab.algorithms.cooldown import Cooldown\nfrom ratelab.", 1)
    registry.write_text(text, encoding="utf-8")
    return tree


def run_in(tree: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(tree)}
    environment.pop("PYTEST_XDIST_WORKER", None)
    command = [sys.executable, *arguments]
    return subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, timeout=3600)


@pytest.mark.slow
def test_it_is_available_by_name(tree: Path) -> None:
    done = run_in(tree, "-m", "ratelab", "simulate", "scenarios/burst.yaml", "--algo", "cooldown")
    assert (done.returncode, "cooldown" in done.stdout) == (0, True), done.stderr


LEFT_OUT = (
    *("calls", "closed_loop", "doors", "judge", "league", "pacing", "traces"),
    *("cli/test_serve_*", "stores/test_store_[!p]*"),
)
"""Folders and files of tests that name the algorithms that they use, or only use those that run in a store."""


@pytest.mark.slow
def test_no_test_fails_with_it(tree: Path) -> None:
    left_out = [f"--ignore-glob=tests/{pattern}" for pattern in LEFT_OUT]
    few = ["--hypothesis-profile", "few", "-n", "0"]  # each worker would collect all tests, next to other slow ones
    done = run_in(tree, "-m", "pytest", "-q", *few, *left_out, "--tb=short", "-rfE")
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"\d+ passed", done.stdout)
