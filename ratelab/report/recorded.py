"""Whether a replay decided as the live limiter did."""

from __future__ import annotations

from typing import Any

import numpy as np

from ratelab.lab.decisions import Decisions
from ratelab.lab.recording import Recording, digest
from ratelab.report.summary import counted


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
        notes.append(f"  line {first + 2}, live: {_told(recording.decisions, first)}")
        notes.append(f"  line {first + 2}, here: {_told(replayed, first)}")
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


def _told(decisions: Decisions, number: int) -> str:
    allowed, *times = decisions[number].tolist()
    return f"{'admitted' if allowed else 'denied'}, remaining {times[0]}, wait {times[1]} ns, delay {times[3]} ns"
