"""Units and spans of time in nanoseconds."""

from __future__ import annotations

from ratelab.lab.scenarios.arrivals import Span

SECOND, MINUTE, HOUR, DAY = 10**9, 60 * 10**9, 3600 * 10**9, 86400 * 10**9


def seconds(begin: float, end: float) -> Span:
    """Return the span between two times in seconds."""
    return round(begin * SECOND), round(end * SECOND)
