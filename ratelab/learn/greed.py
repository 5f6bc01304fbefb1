"""What the greediest of clients gets out of an algorithm, beside what the algorithm promises."""

from __future__ import annotations

from bisect import bisect_left

from ratelab.limiter import Algorithm, Decision
from ratelab.quota import Quota

MOST = 10_000
"""The largest burst that is tried: more would take seconds."""


def greediest(algorithm: Algorithm, quota: Quota) -> int | None:
    """Return the most requests of cost 1 that a greedy client gets out within a window of `quota`; None if not known.

    It is new at the last instant before a window of the clock begins, asks again whenever it may, and once more at the
    last instant of a window from then. It is not known of a burst above `MOST`, of more than one request a nanosecond,
    which no window can be laid around, nor of an algorithm that has it ask too often.
    """
    if quota.burst > MOST or quota.limit > quota.period:
        return None
    now, end = quota.window - 1, 2 * quota.window - 2
    state, left = algorithm.start(now), list[int]()
    for _ in range(5 * quota.burst):
        made = Decision(*algorithm.step(state, now, 1))
        if made.allowed:
            left.append(now + made.delay_ns)
        elif now < end:
            now = min(now + max(1, made.retry_after_ns), end)
        else:
            return max((bisect_left(left, at + quota.window) - place for place, at in enumerate(left)), default=0)
    return None
