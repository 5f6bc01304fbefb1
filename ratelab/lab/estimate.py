"""The sliding counter as an estimate of a rate: how often it would have stood on the wrong side of the limit.

Here nothing is denied: as in Cloudflare's analysis ("How we built rate limiting capable of scaling to millions of
domains", 2017), every request counts, whatever would have become of it. With each request, the *real* rate is the cost
that its key asked for in the window that ends with it, and the *estimate* that of the current window of the clock so
far plus the previous one's in proportion to what of it still overlaps. A limiter that denies changes what it counts, so
its own decisions differ by other figures: those of the accuracy card.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from ratelab.lab.traffic import Integers, Traffic
from ratelab.lab.windows import Booleans, Trailing
from ratelab.quota import Quota

CLAIMED_WRONG, CLAIMED_DIFFERENCE = 0.00003, 0.06
"""What Cloudflare's analysis found in 400 million requests from 270,000 sources."""


@dataclass(frozen=True)
class Estimate:
    """How good the estimate was; above the limit means a rate of more than `burst` a window."""

    wrongly_allowed: int
    """Requests with which the real rate was above the limit, but not the estimate."""
    wrongly_limited: int
    """The reverse."""
    wrong_ratio: float
    """Both over all requests; 0 if there are none."""
    mean_difference: float
    """The distance between estimate and real rate over the real rate, on average over all requests."""
    near_ratio: float
    """Requests whose real rate is within a tenth of the limit, over all."""
    keys_above: int
    """Keys whose real rate was ever above the limit."""
    keys_missed: int
    """Those of them whose estimate never was."""
    keys_blamed: int
    """Keys whose estimate was above the limit, but never their real rate."""


def estimate(quota: Quota, traffic: Traffic, trailing: Trailing) -> Estimate:
    """Hold the two-window estimate of what was asked against the truth; `trailing` is the quota's window."""
    real = trailing.cost() + traffic.costs
    current, previous, left = two_windows(traffic, quota.window)
    estimated = current + previous * (left / quota.window)
    above, told = real > quota.burst, _above(quota, current, previous, left)
    missed, blamed = above & ~told, told & ~above
    keys = traffic.request_keys
    really, apparently = np.unique(keys[above]), np.unique(keys[told])
    return Estimate(
        wrongly_allowed=int(np.count_nonzero(missed)),
        wrongly_limited=int(np.count_nonzero(blamed)),
        wrong_ratio=int(np.count_nonzero(missed | blamed)) / max(1, len(traffic)),
        mean_difference=math.fsum((np.abs(estimated - real) / real).tolist()) / max(1, len(traffic)),
        near_ratio=int(np.count_nonzero(np.abs(real - quota.burst) <= quota.burst // 10)) / max(1, len(traffic)),
        keys_above=len(really),
        keys_missed=len(np.setdiff1d(really, apparently)),
        keys_blamed=len(np.setdiff1d(apparently, really)),
    )


def two_windows(traffic: Traffic, length: int) -> tuple[Integers, Integers, Integers]:
    """Return what a sliding counter that admits everything knows with each request, itself included.

    The cost of its key in the current window so far, that in the whole previous window, and the nanoseconds until the
    current one ends, windows being aligned to the clock.
    """
    keys, clock = traffic.request_keys, traffic.clock_times
    order = np.argsort(keys, kind="stable")
    windows = (clock // length)[order]
    begins = np.flatnonzero((np.diff(keys[order], prepend=-1) != 0) | (np.diff(windows, prepend=-1) != 0))
    sums = np.concatenate([[0], np.cumsum(traffic.costs[order])])
    totals = np.diff(sums[np.append(begins, len(order))])
    follows = (np.diff(keys[order][begins], prepend=-1) == 0) & (np.diff(windows[begins], prepend=-2) == 1)
    before = np.where(follows, np.concatenate([[0], totals])[:-1], 0)
    run = np.repeat(np.arange(len(begins)), np.diff(np.append(begins, len(order))))
    current, previous = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
    current[order] = sums[1:] - sums[begins][run]
    previous[order] = before[run]
    return current, previous, length - clock % length


def _above(quota: Quota, current: Integers, previous: Integers, left: Integers) -> Booleans:
    """Return where the estimate exceeds the burst, without rounding."""
    largest = max(quota.burst, int(current.max(initial=0)), int(previous.max(initial=0)))
    whole = np.int64 if largest * quota.window < 2**63 else object
    overlapping, free = previous.astype(whole) * left, (quota.burst - current).astype(whole) * quota.window
    found: Booleans = (overlapping > free).astype(np.bool_)
    return found
