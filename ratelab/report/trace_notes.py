"""Notes on the reading of a trace, and on the replay of a recording."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ratelab.lab.decisions import Decisions
from ratelab.lab.recording import Recording, digest
from ratelab.lab.traces import Trace
from ratelab.report.numbers import pluralize


def serialize_reading(trace: Trace) -> dict[str, Any]:
    """Return the fields of `--json` about the trace; `start` is in nanoseconds since 1970."""
    return {
        "format": trace.format,
        "lines": trace.lines,
        "repeated": trace.repeated,
        "anonymous": trace.anonymous,
        "filtered": dict(trace.filtered),
        "unparsed": trace.unparsed,
        "reordered": trace.reordered,
        "whole_seconds": trace.whole_seconds,
        "start": trace.traffic.origin,
        "notes": list(trace.notes),
    }


def describe_reading(trace: Trace, within_second: str) -> tuple[str, ...]:
    """Return notes on the trace that affect how far the figures can be trusted."""
    notes = [f"{pluralize(trace.lines, 'line')} from {_format_start(trace.traffic.origin)}"]
    if trace.repeated:
        notes.append(f"{pluralize(trace.repeated, 'line')} left out: the same requests, decided by other algorithms")
    if trace.anonymous:
        notes.append(f"{pluralize(trace.anonymous, 'line')} left out: no client in the field of --key")
    notes += [f"{pluralize(count, 'request')} left out by {name}" for name, count in trace.filtered]
    if trace.unparsed:
        notes.append(f"{pluralize(trace.unparsed, 'line')} left out, beginning with:")
        notes += [f"  line {reject}" for reject in trace.rejects]
    if trace.reordered:
        notes.append(f"{pluralize(trace.reordered, 'request')} out of order, sorted by time")
    notes += trace.notes
    if any("whole minutes" in note for note in trace.notes):
        return tuple(notes)
    if trace.whole_seconds and within_second == "spread":
        notes.append("times are whole seconds: the requests of a second are spread evenly over it (--within-second)")
    elif trace.whole_seconds:
        notes.append("times are whole seconds: all requests of a second are at its start (--within-second)")
    return tuple(notes)


def _format_start(nanoseconds: int) -> str:
    try:
        start = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=nanoseconds // 1000)
    except OverflowError:
        return f"{nanoseconds} ns since 1970"
    return f"{start:%Y-%m-%d %H:%M:%S} UTC on"


def serialize_recording(recording: Recording, replayed: Decisions) -> dict[str, Any]:
    """Return the comparison of a recording with its replay for `--json`."""
    return {
        "algorithm": recording.algorithm,
        "decisions": len(replayed),
        "differing": int(np.count_nonzero(recording.decisions != replayed)),
        "shared": recording.shared,
        "unfinished": recording.truncated,
        "recorded_sha256": digest(recording.decisions),
        "replayed_sha256": digest(replayed),
    }


def describe_recording(recording: Recording, replayed: Decisions) -> tuple[str, ...]:
    """Return the comparison as text: both digests, the number of differences and the first of them."""
    count = pluralize(len(replayed), "decision")
    notes = [f"sha256 recorded {digest(recording.decisions)}", f"sha256 replayed {digest(replayed)}"]
    differing = np.flatnonzero(recording.decisions != replayed)
    if len(differing):
        first = int(differing[0])
        notes.append(f"{len(differing):,} of {count} by {recording.algorithm} differ, the first in line {first + 2}:")
        notes.append(f"  recorded: {_format_decision(recording.decisions, first)}")
        notes.append(f"  replayed: {_format_decision(replayed, first)}")
    else:
        notes.append(f"{count} by {recording.algorithm} replayed, no differences")
    if recording.shared:
        notes.append(
            f"{pluralize(recording.shared, 'decision')} on buckets that keys shared because the limiter was full "
            "(serve --max-keys); a replay by key cannot reproduce them"
        )
    if recording.truncated:
        notes.append("last line incomplete, left out")
    return tuple(notes)


def _format_decision(decisions: Decisions, index: int) -> str:
    allowed, remaining, retry_after_ns, _, delay_ns = decisions[index].tolist()
    decision = "admitted" if allowed else "denied"
    return f"{decision}, remaining {remaining}, retry after {retry_after_ns} ns, delay {delay_ns} ns"
