"""Mutants: objects with one mistake, such as functions compiled from their source with one change."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from inspect import getsource
from textwrap import dedent
from types import ModuleType
from typing import Any, NamedTuple

MUTANT_FILE = "<mutant"
"""How the name of the file of a mutant begins."""


class Mutant(NamedTuple):
    """A buggy object, and the attribute that it replaces."""

    owner: type | ModuleType
    attribute: str
    replacement: object


def mutate(owner: type | ModuleType, attribute: str, right: str, wrong: str) -> Mutant:
    """Return the mutant of a function with `wrong` in place of `right`."""
    return Mutant(owner, attribute, rewritten(getattr(owner, attribute), right, wrong))


def rewritten(function: Callable[..., Any], right: str, wrong: str) -> Any:
    """Return `function` compiled from its source with `wrong` in place of `right`."""
    source = dedent(getsource(function))
    assert right in source, f"{function.__qualname__} no longer contains {right!r}: update this mutant"
    names = dict(vars(sys.modules[function.__module__]))
    mutated, file = source.replace(right, wrong), f"{MUTANT_FILE} {function.__qualname__} with {wrong!r}>"
    linecache.cache[file] = (len(mutated), None, mutated.splitlines(keepends=True), file)  # for `inspect.getsource`
    exec(compile(mutated, file, "exec"), names)  # noqa: S102  (source of this repository)
    return names[function.__name__]
