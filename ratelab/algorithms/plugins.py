"""Third-party algorithms: loading from entry points or `FILE.py:CLASS`, and attribution of their errors."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from os.path import abspath, isfile
from typing import TYPE_CHECKING, Any, cast

from ratelab.errors import InputError
from ratelab.limiter import Algorithm, Traits

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "ratelab.algorithms"
"""The entry-point group in which a package names its algorithm classes."""

_STEP_RULE = (
    "; start() must return a list of integers and step() allowed, remaining, retry_after_ns, reset_after_ns and "
    "delay_ns as integers >= 0"
)


@contextmanager
def attribute_errors(algorithm: Algorithm | type[Algorithm]) -> Iterator[None]:
    """Turn an exception of an algorithm's code into an `InputError` that names the algorithm and the line.

    An exception that its values cause elsewhere is reported with the rule for them. `InputError` passes unchanged.
    """
    try:
        yield
    except Exception as error:
        raise attributed_error(error, algorithm) from error


def attributed_error(error: Exception, algorithm: Algorithm | type[Algorithm]) -> InputError:
    """Return the `InputError` that `attribute_errors` raises instead of `error`."""
    if isinstance(error, InputError):
        return error
    kind = algorithm if isinstance(algorithm, type) else type(algorithm)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    line = file and _line_of(error, file)
    place = f" ({file}:{line})" if line else _STEP_RULE
    return InputError(f"{algorithm.name} failed: {_format_error(error)}{place}")


def entry_points_by_name() -> dict[str, EntryPoint]:
    """Return the algorithms that installed packages offer, not yet loaded."""
    from importlib.metadata import entry_points  # slow to import, and most runs do not need it

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load_entry_point(entry: EntryPoint) -> type[Algorithm]:
    """Load the class that an installed package offers."""
    try:
        candidate = entry.load()
    except (Exception, SystemExit) as error:
        problem = f"{GROUP} entry {entry.name!r} ({entry.value}) cannot be loaded: {_format_error(error)}"
        raise InputError(f"{problem}: fix or remove its package, or name other algorithms with --algo") from error
    return _check_class(candidate, entry.value)


def load_file(reference: str) -> type[Algorithm]:
    """Run the file of `path/to/file.py:Class` and return the class. Leaves no bytecode next to the file."""
    from importlib.util import module_from_spec, spec_from_file_location

    path, _, class_name = reference.rpartition(":")
    if not isfile(path):  # noqa: PTH113  (pathlib would slow down the start of every command)
        raise InputError(f"no file {path!r}: give --algo a name or FILE.py:CLASS")
    spec = spec_from_file_location(f"plugin:{path}", path)
    assert spec is not None  # noqa: S101  (a .py file has a loader)
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up there
    keep_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        line = _line_of(error, path)
        place = f"line {line}: " if line else ""
        raise InputError(f"{path} cannot be loaded: {place}{_format_error(error)}") from error
    finally:
        sys.dont_write_bytecode = keep_bytecode
    if not hasattr(module, class_name):
        classes = [name for name, value in vars(module).items() if getattr(value, "__module__", "") == spec.name]
        remedy = f"name {' or '.join(classes)}" if classes else "write one"
        raise InputError(f"{path} has no class {class_name!r}: {remedy}")
    return _check_class(getattr(module, class_name), reference)


def _check_class(candidate: Any, origin: str) -> type[Algorithm]:
    """Return `candidate` if it has every member of `Algorithm`; raise `InputError` otherwise."""
    members = ("name", "from_quota", "start", "step")
    missing = [member for member in members if not hasattr(candidate, member)]
    if not isinstance(candidate, type) or missing:
        problem = f"lacks {', '.join(missing)}" if missing else "is not a class"
        raise InputError(f"{origin} {problem}: an algorithm is a class with {', '.join(members)}")
    name: object = candidate.name  # type: ignore[attr-defined]  # hasattr() above
    if not isinstance(name, str):
        raise InputError(f"{origin}: its name must be text, got {name!r}")
    traits: object = getattr(candidate, "traits", Traits())
    if not isinstance(traits, Traits):
        raise InputError(f"{origin}: its traits must be a ratelab.Traits, got {type(traits).__name__}")
    return cast("type[Algorithm]", candidate)


def _line_of(error: BaseException, path: str) -> int | None:
    """Return the last line of the file at `path` in an error's traceback; None if it is not there."""
    import traceback

    def is_path(file: str) -> bool:
        return abspath(file) == abspath(path)  # noqa: PTH100

    if isinstance(error, SyntaxError) and is_path(error.filename or ""):
        return error.lineno
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if is_path(frame.filename)]
    return lines[-1] if lines else None


def _format_error(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".removesuffix(": ")
