"""Algorithms that are not ours: from an installed package, or from a file named on the command line."""

from __future__ import annotations

import sys
from os.path import isfile
from typing import Any, cast

from ratelab.errors import InputError
from ratelab.limiter import Algorithm

GROUP = "ratelab.algorithms"
"""The entry-point group in which a package names its algorithm classes."""


def from_packages() -> dict[str, type[Algorithm]]:
    """Load the classes that installed packages offer, by their entry points' names."""
    from importlib.metadata import entry_points  # costs more than all else here, and most runs need none

    found = {}
    for entry in entry_points(group=GROUP):
        try:
            found[entry.name] = _checked(entry.load(), entry.value)
        except InputError:
            raise
        except Exception as error:
            raise InputError(_failure(f"{GROUP} entry {entry.name!r} ({entry.value})", error)) from error
    return found


def from_file(reference: str) -> type[Algorithm]:
    """Load the class that `path/to/file.py:Class` names, running the file."""
    from importlib.util import module_from_spec, spec_from_file_location

    path, _, class_name = reference.rpartition(":")
    if not isfile(path):  # noqa: PTH113  (pathlib would slow the start of every command)
        raise InputError(f"no file {path!r}: give --algo a name or FILE.py:CLASS")
    spec = spec_from_file_location(f"outside:{path}", path)
    assert spec is not None  # noqa: S101  (a .py file has a loader)
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[spec.name] = module_from_spec(spec)  # where dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise InputError(_failure(path, error)) from error
    if not hasattr(module, class_name):
        raise InputError(f"{path} has no class {class_name!r}")
    return _checked(getattr(module, class_name), reference)


def _checked(candidate: Any, origin: str) -> type[Algorithm]:
    """Refuse what lacks a part of `Algorithm`."""
    parts = ("name", "from_quota", "start", "step")
    missing = [part for part in parts if not hasattr(candidate, part)]
    if not isinstance(candidate, type) or missing:
        lacks = f"lacks {', '.join(missing)}" if missing else "is no class"
        raise InputError(f"{origin} {lacks}: an algorithm is a class with {', '.join(parts)}")
    return cast("type[Algorithm]", candidate)


def _failure(origin: str, error: Exception) -> str:
    """Say on one line what went wrong in somebody else's file, and where."""
    import traceback

    frames = traceback.extract_tb(error.__traceback__)
    line = error.lineno if isinstance(error, SyntaxError) else frames[-1].lineno if frames else None
    return f"{origin} cannot be loaded: line {line}: {type(error).__name__}: {error}"
