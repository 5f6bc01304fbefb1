"""Paths: the files that a person names, by themselves or by a pattern."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob, has_magic
from pathlib import Path
from stat import S_ISREG

from ratelab.errors import InputError
from ratelab.lab.traces.files import printable


def expanded(paths: Sequence[str]) -> list[str]:
    """Return the files that are named, each once; `*`, `?`, `[]` and `**` stand for what they match, in order.

    Raises `InputError` for a pattern that matches nothing.
    """
    files: dict[str, None] = {}
    for path in paths:
        a_pattern = has_magic(path) and not Path(path).exists()
        found = sorted(glob(path, recursive=True)) if a_pattern else [path]  # noqa: PTH207  (a path may be absolute)
        if not found:
            raise InputError(f"{printable(path)}: no file matches it: check the pattern")
        files |= dict.fromkeys(found)
    return list(files)


def called(path: str) -> str:
    """Return what to call a path in front of a person; `-` is standard input."""
    return "standard input" if path == "-" else printable(path)


def called_together(paths: Sequence[str]) -> str:
    """Return what to call several paths."""
    return called(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def stored_size(paths: Sequence[str]) -> int | None:
    """Return how many bytes the files hold as stored, to which `progress` adds up; None if that is not known."""
    sizes = [_size(path) for path in paths]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _size(path: str) -> int | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_size if S_ISREG(status.st_mode) else None
