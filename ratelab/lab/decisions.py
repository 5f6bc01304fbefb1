"""Decisions: what an algorithm made of some traffic."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Column
from ratelab.lab.traffic import Asked
from ratelab.limiter import Decision

DECISION = np.dtype([(field, np.bool_ if field == "allowed" else np.int64) for field in Decision._fields])
"""A row of decisions: the five fields of `Decision`."""

Decisions = NDArray[Any]
"""One row of dtype `DECISION` for each request, in the order of arrival."""

Columns = dict[str, Column]
"""Columns of a `Decision` by name: those of `ADMITTED`, of `FIGURED` or all, in the order of arrival."""

Outcome = Decisions | Columns
"""At least the columns of `FIGURED`."""

ADMITTED = ("allowed",)
"""The field that says what is denied."""

FIGURED = ("allowed", "delay_ns")
"""The fields that figures are made of."""

Row = tuple[bool, int, int, int, int]
"""One decision, as `step` returns it."""

Progress = Callable[[int], object]
"""Called now and then with how many more requests have been decided."""


def is_complete(fields: Iterable[str]) -> bool:
    """Say whether these are all fields of a decision."""
    return {*fields} == {*Decision._fields}


def allocate_columns(traffic: Asked, fields: Sequence[str]) -> Columns:
    """Make room for these fields of each request's decision."""
    return {field: traffic.column(DECISION[field]) for field in fields}
