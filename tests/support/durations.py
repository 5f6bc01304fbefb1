"""Units and spans of time in nanoseconds."""

from __future__ import annotations

import time

from ratelab.lab.scenarios.arrivals import Span

SECOND, MINUTE, HOUR, DAY = 10**9, 60 * 10**9, 3600 * 10**9, 86400 * 10**9

LONG = "2500day"
"""A period whose windows by the clock of a server begin years apart, so that no test sees one end."""


def seconds(begin: float, end: float) -> Span:
    """Return the span between two times in seconds."""
    return round(begin * SECOND), round(end * SECOND)


def find_quiet_zone() -> str:
    """Return a time zone in which no day ends within two hours."""
    return "Asia/Tokyo" if time.gmtime().tm_hour < 12 else "Pacific/Honolulu"
