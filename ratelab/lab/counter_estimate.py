"""The sliding counter as an estimate of a rate: how often it would have stood on the wrong side of the limit.

Here nothing is denied: as in Cloudflare's analysis ("How we built rate limiting capable of scaling to millions of
domains", 2017), every request counts, whatever would have become of it. With each request, the *real* rate is the cost
that its key asked for in the window that ends with it, and the *estimate* that of the current window of the clock so
far plus the previous one's in proportion to what of it still overlaps. A limiter that denies changes what it counts, so
its own decisions differ by other figures: those of the accuracy card.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ratelab.lab.metrics import exact_fraction
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Asked, Booleans, Traffic, key_count
from ratelab.lab.windows import Trailing
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


def estimate(quota: Quota, traffic: Asked, trailing: Trailing) -> Estimate:
    """Hold the two-window estimate of what was asked against the truth; `trailing` is the quota's window."""
    windows = TwoWindows(key_count(traffic), quota.window)
    really, apparently = (np.zeros(len(windows.current), np.bool_) for _ in range(2))
    allowed = limited = near = 0
    difference = Fraction(0)
    for part, before in trailing.cost():
        some = traffic.part(part)
        real, (current, previous, left) = before + some.costs, windows.asked(some)
        estimated = current + previous * (left / quota.window)
        above, told = real > quota.burst, _above(quota, current, previous, left)
        allowed += int(np.count_nonzero(above & ~told))
        limited += int(np.count_nonzero(told & ~above))
        near += int(np.count_nonzero(np.abs(real - quota.burst) <= quota.burst // 10))
        difference += exact_fraction(np.abs(estimated - real) / real)
        really[some.request_keys[above]] = apparently[some.request_keys[told]] = True
    return Estimate(
        wrongly_allowed=allowed,
        wrongly_limited=limited,
        wrong_ratio=(allowed + limited) / max(1, len(traffic)),
        mean_difference=float(difference) / max(1, len(traffic)),
        near_ratio=near / max(1, len(traffic)),
        keys_above=int(np.count_nonzero(really)),
        keys_missed=int(np.count_nonzero(really & ~apparently)),
        keys_blamed=int(np.count_nonzero(apparently & ~really)),
    )


class TwoWindows:
    """What a sliding counter that admits everything knows of each key, windows being aligned to the clock."""

    def __init__(self, keys: int, length: int) -> None:
        self._length = length
        self._window = np.full(keys, np.iinfo(np.int64).min)
        self.current, self.previous = np.zeros(keys, np.int64), np.zeros(keys, np.int64)

    def asked(self, some: Traffic) -> tuple[Integers, Integers, Integers]:
        """Take some requests, and return what is known with each, itself included.

        The cost of its key in the current window so far, that in the whole previous window, and the nanoseconds until
        the current one ends.
        """
        clock = some.clock_times
        order = np.argsort(some.request_keys, kind="stable")
        keys, windows = some.request_keys[order], (clock // self._length)[order]
        begins = np.flatnonzero((np.diff(keys, prepend=-1) != 0) | (np.diff(windows, prepend=-1) != 0))
        runs = np.append(begins, len(order))
        sums = np.concatenate([[0], np.cumsum(some.costs[order])])
        carried, before = self._follow(keys[begins], windows[begins], np.diff(sums[runs]))
        current, previous = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        current[order] = sums[1:] - np.repeat(sums[begins] - carried, np.diff(runs))
        previous[order] = np.repeat(before, np.diff(runs))
        return current, previous, self._length - clock % self._length

    def _follow(self, keys: Integers, windows: Integers, totals: Integers) -> tuple[Integers, Integers]:
        """Take what keys ask for in one window after the other; return what is known of each window beforehand."""
        first = np.diff(keys, prepend=-1) != 0
        same = first & (self._window[keys] == windows)
        carried = np.where(same, self.current[keys], 0)
        totals = totals + carried
        latest = np.where(first, self._window[keys], np.append(0, windows)[:-1])
        held = np.where(first, self.current[keys], np.append(0, totals)[:-1])
        before = np.where(same, self.previous[keys], np.where(latest == windows - 1, held, 0))
        last = np.append(first, True)[1:]
        kept = keys[last]
        self._window[kept], self.current[kept], self.previous[kept] = windows[last], totals[last], before[last]
        return carried, before


def _above(quota: Quota, current: Integers, previous: Integers, left: Integers) -> Booleans:
    """Return where the estimate exceeds the burst, without rounding."""
    largest = max(quota.burst, int(current.max(initial=0)), int(previous.max(initial=0)))
    whole = np.int64 if largest * quota.window < 2**63 else object
    overlapping, free = previous.astype(whole) * left, (quota.burst - current).astype(whole) * quota.window
    found: Booleans = (overlapping > free).astype(np.bool_)
    return found
