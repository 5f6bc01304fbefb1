"""Marks for the parameters of a test that only the slow run needs, since others stand for them in the fast one."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest

COMMON_FORMATS = ("combined", "haproxy", "uvicorn", "traefik-json", "jsonl", "logfmt", "w3c", "csv")
"""Trace formats of each kind: text, JSON lines, name and value, columns."""


def mark_slow(values: Iterable[Any], fast: Collection[Any]) -> list[Any]:
    """Return the parameters of a test; all but those in `fast` are marked `slow`."""
    return [value if value in fast else pytest.param(value, marks=pytest.mark.slow) for value in values]
