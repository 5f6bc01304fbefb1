"""States laid down one behind the other, as machine code."""

from __future__ import annotations

from typing import Any

from ratelab.lab.compiled.processor import jitted


def _lay(first: Any, begins: Any, numbers: Any) -> None:
    """Let a state begin there, each as much of `first` as there is room for; the last of `begins` is the end."""
    for n in range(len(begins) - 1):
        numbers[begins[n] : begins[n + 1]] = first[: begins[n + 1] - begins[n]]


lay: Any = jitted(_lay)
