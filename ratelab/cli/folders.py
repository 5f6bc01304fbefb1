"""Folders that hold a file for each run."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from ratelab.report.whole import check_writable


def is_folder(target: str) -> bool:
    """Say whether a folder is meant: one that is there, or a name that ends as one."""
    return target.endswith(("/", "\\")) or Path(target).is_dir()


def check_folder(target: str) -> None:
    """Raise `InputError` unless files could be written into the folder `target`, there or to be made."""
    folder = Path(target)
    check_writable(str(folder / "any" if folder.is_dir() else folder))


def stems(names: Sequence[str]) -> list[str]:
    """Return a name for the files of each run, no two alike."""
    found: list[str] = []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name)[:60].strip("-.") or "run"
        same = sum(1 for stem in found if stem.rpartition("~")[0] == plain or stem == plain)
        found.append(f"{plain}~{same + 1}" if same else plain)
    return found
