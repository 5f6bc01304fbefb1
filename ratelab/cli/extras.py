"""Libraries that not every installation has."""

from __future__ import annotations

from importlib.util import find_spec

from ratelab.errors import InputError, install_hint


def require(command: str, **extras: tuple[str, ...]) -> None:
    """Raise `InputError`, which says what to install, unless a command has the modules that it needs of each extra."""
    missing = {module: extra for extra in extras for module in extras[extra] if find_spec(module) is None}
    if missing:
        hint = install_hint(*dict.fromkeys(missing.values()))
        raise InputError(f"ratelab {command} needs {' and '.join(missing)}: {hint}")
