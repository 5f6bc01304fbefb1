"""A comparison as plain values: one set of names for JSON, CSV and tables."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

from ratelab.lab.comparison import Comparison
from ratelab.lab.metrics import Result
from ratelab.quota import Quota

COLUMNS = tuple(field.name for field in fields(Result) if not field.name.startswith("client_"))
"""The figures of an algorithm that are one value each, in the order in which they are reported."""


def quota_object(quota: Quota) -> dict[str, Any]:
    """Return the quota with its window in seconds."""
    return {"rate": quota.rate, "burst": quota.burst, "window": quota.window / 1e9}


def result_row(result: Result) -> dict[str, Any]:
    """Return the figures of `COLUMNS`."""
    return {column: getattr(result, column) for column in COLUMNS}


def client_rows(comparison: Comparison, result: Result, most: int | None = None) -> list[dict[str, Any]]:
    """Return what each client offered and was admitted; given `most`, only that many, the most denied first."""
    denied = result.client_offered - result.client_admitted
    order = range(len(denied)) if most is None else np.argsort(-denied, kind="stable")[:most].tolist()
    return [
        {
            "client": comparison.traffic.names[index],
            "offered": int(result.client_offered[index]),
            "admitted": int(result.client_admitted[index]),
        }
        for index in order
    ]


def comparison_object(comparison: Comparison, source: dict[str, Any], most: int | None = None) -> dict[str, Any]:
    """Return the whole comparison as `--json` prints it; `source` says what the traffic came from."""
    return {
        "version": 1,
        **source,
        "quota": quota_object(comparison.quota),
        "offered": len(comparison.traffic),
        "duration": comparison.traffic.duration / 1e9,
        "results": [
            {**result_row(result), "per_client": client_rows(comparison, result, most)} for result in comparison.results
        ],
    }
