"""How well a trace could be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from ratelab.lab.traces import Trace
from ratelab.report.summary import counted


def reading_object(trace: Trace) -> dict[str, Any]:
    """Return what `--json` says of the reading; `start` is in nanoseconds since 1970."""
    return {
        "format": trace.format,
        "lines": trace.lines,
        "repeated": trace.repeated,
        "unparsed": trace.unparsed,
        "reordered": trace.reordered,
        "whole_seconds": trace.whole_seconds,
        "start": trace.traffic.origin,
    }


def reading_notes(trace: Trace, within_second: str) -> tuple[str, ...]:
    """Return the lines that a person should know before believing the figures."""
    notes = [f"{counted(trace.lines, 'line')} from {_moment(trace.traffic.origin)}"]
    if trace.repeated:
        notes.append(f"{counted(trace.repeated, 'line')} left out: the same requests as decided by other algorithms")
    if trace.unparsed:
        notes.append(f"{counted(trace.unparsed, 'line')} left out, beginning with:")
        notes += [f"  line {reject}" for reject in trace.rejects]
    if trace.reordered:
        notes.append(f"{counted(trace.reordered, 'request')} out of order, sorted by time")
    if trace.whole_seconds and within_second == "spread":
        notes.append("times are whole seconds: the requests of a second are spread evenly over it (--within-second)")
    elif trace.whole_seconds:
        notes.append("times are whole seconds: the requests of a second all stand at its start (--within-second)")
    return tuple(notes)


def _moment(nanoseconds: int) -> str:
    try:
        moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return f"{nanoseconds} ns since 1970"
    return f"{moment:%Y-%m-%d %H:%M:%S} UTC on"
