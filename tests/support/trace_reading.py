"""What the tests of traces share: how one is read, in every way there is, and when its good line was written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ratelab import InputError
from ratelab.lab.traces import Trace, TraceOptions, read_traces

SECOND = 10**9
START = 1_431_857_103 * SECOND
"""17 May 2015, 10:05:03 UTC."""

Read = Callable[..., Trace]


def comparable(trace: Trace) -> dict[str, Any]:
    """Return all that a trace says, in a form that can be compared."""
    columns = {name: np.asarray(value).tolist() for name, value in vars(trace.traffic.whole()).items()}
    return {**vars(trace), "traffic": columns}


def both_ways(paths: list[Path], options: TraceOptions) -> Trace:
    """Read line by line and then block by block, and see that the two agree in everything, mistakes included."""
    told = []
    for columnar in (False, True):
        try:
            trace = read_traces([*map(str, paths)], options, columnar=columnar)
            told.append(comparable(trace))
        except InputError as error:
            told.append({"error": str(error)})
    assert told[0] == told[1]
    if "error" in told[0]:
        raise InputError(told[0]["error"])
    return trace
