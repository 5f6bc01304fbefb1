"""Equal protection: the burst with which each algorithm's fullest window equals that of the exact sliding log.

The same burst is not the same protection: a bucket admits its saved tokens plus the refill, and a fixed window twice
its count at a boundary. So for each algorithm a burst is searched, at the same rate, whose fullest window on this
traffic holds no more than the log's. Windows are as long as the quota's. The log itself keeps the quota's burst.

A larger burst may have a less full window, because it moves the windows and the denials in them. So a bisection is
followed by a look at larger bursts: the burst found fits, and either denies no request or none of the next
`BURSTS_AHEAD` fits. Where the quota's own burst fits and denies nothing, there is nothing to search for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ratelab.algorithms import build_policy
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import InputError
from ratelab.lab.decisions import FIGURE_FIELDS, Outcome, Progress
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT, Result, figure, measure
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.windows import compute_trailing_costs
from ratelab.quota import LARGEST, Quota

BURSTS_AHEAD = 16
"""Number of larger bursts that are tried beyond the last that fits."""

_EXPECTED_REPLAYS = 30
"""Bursts that are tried for all algorithms together, by which the engine is chosen."""


@dataclass(frozen=True, eq=False)
class EqualResult:
    """One algorithm at the quota and at equal protection."""

    at_quota: Result
    at_quota_good_denied: int
    """The good requests denied at the quota."""
    burst: int = field(
        metadata=figure("the burst found, at the same rate; 1 if none of those tried fits", header="burst")
    )
    fits: bool
    """Whether its fullest window holds no more than the log's; otherwise none from 1 to 1 + `BURSTS_AHEAD` does."""
    result: Result
    """The result with that burst, with the windows and the burst of the original quota."""
    good_denied: int = field(metadata=figure("good requests denied with that burst", header="good denied"))


@dataclass(frozen=True, eq=False)
class EqualProtection:
    """All algorithms at equal protection, in the order given."""

    target: int
    """The fullest window of the sliding log on this traffic, in units of cost."""
    good: int
    """The number of good requests: see `find_good_requests`."""
    results: tuple[EqualResult, ...]


def find_good_requests(quota: Quota, traffic: Traffic) -> Booleans:
    """Return for each request whether it is good: no limiter of this quota has a reason to deny it.

    A request is good if the cost that its key requested in the window that ends with it, admitted or not, is at most
    `burst`.
    """
    good = traffic.allocate(np.bool_)
    for part, before in compute_trailing_costs(traffic, quota.window):
        good[part] = before + traffic[part].costs <= quota.burst
    return good


def equalize(
    outcomes: Sequence[Outcome],
    reference: Outcome,
    progress: Progress = lambda _: None,
    client_timeout: int = DEFAULT_CLIENT_TIMEOUT,
) -> EqualProtection:
    """Find the burst of each policy whose fullest window holds no more than that of the `reference`.

    `reference` is the outcome of the exact sliding log for the same traffic. A client waits `client_timeout`
    nanoseconds.
    """
    quota, traffic = reference.policy.quota, reference.traffic
    by_calendar = next((outcome.policy for outcome in outcomes if outcome.policy.quota.calendar is not None), None)
    if by_calendar is not None:
        raise InputError(
            f"equal protection tries other bursts, which a window of the calendar has not, got {by_calendar.quota}: "
            "name a number of days, as in 1000/30day"
        )
    good = find_good_requests(quota, traffic)
    target = measure(reference, reference).peak_in_window

    def equalize_outcome(outcome: Outcome) -> EqualResult:
        kind = type(outcome.policy.algorithm)

        @cache
        def try_burst(burst: int) -> tuple[Result, int]:
            policy = build_policy(kind, Quota(quota.limit, quota.period, burst))
            tried = replay(policy, traffic, FIGURE_FIELDS, progress, _EXPECTED_REPLAYS)
            denied = (good[part] & ~tried.decisions["allowed"][part] for part, _ in traffic.batches())
            return measure(tried, reference, client_timeout), sum(int(np.count_nonzero(batch)) for batch in denied)

        burst = quota.burst
        if kind is not SlidingLog:
            burst = _find_burst(lambda burst: try_burst(burst)[0], quota, traffic, target)
        fits = try_burst(burst)[0].peak_in_window <= target
        return EqualResult(*try_burst(quota.burst), burst, fits, *try_burst(burst))

    count = sum(int(np.count_nonzero(good[part])) for part, _ in traffic.batches())
    return EqualProtection(target, count, tuple(map(equalize_outcome, outcomes)))


def _find_burst(try_burst: Callable[[int], Result], quota: Quota, traffic: Traffic, target: int) -> int:
    """Return the largest burst found whose fullest window holds at most `target`; 1 if none does."""
    max_burst = max(1, min(int(traffic.requested_cost.max(initial=1)), LARGEST * quota.limit // quota.period))

    def is_too_large(burst: int) -> bool:
        try:
            return try_burst(burst).peak_in_window > target
        except InputError:  # the algorithm rejects the burst, such as a log that does not fit in memory
            return True

    if try_burst(quota.burst).denied == 0 and not is_too_large(quota.burst):
        return quota.burst
    stop = find_first(lambda burst: is_too_large(burst) or try_burst(burst).denied == 0, quota.burst, max_burst)
    burst = max(1, stop - is_too_large(stop))
    while try_burst(burst).denied:
        ahead = range(min(burst + BURSTS_AHEAD, max_burst), burst, -1)
        larger = next((larger for larger in ahead if not is_too_large(larger)), None)
        if larger is None:
            break
        burst = larger
    return burst


def find_first(holds: Callable[[int], bool], start: int, last: int) -> int:
    """Return a number from 1 to `last` at which `holds` is true and just below which it is not, or `last`.

    The search doubles from `start` and then bisects. If `holds` is monotonic, the result is the least such number.
    """
    low, high = 0, min(start, last)
    while high < last and not holds(high):
        low, high = high, min(2 * high, last)
    return bisect_left(range(low + 1, high), True, key=holds) + low + 1
