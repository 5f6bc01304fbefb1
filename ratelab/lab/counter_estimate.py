"""Error of the sliding counter's estimate of a rate.

Nothing is denied here. As in Cloudflare's analysis ("How we built rate limiting capable of scaling to millions of
domains", 2017), every request counts, whatever its decision would be. The *actual* rate at a request is the cost that
its key requested in the window that ends with it. The *estimate* is the cost in the current window of the clock plus
that of the previous window, in proportion to the part that still overlaps. A limiter that denies requests changes its
own counts, so its decisions have other figures: those of `accuracy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ratelab.lab.metrics import sum_floats_exactly
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.windows import Trailing
from ratelab.quota import Quota

CLAIMED_WRONG, CLAIMED_DIFFERENCE = 0.00003, 0.06
"""Results of Cloudflare's analysis of 400 million requests from 270,000 sources."""


@dataclass(frozen=True)
class Estimate:
    """Error of the estimate; above the limit means more than `burst` in a window."""

    wrongly_allowed: int
    """Requests whose actual rate was above the limit, but not the estimate."""
    wrongly_limited: int
    """The reverse."""
    wrong_ratio: float
    """Both, divided by all requests; 0 without requests."""
    mean_difference: float
    """Mean over all requests of |estimate - actual rate| / actual rate."""
    near_ratio: float
    """Requests whose actual rate is within a tenth of the limit, divided by all requests."""
    keys_above: int
    """Keys whose actual rate was ever above the limit."""
    keys_missed: int
    """Keys among these whose estimate never was."""
    keys_blamed: int
    """Keys whose estimate was ever above the limit, but never their actual rate."""


def estimate(quota: Quota, traffic: Traffic) -> Estimate:
    """Compare the two-window estimate of the requested cost with the exact sliding window."""
    windows = TwoWindows(traffic.key_count, quota.window)
    really, apparently = (np.zeros(len(windows.current), np.bool_) for _ in range(2))
    allowed = limited = near = 0
    difference = Fraction(0)
    for part, before in Trailing(traffic, quota.window).cost():
        some = traffic[part]
        real, (current, previous, left) = before + some.costs, windows.asked(some)
        estimated = current + previous * (left / quota.window)
        above, told = real > quota.burst, _above(quota, current, previous, left)
        allowed += int(np.count_nonzero(above & ~told))
        limited += int(np.count_nonzero(told & ~above))
        near += int(np.count_nonzero(np.abs(real - quota.burst) <= quota.burst // 10))
        difference += sum_floats_exactly(np.abs(estimated - real) / real)
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
    """The counters of each key in a sliding counter that admits everything; windows are aligned to the clock."""

    def __init__(self, keys: int, length: int) -> None:
        self._length = length
        self._window = np.full(keys, np.iinfo(np.int64).min)
        self.current, self.previous = np.zeros(keys, np.int64), np.zeros(keys, np.int64)

    def asked(self, some: Traffic) -> tuple[Integers, Integers, Integers]:
        """Count requests; return three columns for them.

        The cost of the key in the current window up to and including the request, its cost in the previous window, and
        the nanoseconds until the current window ends.
        """
        clock = some.clock_times
        request_keys = some.request_keys.astype(np.int64)
        order = np.argsort(request_keys, kind="stable")
        keys, windows = request_keys[order], (clock // self._length)[order]
        begins = np.flatnonzero((np.diff(keys, prepend=-1) != 0) | (np.diff(windows, prepend=-1) != 0))
        runs = np.append(begins, len(order))
        sums = np.concatenate([[0], np.cumsum(some.costs[order])])
        carried, before = self._follow(keys[begins], windows[begins], np.diff(sums[runs]))
        current, previous = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        current[order] = sums[1:] - np.repeat(sums[begins] - carried, np.diff(runs))
        previous[order] = np.repeat(before, np.diff(runs))
        return current, previous, self._length - clock % self._length

    def _follow(self, keys: Integers, windows: Integers, totals: Integers) -> tuple[Integers, Integers]:
        """Add the cost of each key by window; return the cost already in each window, and in the window before it."""
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
    """Return where the estimate exceeds the burst, computed without rounding."""
    largest = max(quota.burst, int(current.max(initial=0)), int(previous.max(initial=0)))
    whole = np.int64 if largest * quota.window < 2**63 else object
    overlapping, free = previous.astype(whole) * left, (quota.burst - current).astype(whole) * quota.window
    found: Booleans = (overlapping > free).astype(np.bool_)
    return found
