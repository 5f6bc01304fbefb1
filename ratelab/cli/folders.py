"""Folders that hold a file for each run."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from ratelab.errors import InputError
from ratelab.report.whole import check_writable


def is_folder(target: str) -> bool:
    """Say whether a folder is meant: one that is there, or a name that ends as one."""
    return target.endswith(("/", "\\")) or bool(target and Path(target).is_dir())


def check_folder(target: str) -> None:
    """Raise `InputError` unless files could be written into the folder `target`, there or to be made."""
    folder = Path(target)
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"cannot write into {target}: {folder} is no directory; name one, or a file without the slash")
    check_writable(str(folder / "any" if folder.is_dir() else folder))


def stems(names: Sequence[str], reserved: Sequence[str] = ()) -> list[str]:
    """Return a name for the files of each run: none that is `reserved`, no two alike where letters have no case."""
    taken, found = {*map(str.casefold, reserved)}, []
    for name in names:
        plain = re.sub(r"[^\w.-]+", "-", name)[:60].strip("-.") or "run"
        ways = (plain, *(f"{plain}~{number}" for number in range(2, len(names) + len(reserved) + 2)))
        stem = next(way for way in ways if way.casefold() not in taken)
        taken.add(stem.casefold())
        found.append(stem)
    return found
