"""Equal protection: the burst with which each algorithm's fullest window equals that of the exact sliding log.

The same burst is not the same protection: a bucket admits its savings plus the refill, a fixed window twice its count
at a boundary. So for each algorithm a burst is searched, at the same rate, whose fullest window on this traffic holds
no more than the log's. Windows are as long as the quota's. The log itself keeps the quota's burst.

A larger burst may have a less full window, because it moves the windows and the denials in them. So a bisection is
followed by a look at larger bursts: the burst found fits, and either denies no request or none of the next
`BURSTS_AHEAD` fits. There is nothing to search for where the quota's own burst fits and denies nothing.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ratelab.algorithms import build_policy
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import InputError
from ratelab.lab.decisions import FIGURED, Outcome, Progress
from ratelab.lab.metrics import Result, measure
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.windows import Trailing
from ratelab.quota import LARGEST, Quota

BURSTS_AHEAD = 16
"""Number of larger bursts that are tried beyond the last that fits."""


@dataclass(frozen=True, eq=False)
class Equal:
    """One algorithm at the quota and at equal protection; `good_denied` counts the good requests denied."""

    at_quota: Result
    at_quota_good_denied: int
    burst: int
    """The burst found; 1 if none of those tried fits."""
    fits: bool
    """Whether its fullest window holds no more than the log's; otherwise none from 1 to 1 + `BURSTS_AHEAD` does."""
    result: Result
    """The result with that burst, measured against the original quota."""
    good_denied: int


@dataclass(frozen=True, eq=False)
class EqualProtection:
    """All algorithms at equal protection, in the order given."""

    target: int
    """The fullest window of the sliding log on this traffic, in units of cost."""
    good: int
    """The number of good requests: see `good_requests`."""
    equals: tuple[Equal, ...]


def good_requests(quota: Quota, traffic: Traffic) -> Booleans:
    """Return which requests no limiter of this quota has a reason to deny.

    The key of a good request asked for at most `burst` in the window that ends with it, admitted or not.
    """
    good = traffic.allocate(np.bool_)
    for part, before in Trailing(traffic, quota.window).cost():
        good[part] = before + traffic[part].costs <= quota.burst
    return good


def equalize(outcomes: Sequence[Outcome], reference: Outcome, progress: Progress = lambda _: None) -> EqualProtection:
    """Find the burst of each policy whose fullest window holds no more than that of the `reference`.

    `reference` is the outcome of the exact sliding log for the same traffic.
    """
    quota, traffic = reference.policy.quota, reference.traffic
    good = good_requests(quota, traffic)
    target = measure(reference, reference).peak_in_window

    def find_burst(outcome: Outcome) -> Equal:
        kind = type(outcome.policy.algorithm)

        @cache
        def try_burst(burst: int) -> tuple[Result, int]:
            policy = build_policy(kind, Quota(quota.limit, quota.period, burst))
            tried = replay(policy, traffic, FIGURED, progress)
            denied = (good[part] & ~tried.decisions["allowed"][part] for part, _ in traffic.batches())
            return measure(tried, reference), sum(int(np.count_nonzero(batch)) for batch in denied)

        burst = quota.burst
        if kind is not SlidingLog:
            burst = _largest(lambda burst: try_burst(burst)[0], quota, traffic, target)
        fits = try_burst(burst)[0].peak_in_window <= target
        return Equal(*try_burst(quota.burst), burst, fits, *try_burst(burst))

    count = sum(int(np.count_nonzero(good[part])) for part, _ in traffic.batches())
    return EqualProtection(target, count, tuple(map(find_burst, outcomes)))


def _largest(tried: Callable[[int], Result], quota: Quota, traffic: Traffic, target: int) -> int:
    """Return the largest burst found whose fullest window holds at most `target`; 1 if none does."""
    most = max(1, min(int(traffic.requested_cost.max(initial=1)), LARGEST * quota.limit // quota.period))

    def too_large(burst: int) -> bool:
        try:
            return tried(burst).peak_in_window > target
        except InputError:  # more than it can grant, such as a log too long to be held
            return True

    if tried(quota.burst).denied == 0 and not too_large(quota.burst):
        return quota.burst
    stop = first(lambda burst: too_large(burst) or tried(burst).denied == 0, quota.burst, most)
    burst = max(1, stop - too_large(stop))
    while tried(burst).denied:
        ahead = range(min(burst + BURSTS_AHEAD, most), burst, -1)
        farther = next((larger for larger in ahead if not too_large(larger)), None)
        if farther is None:
            break
        burst = farther
    return burst


def first(holds: Callable[[int], bool], start: int, last: int) -> int:
    """Return a number from 1 to `last` at which `holds` is true and just below which it is not, or `last`.

    The search doubles from `start` and then bisects. If `holds` is monotonic, the result is the least such number.
    """
    low, high = 0, min(start, last)
    while high < last and not holds(high):
        low, high = high, min(2 * high, last)
    return bisect_left(range(low + 1, high), True, key=holds) + low + 1
