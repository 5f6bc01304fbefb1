"""Third-party algorithms: loading from entry points or `FILE.py:CLASS`, and attribution of their errors."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from os.path import abspath, basename, isfile
from typing import TYPE_CHECKING, Any, cast

from ratelab.errors import InputError, short_repr
from ratelab.limiter import NEVER, Algorithm, Level, Row, Traits
from ratelab.quota import Quota

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "ratelab.algorithms"
"""The entry-point group in which a package names its algorithm classes."""

_STEP_RULE = (
    "; {0}.start() must return a list of integers and {0}.step() allowed, remaining, retry_after_ns, reset_after_ns "
    "and delay_ns as integers >= 0"
)

FAILURES = (Exception, SystemExit)
"""Errors of third-party algorithms, which may exit by mistake; Ctrl-C passes."""


@contextmanager
def attribute_errors(algorithm: Algorithm | type[Algorithm]) -> Iterator[None]:
    """Turn an exception of an algorithm's code into an `InputError` that names the algorithm and the line.

    An exception that its values cause elsewhere is reported with the rule for them. `InputError` passes unchanged.
    """
    try:
        yield
    except FAILURES as error:
        raise attributed_error(error, algorithm) from error


def attributed_error(error: BaseException, algorithm: Algorithm | type[Algorithm]) -> InputError:
    """Return the `InputError` that `attribute_errors` raises instead of `error`."""
    if isinstance(error, InputError):
        return error
    kind = algorithm if isinstance(algorithm, type) else type(algorithm)
    file = getattr(sys.modules.get(kind.__module__), "__file__", None)
    line = file and _line_of(error, file)
    place = f" ({file}:{line})" if line else _STEP_RULE.format(kind.__name__)
    return InputError(f"{algorithm.name} failed: {_format_error(error)}{place}")


def entry_points_by_name() -> dict[str, EntryPoint]:
    """Return the algorithms that installed packages offer, not yet loaded."""
    from importlib.metadata import entry_points  # slow to import, and most runs do not need it

    return {entry.name: entry for entry in entry_points(group=GROUP)}


def load_entry_point(entry: EntryPoint) -> type[Algorithm]:
    """Load the class that an installed package offers."""
    try:
        candidate = entry.load()
    except FAILURES as error:
        problem = f"{GROUP} entry {entry.name!r} ({entry.value}) cannot be loaded: {_format_error(error)}"
        raise InputError(f"{problem}: fix or remove its package, or name other algorithms with --algo") from error
    return _check_class(candidate, entry.value)


def load_file(reference: str) -> type[Algorithm]:
    """Run the file of `path/to/file.py:Class` and return the class. Leaves no bytecode next to the file."""
    from importlib.util import module_from_spec, spec_from_file_location

    path, _, class_name = reference.rpartition(":")
    if not isfile(path):  # noqa: PTH113  (pathlib would slow down the start of every command)
        raise InputError(f"no file {path!r}: give the name of an algorithm, or FILE.py:CLASS")
    spec = spec_from_file_location(f"plugin:{path}", path)
    assert spec is not None  # noqa: S101  (a .py file has a loader)
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[spec.name] = module_from_spec(spec)  # dataclasses look their module up there
    keep_bytecode, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    except FAILURES as error:
        line = _line_of(error, path)
        place = f"line {line}: " if line else ""
        text = _format_error(error).removesuffix(f" ({basename(path)}, line {line})")  # noqa: PTH119  (as above)
        raise InputError(f"{path} cannot be loaded: {place}{text}") from error
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
    try:
        missing = [member for member in members if not hasattr(candidate, member)]
        name, traits = getattr(candidate, "name", None), getattr(candidate, "traits", Traits())
    except Exception as error:  # of a metaclass
        raise InputError(f"{origin} cannot be loaded: {_format_error(error)}") from error
    if not isinstance(candidate, type) or missing:
        problem = f"lacks {', '.join(missing)}" if missing else "is not a class"
        raise InputError(f"{origin} {problem}: an algorithm is a class with {', '.join(members)}")
    if not isinstance(name, str) or not name.isprintable() or not name.strip():
        raise InputError(f"{origin}: its name must be printable text, got {short_repr(name)}")
    for member in members[1:]:
        if not callable(getattr(candidate, member)):
            raise InputError(f"{origin}: {member} must be a method, got {short_repr(getattr(candidate, member))}")
    if not isinstance(traits, Traits):
        raise InputError(f"{origin}: its traits must be a ratelab.Traits, got {type(traits).__name__}")
    for field, rule, holds in _TRAIT_RULES:
        value = getattr(traits, field)
        if not holds(value):
            raise InputError(f"{origin}: traits.{field} must be {rule}, got {short_repr(value)}")
    if traits.charges and not callable(getattr(candidate, "charge", None)):
        raise InputError(f"{origin}: traits.charges = True needs a method charge(state, now, cost, at)")
    if isinstance(getattr(candidate, "at_most", None), (tuple, list)):
        declared = short_repr(candidate.at_most)  # type: ignore[attr-defined]  # getattr() above
        raise InputError(
            f"{origin}: at_most = {declared} must be declared in traits = ratelab.Traits(at_most=(factor, extra))"
        )
    return cast("type[Algorithm]", candidate)


def _is_pair(value: object) -> bool:
    return isinstance(value, tuple) and [*map(type, value)] == [int, int] and value[0] >= 0


_TRAIT_RULES: tuple[tuple[str, str, Callable[[Any], bool]], ...] = (
    ("state", "a tuple of names", lambda value: type(value) is tuple and all(isinstance(name, str) for name in value)),
    ("at_most", "None or two whole numbers (factor >= 0, extra)", lambda value: value is None or _is_pair(value)),
    ("queues", "True or False", lambda value: isinstance(value, bool)),
    ("charges", "True or False", lambda value: isinstance(value, bool)),
    (
        "level",
        "None or a ratelab.limiter.Level of a text and a function",
        lambda value: (
            value is None or (isinstance(value, Level) and isinstance(value.label, str) and callable(value.read))
        ),
    ),
    ("bound", "None or a function", lambda value: value is None or callable(value)),
)


def build_checked(kind: type[Algorithm], traits: Traits, quota: Quota) -> Algorithm:
    """Build a third-party algorithm, and check it by one decision on a state that is discarded.

    Raises `InputError` for another type, a state or a row that breaks the rules, and for code that fails.
    """
    with attribute_errors(kind):
        algorithm: object = kind.from_quota(quota)
    if not isinstance(algorithm, kind):
        made, name = short_repr(algorithm), kind.__name__
        raise InputError(f"{kind.name} failed: {name}.from_quota must return an instance of {name}, got {made}")
    with attribute_errors(kind):
        state = algorithm.start(0)
        if type(state) is not list or not _are_integers(state):
            raise TypeError(f"start() returned {short_repr(state)}")
        length = len(state)
        check_row(algorithm.step(state, 0, 1))
        if len(state) != length or not _are_integers(state):
            raise TypeError(f"step() left {short_repr(state)} of a state of {length} integers")
        level = 0 if traits.level is None else traits.level.read(algorithm, state, 0)
        bound = 0 if traits.bound is None else traits.bound(algorithm, 0, 1, quota.window)
    for name, value, rule, types in (
        ("level.read", level, "a number", (int, float)),
        ("bound", bound, "a whole number", (int,)),
    ):
        if not isinstance(value, types):
            raise InputError(f"{kind.name} failed: {kind.__name__}.traits.{name} must return {rule}, got {value!r}")
    return algorithm


def _are_integers(state: Sequence[object]) -> bool:
    return all(isinstance(number, int) for number in state)


def check_row(row: Row) -> Row:
    """Return the row of a step; raise `TypeError` if a column could not hold it exactly."""
    if not (
        isinstance(row, tuple)
        and len(row) == 5
        and all(isinstance(value, int) and 0 <= value <= NEVER for value in row)
    ):
        raise TypeError(f"step() returned {short_repr(row)}")
    return row


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
