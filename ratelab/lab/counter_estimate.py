"""Error of the sliding counter's estimate of a rate.

No request is denied here. As in Cloudflare's analysis ("How we built rate limiting capable of scaling to millions of
domains", 2017), every request counts, whatever its decision would be. The *actual* rate at a request is the cost that
its key requested in the window that ends with it. The *estimate* is the cost in the current window of the clock plus
that of the previous window, in proportion to the part that still overlaps. A limiter that denies requests changes its
own counts, so its decisions have other figures: those of `accuracy.py`.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ratelab.lab.metrics import sum_floats_exactly
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.windows import compute_trailing_costs
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


def measure_estimate(quota: Quota, traffic: Traffic) -> Estimate:
    """Compare the estimate of the requested cost with the cost in the exact sliding window."""
    windows = TwoWindows(traffic.key_count, quota.window)
    keys_above, keys_estimated_above = (np.zeros(traffic.key_count, np.bool_) for _ in range(2))
    wrongly_allowed = wrongly_limited = near = 0
    difference = Fraction(0)
    for part, past in compute_trailing_costs(traffic, quota.window):
        batch = traffic[part]
        actual = past + batch.costs
        current, previous, rest = windows.count(batch)
        estimate = current + previous * (rest / quota.window)
        above, estimated_above = actual > quota.burst, _exceeds_burst(quota, current, previous, rest)
        wrongly_allowed += int(np.count_nonzero(above & ~estimated_above))
        wrongly_limited += int(np.count_nonzero(estimated_above & ~above))
        near += int(np.count_nonzero(np.abs(actual - quota.burst) <= quota.burst // 10))
        difference += sum_floats_exactly(np.abs(estimate - actual) / actual)
        keys_above[batch.request_keys[above]] = True
        keys_estimated_above[batch.request_keys[estimated_above]] = True
    return Estimate(
        wrongly_allowed=wrongly_allowed,
        wrongly_limited=wrongly_limited,
        wrong_ratio=(wrongly_allowed + wrongly_limited) / max(1, len(traffic)),
        mean_difference=float(difference) / max(1, len(traffic)),
        near_ratio=near / max(1, len(traffic)),
        keys_above=int(np.count_nonzero(keys_above)),
        keys_missed=int(np.count_nonzero(keys_above & ~keys_estimated_above)),
        keys_blamed=int(np.count_nonzero(keys_estimated_above & ~keys_above)),
    )


class TwoWindows:
    """The counters of each key in a sliding counter that admits everything; windows are aligned to the clock."""

    def __init__(self, keys: int, length: int) -> None:
        self._length = length
        self._window = np.full(keys, np.iinfo(np.int64).min)
        self.current, self.previous = np.zeros(keys, np.int64), np.zeros(keys, np.int64)

    def count(self, batch: Traffic) -> tuple[Integers, Integers, Integers]:
        """Count requests; return three columns for them.

        The cost of the key in the current window up to and including the request, its cost in the previous window, and
        the nanoseconds until the current window ends.
        """
        clock = batch.clock_times
        request_keys = batch.request_keys.astype(np.int64)
        order = np.argsort(request_keys, kind="stable")
        keys, windows = request_keys[order], (clock // self._length)[order]
        firsts = np.flatnonzero((np.diff(keys, prepend=-1) != 0) | (np.diff(windows, prepend=-1) != 0))
        lengths = np.diff(firsts, append=len(order))
        sums = np.concatenate([[0], np.cumsum(batch.costs[order])])
        totals = np.diff(sums[np.append(firsts, len(order))])
        carried, before = self._follow(keys[firsts], windows[firsts], totals)
        current, previous = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        current[order] = sums[1:] - np.repeat(sums[firsts] - carried, lengths)
        previous[order] = np.repeat(before, lengths)
        return current, previous, self._length - clock % self._length

    def _follow(self, keys: Integers, windows: Integers, totals: Integers) -> tuple[Integers, Integers]:
        """Add the total cost of each key and window, given in order.

        Return the cost that each window had already, and the cost of the window before it.
        """
        is_first = np.diff(keys, prepend=-1) != 0  # of its key, in this batch
        continues = is_first & (self._window[keys] == windows)
        carried = np.where(continues, self.current[keys], 0)
        totals = totals + carried
        last_window = np.where(is_first, self._window[keys], np.append(0, windows)[:-1])
        last_total = np.where(is_first, self.current[keys], np.append(0, totals)[:-1])
        adjacent_total = np.where(last_window == windows - 1, last_total, 0)
        before = np.where(continues, self.previous[keys], adjacent_total)
        is_last = np.append(is_first, True)[1:]
        ends = keys[is_last]
        self._window[ends], self.current[ends], self.previous[ends] = windows[is_last], totals[is_last], before[is_last]
        return carried, before


def _exceeds_burst(quota: Quota, current: Integers, previous: Integers, rest: Integers) -> Booleans:
    """Return for each request whether its estimate exceeds the burst, computed without rounding."""
    largest = max(quota.burst, int(current.max(initial=0)), int(previous.max(initial=0)))
    kind = np.int64 if largest * quota.window < 2**63 else object
    overlapping, room = previous.astype(kind) * rest, (quota.burst - current).astype(kind) * quota.window
    exceeds: Booleans = (overlapping > room).astype(np.bool_)
    return exceeds
