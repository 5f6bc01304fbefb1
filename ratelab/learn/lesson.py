"""A worked timeline: a few requests on any quota that show where the algorithms part."""

from __future__ import annotations

from typing import NamedTuple

from ratelab.learn.worked_example import Worked, work_out
from ratelab.limiter import Algorithm
from ratelab.quota import UNITS, Quota

PLACES = 100
"""A unit of cost is earned in at least so many units of the lesson's time, so that halves are whole numbers."""


class Request(NamedTuple):
    """One request of the lesson."""

    at: int
    """When it comes, in the lesson's unit of time."""
    cost: int
    what: str
    shows: str
    """What it is there to see."""


class Lesson(NamedTuple):
    """A quota counted in the longest unit of time that suits it, and requests to decide: small numbers teach best."""

    unit: str
    """A name in `UNITS`."""
    quota: Quota
    """The quota, its times counted in `unit` instead of nanoseconds."""
    requests: list[Request]

    def nanoseconds(self, time: int) -> int:
        """Return a time of the lesson in nanoseconds."""
        return time * UNITS[self.unit]


def lesson(quota: Quota) -> Lesson:
    """Return the lesson on `quota`; kernels do not know their unit of time, so any will do."""
    unit = next((unit for unit in ("s", "ms", "us") if _suits(quota, UNITS[unit])), "ns")
    counted = Quota(quota.limit * UNITS[unit], quota.period, quota.burst)
    return Lesson(unit, counted, _requests(counted))


def worked(algorithm: Algorithm, requests: list[Request]) -> list[Worked]:
    """Work out every request of a lesson, all of one key."""
    state = algorithm.start(requests[0].at)
    return [work_out(algorithm, state, request.at, request.cost) for request in requests]


def _suits(quota: Quota, unit: int) -> bool:
    return quota.period % unit == 0 and quota.period >= PLACES * unit * quota.limit


def _requests(quota: Quota) -> list[Request]:
    window, burst = quota.window, quota.burst
    most, one = max(1, burst - 1), -(-quota.period // quota.limit)  # all but one; the time in which one is earned
    share, when = ("most", "shortly before a new window") if burst > 1 else ("all", "as a window begins")
    last = Request(window - one, 1, "the last of it", "whether all of the burst is granted")
    return [
        Request(window - one, most, f"{share} of a burst, {when}", "what a quiet key may send at once"),
        *([last] if burst > 1 else []),
        Request(window - one, 1, "one more at once", "what one too many is told"),
        Request(
            window - one + one // 2, 1, "half of the time later in which one is earned", "whether half of one counts"
        ),
        Request(window, 1, "the other half later, as a window begins", "whether one has come back, or everything"),
        Request(
            window + one // 2, most, f"{share} of a second burst", "what passes on both sides of a window's boundary"
        ),
        Request(2 * window - one // 2, burst, "more than a window after the first burst", "whether that is forgotten"),
        Request(4 * window, burst + 1, "more than the burst, after a pause", "what is said where no wait helps"),
        Request(4 * window, 1, "one, after a pause", "whether the denial before it took anything away"),
    ]
