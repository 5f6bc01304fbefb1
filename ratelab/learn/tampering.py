"""Whether an answer has left alone what examines it."""

from __future__ import annotations

import builtins
import sys


def names() -> dict[str, object]:
    """Return what each name of this package's modules and classes stands for, and each built-in one."""
    modules = [module for name, module in sys.modules.items() if name.partition(".")[0] == "ratelab"]
    classes = [one for module in modules for one in vars(module).values() if isinstance(one, type) and _is_ours(one)]
    owners: dict[str, object] = {module.__name__: module for module in [builtins, *modules]}
    owners |= {f"{one.__module__}.{one.__qualname__}": one for one in classes}
    return {f"{owner}.{name}": value for owner, one in owners.items() for name, value in vars(one).items()}


def changed(before: dict[str, object]) -> str | None:
    """Return a name that no longer stands for what it did; None if all do."""
    after = names()
    return next((name for name, value in before.items() if after.get(name) is not value), None)


def _is_ours(kind: type) -> bool:
    return kind.__module__.partition(".")[0] == "ratelab"
