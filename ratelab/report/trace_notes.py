"""How well a trace could be read."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np

from ratelab.lab.decisions import Decisions
from ratelab.lab.recording import Recording, digest
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


def recording_object(recording: Recording, replayed: Decisions) -> dict[str, Any]:
    """Return what `--json` says of a recording and of its algorithm's replay."""
    return {
        "algorithm": recording.algorithm,
        "decisions": len(replayed),
        "differing": int(np.count_nonzero(recording.decisions != replayed)),
        "shared": recording.shared,
        "unfinished": recording.unfinished,
        "recorded_sha256": digest(recording.decisions),
        "replayed_sha256": digest(replayed),
    }


def recording_notes(recording: Recording, replayed: Decisions) -> tuple[str, ...]:
    """Return the verdict for people: both digests, and where the two part."""
    told = recording_object(recording, replayed)
    notes = [
        f"sha256 live {told['recorded_sha256']}",
        f"sha256 here {told['replayed_sha256']}",
    ]
    count, differing = told["decisions"], told["differing"]
    if differing:
        first = int(np.flatnonzero(recording.decisions != replayed)[0])
        notes.append(f"{differing:,} of {counted(count, 'decision')} by {recording.algorithm} not the same, first:")
        notes.append(f"  line {first + 2}, live: {_format_decision(recording.decisions, first)}")
        notes.append(f"  line {first + 2}, here: {_format_decision(replayed, first)}")
    else:
        notes.append(f"exactly the same {counted(count, 'decision')} by {recording.algorithm}")
    if recording.shared:
        notes.append(
            f"{counted(recording.shared, 'decision')} fell on buckets shared for want of room (serve --max-keys), "
            "which cannot be replayed key by key"
        )
    if recording.unfinished:
        notes.append("the last line was cut off and is left out")
    return tuple(notes)


def _format_decision(decisions: Decisions, number: int) -> str:
    allowed, *times = decisions[number].tolist()
    return f"{'admitted' if allowed else 'denied'}, remaining {times[0]}, wait {times[1]} ns, delay {times[3]} ns"
