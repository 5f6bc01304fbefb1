"""Reproductions of broken promises: scripts of at most ten lines that need only the package and the real clock."""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from league import HOME, find_version, read_packages

REPRODUCTIONS = HOME / "reproductions"

OUTPUTS = HOME / "outputs.json"

TIME_LIMIT_S = 120

MAX_LINES = 10


def find_reproduction(package: str, promise: str) -> Path | None:
    """Return the reproduction of a broken promise, or None."""
    path = REPRODUCTIONS / f"{package}-{promise}.py"
    return path if path.is_file() else None


def read_outputs() -> dict[str, Any]:
    """Return the recorded outputs by the name of the reproduction."""
    outputs: dict[str, Any] = json.loads(OUTPUTS.read_text("utf-8")) if OUTPUTS.is_file() else {}
    return outputs


def run_reproductions(only: str | None, report: Callable[[str], object]) -> None:
    """Run the reproductions of the installed packages and record their output."""
    outputs = read_outputs()
    names = {package.name for package in read_packages() if only in (None, package.name)}
    paths = [path for path in sorted(REPRODUCTIONS.glob("*.py")) if _package_of(path) in names]
    with ThreadPoolExecutor(4) as pool:
        for path, output in zip(paths, pool.map(_run, paths), strict=True):
            report(f"{path.stem}:\n{output}")
            outputs[path.stem] = {
                "output": output,
                "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
                "version": find_version(_package_of(path)),
            }
    OUTPUTS.write_text(json.dumps(outputs, indent=1, ensure_ascii=False, sort_keys=True) + "\n", "utf-8")


def _package_of(path: Path) -> str:
    return path.stem.rpartition("-")[0]


def _run(path: Path) -> str:
    try:
        done = subprocess.run([sys.executable, path], capture_output=True, text=True, timeout=TIME_LIMIT_S, check=False)
    except subprocess.TimeoutExpired:
        return f"(not ended within {TIME_LIMIT_S} s)"
    return done.stdout.strip() if done.returncode == 0 else (done.stderr.strip().splitlines() or ["failed"])[-1]
