"""What became of the requests of a middleware."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Counts:
    """What became of the requests so far; exempt ones are not counted."""

    admitted: int = 0
    """Let through, whether at once or after a delay."""
    delayed: int = 0
    """Those of `admitted` that had to queue."""
    denied: int = 0
    """Answered 429, or 400 for a cost above the burst."""
    dropped: int = 0
    """Ended while they queued: the client left, or the service stopped. Their charge is kept."""
    ambiguous: int = 0
    """Answered 400, because they name two clients; nobody was charged."""
    unavailable: int = 0
    """Answered 503, because the limiter's store did not decide."""
    waiting: int = 0
    """Those that queue now, which are none of the others yet."""
