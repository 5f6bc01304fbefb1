"""Trace reading in tests: both readers on the same file, and a comparable form of traces."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ratelab import InputError
from ratelab.lab.traces import Trace, TraceOptions, read_traces
from ratelab.quota import NS_PER_S

START = 1_431_857_103 * NS_PER_S
"""17 May 2015, 10:05:03 UTC: the time of `invalid_traces.GOOD`."""

Read = Callable[..., Trace]
"""The fixture `read`: takes the content of a file and the fields of `TraceOptions`."""


def to_comparable(trace: Trace) -> dict[str, Any]:
    """Return all fields of a trace in a form that can be compared."""
    columns = {name: np.asarray(value).tolist() for name, value in vars(trace.traffic).items()}
    return {**vars(trace), "traffic": columns}


def read_both_ways(paths: list[Path], options: TraceOptions) -> Trace:
    """Read line by line and then block by block; check that the results or the errors are the same."""
    results = []
    for columnar in (False, True):
        try:
            trace = read_traces([*map(str, paths)], options, columnar=columnar)
            results.append(to_comparable(trace))
        except InputError as error:
            results.append({"error": str(error)})
    assert results[0] == results[1]
    if "error" in results[0]:
        raise InputError(results[0]["error"])
    return trace
