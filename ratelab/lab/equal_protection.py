"""Equal protection: each algorithm with the burst that gives it the worst window of the exact sliding log.

The same burst is not the same protection: a bucket lets out what it saved and what it earns meanwhile, a fixed window
twice its count at a boundary. So for each algorithm, at the same rate, a burst is sought whose fullest window, as long
as the quota's and measured on this traffic, holds no more than the log's fullest does. The log itself, which the others
are held to, keeps the quota's burst.

A larger burst may well have a less full worst window, for it moves the windows and what is denied in them. So a
bisection is followed by a look at larger ones: the burst found fits, and denies nobody or none of the next `AHEAD`
fits. Where the quota's own burst fits and denies nobody, there is nothing to look for.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from ratelab.algorithms.plugins import attribute_errors
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import InputError
from ratelab.lab.decisions import Outcome, Progress
from ratelab.lab.metrics import Result, measure
from ratelab.lab.replay import replay_columns
from ratelab.lab.spill import Column
from ratelab.lab.traffic import Asked
from ratelab.lab.windows import Trailing
from ratelab.limiter import Algorithm
from ratelab.quota import LARGEST, Quota

AHEAD = 16
"""Larger bursts that are tried beyond the last that fits."""


@dataclass(frozen=True, eq=False)
class Equal:
    """One algorithm at the quota and at equal protection; `good_denied` are good requests that it denied."""

    at_quota: Result
    at_quota_good_denied: int
    burst: int
    """The burst found; 1 if none that was tried fits."""
    fits: bool
    """Whether its worst window is no more than the log's; if not, even bursts of 1 to 1 + `AHEAD` let out more."""
    result: Result
    """What it did with that burst, measured against the quota as it was given."""
    good_denied: int


@dataclass(frozen=True, eq=False)
class EqualProtection:
    """All algorithms at equal protection, in the order asked for."""

    target: int
    """The most cost that the sliding log of the quota let out in any window of this traffic."""
    good: int
    """Requests that keep within the quota: see `good_requests`."""
    equals: tuple[Equal, ...]


def good_requests(quota: Quota, traffic: Asked) -> Column:
    """Return which requests nobody has a reason to deny.

    With one, its key has asked for no more than `burst` in the window that ends with it, whatever became of the rest.
    """
    good = traffic.column(np.bool_)
    for part, before in Trailing(traffic, quota.window).cost():
        good[part] = before + traffic.part(part).costs <= quota.burst
    return good


def equalize(
    quota: Quota,
    traffic: Asked,
    algorithms: Sequence[type[Algorithm]],
    exact: Outcome | None,
    progress: Progress,
) -> EqualProtection:
    """Find each algorithm's burst; `exact` is what the sliding log of `quota` decided of `traffic`.

    Raises `InputError` if there is no such log.
    """
    if exact is None:
        raise InputError(
            f"equal protection is the sliding log's, which cannot be kept for a burst of {quota.burst}: lower the burst"
        )
    good = good_requests(quota, traffic)
    target = measure(SlidingLog.from_quota(quota), quota, traffic, exact, exact).peak_in_window

    def found(algorithm: type[Algorithm]) -> Equal:
        @cache
        def tried(burst: int) -> tuple[Result, int]:
            with attribute_errors(algorithm):
                built = algorithm.from_quota(Quota(quota.limit, quota.period, burst))
            decisions = replay_columns(built, traffic, progress)
            result = measure(built, quota, traffic, decisions, exact)
            denied = (good[part] & ~decisions["allowed"][part] for part in traffic.parts())
            return result, sum(int(np.count_nonzero(some)) for some in denied)

        burst = quota.burst
        if algorithm is not SlidingLog:
            burst = _largest(lambda burst: tried(burst)[0], quota, traffic, target)
        fits = tried(burst)[0].peak_in_window <= target
        return Equal(*tried(quota.burst), burst, fits, *tried(burst))

    count = sum(int(np.count_nonzero(good[part])) for part in traffic.parts())
    return EqualProtection(target, count, tuple(map(found, algorithms)))


def _largest(tried: Callable[[int], Result], quota: Quota, traffic: Asked, target: int) -> int:
    """Return the largest burst found whose result lets out no more than `target`; 1 if none does."""
    most = max(1, min(int(traffic.asked.max(initial=1)), LARGEST * quota.limit // quota.period))

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
        ahead = range(min(burst + AHEAD, most), burst, -1)
        farther = next((larger for larger in ahead if not too_large(larger)), None)
        if farther is None:
            break
        burst = farther
    return burst


def first(holds: Callable[[int], bool], start: int, last: int) -> int:
    """Return a number from 1 to `last` at which `holds` and just below which it does not, or `last`.

    Looked for from `start` on by doubling, then by bisection: the least number at which it holds, if it then does for
    all larger ones.
    """
    low, high = 0, min(start, last)
    while high < last and not holds(high):
        low, high = high, min(2 * high, last)
    return bisect_left(range(low + 1, high), True, key=holds) + low + 1
