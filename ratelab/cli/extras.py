"""Libraries that not every installation has."""

from __future__ import annotations

from importlib.util import find_spec

from ratelab.errors import InputError


def require(command: str, extra: str, *modules: str) -> None:
    """Raise `InputError`, which says what to install, unless all modules that a command needs are there."""
    missing = [module for module in modules if find_spec(module) is None]
    if missing:
        raise InputError(f"ratelab {command} needs {' and '.join(missing)}: pip install 'ratelab[{extra}]'")
