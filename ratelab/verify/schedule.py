"""Schedule of a live run: requests with their times and responses, speed, start and longest delay."""

from __future__ import annotations

from dataclasses import replace
from math import isfinite
from typing import NamedTuple

import numpy as np

from ratelab.algorithms import Policy
from ratelab.errors import InputError
from ratelab.http.headers import PolicyHeader
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.quota import LARGEST


class ScheduledRequest(NamedTuple):
    """One request of a schedule."""

    at_ns: int
    """Nanoseconds after the start; never less than that of the request before."""
    key: str
    """The value of the header that identifies the client."""


class Response(NamedTuple):
    """The response to one request, or the reason for its absence; times are readings of one clock."""

    sent_ns: int
    """Just before the request was written; when it failed, if it never was."""
    received_ns: int
    """When the last header field had arrived, or when the request failed."""
    status: int
    """0 without a response."""
    policy: PolicyHeader | None = None
    remaining: int | None = None
    """`r` of `RateLimit`."""
    reset: int | None = None
    """`t` of `RateLimit`, in seconds."""
    retry_after: str | None = None
    """`Retry-After`, unparsed."""
    error: str = ""
    """The reason for the absence of a response."""

    @property
    def admitted(self) -> bool:
        """Whether the limiter admitted the request."""
        return 200 <= self.status < 300

    @property
    def denied(self) -> bool:
        """Whether the limiter denied the request."""
        return self.status == 429


MAX_ALIGNMENT_NS = 5_000_000_000
"""Longest wait for the beginning of a window."""

_TRIED_ORIGINS = 8


def scale_traffic(traffic: Traffic, speed: float = 1.0) -> Traffic:
    """Return `traffic` at `speed` times its pace: all times divided, costs and clients unchanged.

    Raises `InputError` if there are no requests, if one has a cost other than 1, which a live request has, and if
    `speed` is not above 0 or stretches the traffic beyond `LARGEST` nanoseconds.
    """
    if not isfinite(speed) or speed <= 0:
        raise InputError(f"speed must be a number above 0, got {speed}")
    if not len(traffic):
        raise InputError("the scenario has no requests to verify: lengthen it or raise a rate")
    if (traffic.costs != 1).any():
        cost = int(traffic.costs[traffic.costs != 1][0])
        raise InputError(f"cost must be 1 for live requests, got {cost}: remove `cost` from the scenario")
    if traffic.duration / speed > LARGEST:
        raise InputError(f"the traffic must last at most 146 years, got speed {speed}: raise it")
    return replace(traffic, times=(traffic.times / speed).astype(np.int64), duration=int(traffic.duration / speed))


def align_start(window: int, earliest: int) -> int:
    """Return when to start, on the clock of `earliest`: at the beginning of the next clock window.

    Windows are then placed as in a simulation, whose clock starts at 0, and none ends by chance during a burst. If
    the next window is more than `MAX_ALIGNMENT_NS` away, return `earliest`.
    """
    wait = -earliest % window
    return earliest + wait if wait <= MAX_ALIGNMENT_NS else earliest


def depends_on_clock(policy: Policy, traffic: Traffic, window: int) -> bool:
    """Return whether responses depend on when in a clock window the traffic starts; replay it from several origins."""
    fields = ["allowed", "remaining", "retry_after_ns"]
    expected = replay(policy, replace(traffic, origin=0)).rows[fields]
    shifted = (replace(traffic, origin=window * step // _TRIED_ORIGINS) for step in range(1, _TRIED_ORIGINS))
    return any((replay(policy, candidate).rows[fields] != expected).any() for candidate in shifted)


def find_max_delay(policy: Policy, traffic: Traffic) -> float:
    """Return the longest simulated delay of a request, in seconds."""
    return float(replay(policy, traffic).rows["delay_ns"].max()) / 1e9
