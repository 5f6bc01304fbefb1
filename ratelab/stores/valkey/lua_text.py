"""The text of Lua scripts: the files of this package, and those next to algorithms."""

from __future__ import annotations

import inspect
import re
import sys
from functools import cache
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING

from ratelab.algorithms.penalty import Penalized
from ratelab.errors import InputError
from ratelab.limiter import Algorithm

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

CHARGE = re.compile(r"(^--[^\n]*\n)*^local function charge\(.*(?=^return decide)", re.DOTALL | re.MULTILINE)
"""The function `charge` of an algorithm, with its comment."""

_LAST_LINE = "return decide(step, read, write)\n"
_INNER_CHARGE = "local inner_charge = charge\n"


def join_text(*parts: str) -> str:
    """Return the text of a script: the prelude that all scripts share, and its other parts."""
    return "\n".join([load_lua("prelude.lua"), *parts])


@cache
def load_lua(name: str) -> str:
    """Return the text of a file of this package."""
    return resources.files("ratelab.stores.valkey").joinpath(name).read_text(encoding="utf-8")


@cache
def load_text(kind: type[Algorithm]) -> str:
    """Return the text of an algorithm."""
    return _load_penalized(kind) if issubclass(kind, Penalized) else _load_file(kind)


@cache
def has_text(kind: type[Algorithm]) -> bool:
    """Return whether an algorithm has a script next to it."""
    return _find_file(kind).is_file()


def _load_file(kind: type[Algorithm]) -> str:
    file = _find_file(kind)
    try:
        return file.read_text(encoding="utf-8")
    except OSError:
        raise InputError(
            f"{kind.name} cannot run in a store without a script {file.name} next to "
            f"{file.name.removesuffix('.lua')}.py: write one, or keep the quota in memory"
        ) from None


def _find_file(kind: type[Algorithm]) -> Traversable:
    """Return the script next to a class, whose module may be one of a package in an archive, or have no package."""
    path = Path(inspect.getfile(kind)).with_suffix(".lua")
    package = getattr(sys.modules[kind.__module__], "__package__", None)
    folder = resources.files(package) if package in sys.modules else path.parent
    return folder.joinpath(path.name)


def _load_penalized(kind: type[Penalized]) -> str:
    """Return the text of an algorithm with a penalty; its function `charge` comes last, as in any other."""
    text, penalty = load_text(kind.kind), kind.penalty.in_microseconds()
    charge = CHARGE.search(text)
    if not text.endswith(_LAST_LINE) or charge is None:
        raise InputError(
            f"{kind.name} with a penalty cannot run in a store, since it writes its states in parts: "
            "use another algorithm, such as sliding-counter, or keep the quota in memory"
        )
    growth = penalty.growth
    numbers = (penalty.after, penalty.within, penalty.length, growth.numerator, growth.denominator, penalty.at_most)
    step = CHARGE.sub("", text).removesuffix(_LAST_LINE)
    around = _load_file(Penalized).replace(_INNER_CHARGE, charge[0] + _INNER_CHARGE)
    return f"{step}local PENALTY = {{ {', '.join(map(str, numbers))} }}\n{around}"
