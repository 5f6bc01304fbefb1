"""Candidates: loading a factory by its name, calling it, and normalizing its answers."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
import traceback
from collections.abc import Callable
from importlib.util import module_from_spec, spec_from_file_location
from math import inf, isnan, nan
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

from ratelab.errors import InputError, short_repr
from ratelab.judge.fake_clock import FakeClock, FakeLoop

CANDIDATE_ERRORS = (Exception, SystemExit)
"""Errors of a candidate, which may exit by mistake; Ctrl-C passes."""

REMEDY = "write a function FACTORY(limit, period, burst) that returns hit(key)"


class CandidateError(Exception):
    """A candidate raised an exception, or returned something that is not an answer."""


class Allotment(NamedTuple):
    """The arguments of a factory: `limit` requests in `period` seconds, and at most `burst` of them at once."""

    limit: int
    period: int
    burst: int


class HitAnswer(NamedTuple):
    """The answer to a hit."""

    allowed: bool
    retry_after: float | None
    """The announced wait in seconds; None if there is none. That of an allowed hit has no meaning."""


def load_factory(target: str) -> Any:
    """Import the factory of `MODULE:FACTORY` or `path/to/file.py:FACTORY`. Raises `InputError` if that fails."""
    place, _, name = target.rpartition(":")
    keep, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        module = _import_file(Path(place)) if place.endswith(".py") else importlib.import_module(place)
    except InputError:
        raise
    except CANDIDATE_ERRORS as error:
        if isinstance(error, ModuleNotFoundError) and error.name and f"{place}.".startswith(f"{error.name}."):
            raise InputError(f"no module {error.name!r} for {target}: give MODULE:FACTORY or FILE.py:FACTORY") from None
        raise InputError(f"{place} cannot be imported: {describe_error(error)}") from error
    finally:
        sys.dont_write_bytecode = keep
    factory: Any = module
    for part in name.split("."):
        try:
            factory = getattr(factory, part)
        except CANDIDATE_ERRORS:
            raise InputError(f"{place} has no {name!r}: {_find_remedy(module, place, name)}") from None
    if not callable(factory):
        raise InputError(f"{target} must be a function, got {describe_value(factory)}: {REMEDY}")
    _check_signature(factory, target)
    return factory


def _import_file(path: Path) -> ModuleType:
    """Import a file, as a module of its package if it has one; its folder is searched for further imports."""
    if not path.is_file():
        raise InputError(f"no file {str(path)!r}: give MODULE:FACTORY or FILE.py:FACTORY")
    folder, names = path.resolve().parent, [path.stem]
    while (folder / "__init__.py").is_file():
        folder, names = folder.parent, [folder.name, *names]
    sys.path.insert(0, str(folder))
    if len(names) > 1:
        return importlib.import_module(".".join(names))
    name = path.stem if path.stem not in sys.modules else f"judged_{path.stem}"
    spec = spec_from_file_location(name, path)
    assert spec is not None  # noqa: S101  (a .py file has a loader)
    assert spec.loader is not None  # noqa: S101
    module = sys.modules[name] = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _find_remedy(module: ModuleType, place: str, name: str) -> str:
    """Return the remedy for a missing factory: the file of a module whose name another one has, or a new function."""
    file = Path(f"{place.replace('.', '/')}.py")
    if file.is_file() and file.resolve() != Path(getattr(module, "__file__", None) or "").resolve():
        return f"did you mean {file}:{name}?"
    return REMEDY


def _check_signature(factory: Any, target: str) -> None:
    """Raise `InputError` if a factory cannot take the three arguments."""
    try:
        inspect.signature(factory).bind(1, 1, 1)
    except TypeError as error:
        raise InputError(f"{target} must take limit, period and burst ({error}): {REMEDY}") from None
    except ValueError:  # without a signature, as some functions of C
        return


class JudgedLimiter:
    """A factory and the event loop that runs the coroutines of its limiters."""

    def __init__(self, factory: Any, clock: FakeClock, loop: FakeLoop) -> None:
        self.factory = factory
        self._clock = clock
        self._loop = loop
        self.is_async = False
        """Whether hits have been coroutines so far."""

    def create(self, *arguments: Any, method: str | None = None) -> Callable[[str], Any]:
        """Return the `hit` of a new limiter; raise `CandidateError` if the factory does not return one."""
        make = self.factory if method is None else getattr(self.factory, method)
        name = "the factory" if method is None else f"FACTORY.{method}"
        hit = self._call(lambda: self._finish(make(*arguments)), name)
        if not callable(hit):
            raise CandidateError(f"{name} returned {describe_value(hit)}, not a function hit(key)")
        if inspect.iscoroutinefunction(hit) or inspect.iscoroutinefunction(getattr(hit, "__call__", None)):  # noqa: B004
            self.is_async = True
        return hit  # type: ignore[no-any-return]

    def hit(self, hit: Callable[[str], Any], key: str) -> HitAnswer:
        """Call `hit(key)`, wait for a coroutine, and return the answer."""
        return normalize(self._call(lambda: self._finish(hit(key)), "hit"))

    def hit_each(self, hit: Callable[[str], Any], keys: list[str]) -> int:
        """Hit each key once, with one entry into the event loop, and return how many were allowed."""
        if not self.is_async:
            return self._call(lambda: sum(normalize(hit(key)).allowed for key in keys), "hit")  # type: ignore[no-any-return]

        async def hit_all() -> int:
            return sum([normalize(await hit(key)).allowed for key in keys])

        return self._call(lambda: self._loop.run_until_complete(hit_all()), "hit")  # type: ignore[no-any-return]

    def run(self, work: Callable[[], Any], name: str = "hit") -> Any:
        """Call `work`, which runs code of the candidate, and attribute its errors to `name`."""
        return self._call(work, name)

    def _finish(self, result: Any) -> Any:
        if not inspect.isawaitable(result):
            return result
        self.is_async = True

        async def wait() -> Any:
            return await result

        return self._loop.run_until_complete(wait())

    def _call(self, work: Callable[[], Any], name: str) -> Any:
        try:
            return work()
        except CandidateError:
            raise
        except CANDIDATE_ERRORS as error:
            raise CandidateError(f"{name} raised {describe_error(error)}") from error
        finally:
            if self._clock.problem is not None:
                self._clock.reject(self._clock.problem)


def normalize(result: Any) -> HitAnswer:
    """Return an answer of a candidate as an `HitAnswer`; raise `CandidateError` unless it is a pair."""
    if not isinstance(result, (tuple, list)) or len(result) != 2:
        raise CandidateError(f"hit returned {describe_value(result)}: it must return (allowed, retry_after)")
    allowed, retry_after = result
    if isinstance(allowed, (str, bytes)) or allowed is None:
        raise CandidateError(f"hit returned allowed = {describe_value(allowed)}: it must be True or False")
    if retry_after is None or allowed:
        return HitAnswer(bool(allowed), None)
    if hasattr(retry_after, "total_seconds"):
        retry_after = retry_after.total_seconds()
    seconds = read_number(retry_after)
    if isnan(seconds) or seconds == -inf:
        raise CandidateError(f"hit returned retry_after = {describe_value(retry_after)}: it must be seconds, or None")
    return HitAnswer(False, seconds)


def read_number(value: Any) -> float:
    """Return a value of a candidate as a float; NaN if it is not a number."""
    try:
        return nan if isinstance(value, (str, bytes, bool)) else float(value)
    except (TypeError, ValueError, OverflowError):
        return nan


def describe_value(value: Any) -> str:
    """Return the short form of a value, without addresses."""
    return _hide_addresses(short_repr(value))


def _hide_addresses(text: str) -> str:
    return re.sub(r"0x[0-9a-fA-F]+", "0x...", text)


def describe_error(error: BaseException) -> str:
    """Return the type, the message and the line of an exception, without addresses, on one line."""
    syntax = error if isinstance(error, SyntaxError) and error.filename else None
    text = _hide_addresses(" ".join(str(syntax.msg if syntax else error).split()))
    text = text if len(text) <= 100 else f"{text[:97]}..."
    frames = traceback.extract_tb(error.__traceback__)
    outer = [frame for frame in frames if "ratelab/judge" not in frame.filename.replace("\\", "/")]
    place = f" ({Path(outer[-1].filename).name}:{outer[-1].lineno})" if outer else ""
    if syntax and syntax.filename:
        place = f" ({Path(syntax.filename).name}:{syntax.lineno})"
    return f"{type(error).__name__}{': ' if text else ''}{text}{place}"
