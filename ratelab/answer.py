"""What a live endpoint answered: the shape in which the player of `http` hands it to the `lab`."""

from __future__ import annotations

from typing import NamedTuple

from ratelab.http.headers import Policy


class Answer(NamedTuple):
    """What became of one request; times are what `time.monotonic_ns` read."""

    sent_ns: int
    """Just before the request was written, or when it failed if it never was."""
    answered_ns: int
    """When the head of the answer had come, or the failure."""
    status: int
    """0 if there was no answer."""
    policy: Policy | None = None
    remaining: int | None = None
    """`r` of `RateLimit`."""
    reset: int | None = None
    """`t` of `RateLimit`, in seconds."""
    retry_after: str | None = None
    """`Retry-After` as it was written."""
    error: str = ""
    """Why there was no answer."""

    @property
    def admitted(self) -> bool:
        """Whether the request went through."""
        return 200 <= self.status < 300

    @property
    def denied(self) -> bool:
        """Whether the request was over the quota."""
        return self.status == 429
