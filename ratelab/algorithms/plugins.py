"""Algorithms that are not ours: from an installed package, or from a file named on the command line."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import abspath, isfile
from typing import TYPE_CHECKING, Any, cast

from ratelab.errors import InputError
from ratelab.limiter import Algorithm

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "ratelab.algorithms"
"""The entry-point group in which a package names its algorithm classes."""


_RULE = (
    "; start() must return a list of integers and step() allowed, remaining, retry_after_ns, reset_after_ns and "
    "delay_ns as integers >= 0"
)


def is_ours(algorithm: Algorithm | type[Algorithm]) -> bool:
    """Say whether `algorithm` is one of ratelab's own."""
    kind = algorithm if isinstance(algorithm, type) else type(algorithm)
    return kind.__module__.startswith("ratelab.")


@contextmanager
def attribute_errors(algorithm: Algorithm | type[Algorithm]) -> Iterator[None]:
    """Turn what an algorithm that is not ours raises into an `InputError` that names it; ours fail as bugs do.

    What its own lines raise is told with the last of them, and what comes of its values with what they must be.
    """
    try:
        yield
    except Exception as error:
        if isinstance(error, InputError) or is_ours(algorithm):
            raise
        kind = algorithm if isinstance(algorithm, type) else type(algorithm)
        file = getattr(sys.modules.get(kind.__module__), "__file__", None)
        line = file and _line(file, error)
        raise InputError(
            f"{algorithm.name} failed: {_format_error(error)}{f' ({file}:{line})' if line else _RULE}"
        ) from error


def in_packages() -> dict[str, EntryPoint]:
    """Return what installed packages offer, by name and not yet loaded."""
    from importlib.metadata import entry_points  # costs more than all else here, and most runs need none

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def from_package(entry: EntryPoint) -> type[Algorithm]:
    """Load the class that an installed package offers."""
    try:
        offered = entry.load()
    except (Exception, SystemExit) as error:
        problem = f"{GROUP} entry {entry.name!r} ({entry.value}) cannot be loaded: {type(error).__name__}: {error}"
        raise InputError(f"{problem}: mend or remove its package, or name others with --algo") from error
    return _checked(offered, entry.value)


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
        with _no_bytecode_written():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = _line(path, error)
        place = f"line {line}: " if line else ""
        raise InputError(f"{path} cannot be loaded: {place}{_format_error(error)}") from error
    if not hasattr(module, class_name):
        classes = [name for name, one in vars(module).items() if getattr(one, "__module__", "") == spec.name]
        remedy = f"name {' or '.join(classes)}" if classes else "write one"
        raise InputError(f"{path} has no class {class_name!r}: {remedy}")
    return _checked(getattr(module, class_name), reference)


@contextmanager
def _no_bytecode_written() -> Iterator[None]:
    """Keep Python from creating a `__pycache__` folder next to a user's file."""
    before = sys.dont_write_bytecode
    sys.dont_write_bytecode = True
    try:
        yield
    finally:
        sys.dont_write_bytecode = before


def _checked(candidate: Any, origin: str) -> type[Algorithm]:
    """Refuse what lacks a part of `Algorithm`."""
    parts = ("name", "from_quota", "start", "step")
    name: object = getattr(candidate, "name", None)
    missing = [part for part in parts if not hasattr(candidate, part)]
    if not isinstance(candidate, type) or missing:
        lacks = f"lacks {', '.join(missing)}" if missing else "is no class"
        raise InputError(f"{origin} {lacks}: an algorithm is a class with {', '.join(parts)}")
    if not isinstance(name, str):
        raise InputError(f"{origin}: its name must be text, got {name!r}")
    return cast("type[Algorithm]", candidate)


def _line(path: str, error: BaseException) -> int | None:
    """Find the line of somebody else's file on which an error came up."""
    import traceback

    def is_in(file: str) -> bool:
        return abspath(file) == abspath(path)  # noqa: PTH100

    if isinstance(error, SyntaxError) and is_in(error.filename or ""):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if is_in(frame.filename)]
    return lines[-1] if lines else None


def _format_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
