"""Decision columns, and the outcome of replaying traffic through a policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS

DECISION_DTYPE = np.dtype([(field, np.bool_ if field == "allowed" else np.int64) for field in ROW_FIELDS])
"""A row of decisions: the five fields of `Decision`."""

Decisions = NDArray[Any]
"""Rows of dtype `DECISION_DTYPE`, one for each request, in order of arrival."""

Columns = dict[str, NDArray[Any]]
"""Columns by field of `Decision`, in order of arrival: all fields, `FIGURE_FIELDS` or `ADMISSION_FIELDS`."""

ADMISSION_FIELDS = ("allowed",)
"""The field that counts of denied requests need."""

FIGURE_FIELDS = ("allowed", "delay_ns")
"""The fields that the figures of a `Result` need."""

Progress = Callable[[int], object]
"""Called from time to time with the number of further requests decided."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """The decisions of one policy for its traffic."""

    policy: Policy
    traffic: Traffic
    decisions: Columns

    @cached_property
    def rows(self) -> Decisions:
        """All decisions as rows, in memory; raise `KeyError` unless the outcome has all five columns."""
        rows = np.empty(len(self.traffic), DECISION_DTYPE)
        for field in ROW_FIELDS:
            rows[field] = self.decisions[field]
        return rows


def is_complete(fields: Iterable[str]) -> bool:
    """Return whether these are all fields of a decision."""
    return {*fields} == {*ROW_FIELDS}
