"""A seventh built-in algorithm is one file and one line in the registry, and breaks no test."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ratelab import ALGORITHMS

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


NAMES_REGISTRY = re.compile(
    r"\b(ALGORITHMS|BUILT_IN|CHARGED|every_algorithm|compare_unusual)\b"
    r'|\bavailable\(|\bkind: type\b|nknown algorithm|"--algo", "all"'
)
"""Text that stands in files of tests that run or list all algorithms, or misspell one."""

BY_FILES = ("tests", "tests/algorithms")
"""Folders of tests that look at all files, or at the registry itself."""

NEEDS_A_SCRIPT = re.compile(r"tests/(calls|closed_loop|doors|judge|pacing|stores/test_store_[^p])")
"""Files of tests whose algorithms also run in a store or in a loop, which takes more than a file and a line."""


def find_affected(tree: Path) -> list[str]:
    """Return the files whose tests a further algorithm may affect; the others name each algorithm that they use."""
    files = {path.relative_to(tree).as_posix(): path for path in sorted((tree / "tests").rglob("test_*.py"))}
    return [
        file
        for file, path in files.items()
        if not NEEDS_A_SCRIPT.match(file)
        and (file.rpartition("/")[0] in BY_FILES or NAMES_REGISTRY.search(path.read_text(encoding="utf-8")))
    ]


@pytest.mark.slow
def test_no_test_fails_with_it(tree: Path) -> None:
    others = " or ".join(f"[{name}" for name in ALGORITHMS)  # others alone show nothing new
    few = ["--hypothesis-profile", "few", "-n", "0"]  # each worker would collect all tests, next to other slow ones
    chosen = ["-k", f"cooldown or not ({others})", *find_affected(tree)]
    done = run_in(tree, "-m", "pytest", "-q", *few, "--tb=short", "-rfE", *chosen)
    assert done.returncode == 0, done.stdout[-5000:]
    assert re.search(r"\d{4} passed", done.stdout)
