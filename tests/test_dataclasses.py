"""Equality of dataclasses: those that hold arrays compare by identity, since arrays have no single truth value."""

from __future__ import annotations

import re
import sys
from dataclasses import is_dataclass
from importlib import import_module
from pkgutil import walk_packages
from typing import Any, TypeGuard, get_args

import numpy as np
import pytest
from scripted_responses import create_traffic

import ratelab
from ratelab import ALGORITHMS, Quota
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Result
from ratelab.lab.traffic import Traffic


def is_class(value: object) -> TypeGuard[type]:
    return issubclass(type(value), type)  # `isinstance` would load the settings of Django


MODULES = [
    import_module(found.name)
    for found in walk_packages(ratelab.__path__, "ratelab.")
    if found.name.rpartition(".")[2] != "__main__"
]
NAMES = {name: value for module in MODULES for name, value in vars(module).items()}
"""Every name of the package, for annotations that only a type checker imports."""

DATACLASSES = {
    f"{value.__module__}.{value.__qualname__}": value
    for module in MODULES
    for value in vars(module).values()
    if is_class(value) and is_dataclass(value) and value.__module__.startswith("ratelab.")
}


def holds_arrays(annotation: Any, module: str, outer: tuple[type, ...] = ()) -> bool:
    """Check whether a value of this type is an array or has one in a field, however deep.

    `outer` are the types whose fields are being checked, which a field may name again.
    """
    if isinstance(annotation, str):
        names = {**NAMES, **vars(sys.modules[module])}
        return any(holds_arrays(names[word], module, outer) for word in re.findall(r"\w+", annotation) if word in names)
    if annotation is np.ndarray:
        return True
    if isinstance(annotation, type) and (is_dataclass(annotation) or hasattr(annotation, "_fields")):
        if annotation in outer:
            return False
        fields = vars(annotation).get("__annotations__") or annotation.__annotations__
        return any(holds_arrays(field, annotation.__module__, (*outer, annotation)) for field in fields.values())
    inner = (getattr(annotation, "__origin__", None), getattr(annotation, "__value__", None), *get_args(annotation))
    return any(holds_arrays(part, module, outer) for part in inner if part is not None)


def test_arrays_are_found_in_annotations() -> None:
    assert all(holds_arrays(kind, "ratelab") for kind in (Traffic, Result, EqualResult))
    assert not any(holds_arrays(kind, "ratelab") for kind in (Quota, *ALGORITHMS.values()))


@pytest.mark.parametrize("name", [name for name, kind in DATACLASSES.items() if holds_arrays(kind, kind.__module__)])
def test_dataclasses_with_arrays_compare_by_identity(name: str) -> None:
    assert DATACLASSES[name].__eq__ is object.__eq__
    assert DATACLASSES[name].__hash__ is object.__hash__


def test_comparing_traffic_never_raises() -> None:
    one, other = create_traffic(0, 100), create_traffic(0, 100)
    assert one == one
    assert one != other
    assert len({one, other}) == 2
