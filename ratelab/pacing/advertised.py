"""Quotas that a service advertises, as far as they limit the pace of requests."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ratelab.pacing.advice import Allowance, RateAdvice
from ratelab.quota import NS_PER_S

FRONT_LOAD_NS = 60 * NS_PER_S
"""In longer windows, half of the quota may be used this fast; the other half is spread."""

EXACT_WINDOW_NS = 20 * NS_PER_S
"""Windows from this length on are taken to be exact; shorter ones may be rounded up to the next second."""

RESET_ERROR_NS = 2 * NS_PER_S
"""How far apart the times of one reset may be in two responses, since times are rounded to seconds."""


class FirstPace(NamedTuple):
    """A pace to begin with."""

    interval: float
    step: float
    """The first relative change of the rate: how far the real limit may be from what the fields seem to show."""
    cycle: int
    """The time in which the rate may at most be doubled."""


@dataclass
class Advertised:
    """The quotas in the last response. Times are in nanoseconds."""

    floor: float = 0.0
    """The shortest interval that the quotas permit; 0 without one."""
    remaining: int | None = None
    """The remaining quota of the policy that has the least; None if the last response names none."""
    limit: int = 0
    reset_at: int = 0
    """When it is replenished: the earliest time in responses that seem to mean the same reset."""
    blocked_until: int = 0
    fixed: bool = False
    """Whether the quota is replenished at once at `reset_at`, as in a fixed window, and not bit by bit."""
    steady: bool = False
    """Whether `reset_at` stayed the same while time passed."""
    anchor: int = 0
    anchor_reset: int = 0
    """A time, and the reset that was expected then."""
    previous: int = 0
    previous_at: int = 0
    """The remaining quota in the response before, and its time."""

    def read(self, now: int, advice: RateAdvice, in_flight: int) -> FirstPace | None:
        """Learn from a response; return the pace that its quotas suggest, if they suggest one."""
        self.floor, self.remaining = 0.0, None
        interval, step, cycle = 0.0, 0.0, 0
        for each in advice.allowances:
            if each.limit and each.window_ns:
                shortest, longest = bound_interval(each)
                self.floor, interval = max(self.floor, shortest), max(interval, longest)
                step = max(step, min(0.5, 1 - shortest / longest))
                cycle = max(cycle, each.window_ns)
            elif each.remaining and each.reset_ns:
                interval = max(interval, each.reset_ns / each.remaining)
                step, cycle = 0.5, max(cycle, each.reset_ns)
            if each.remaining is not None and (self.remaining is None or each.remaining < self.remaining):
                self.remaining, self.limit = each.remaining, each.limit or 0
                self._expect_reset(now, now + (each.reset_ns or 0))
        if self.remaining is not None and not advice.denied:
            self._find_fixed_window(now, self.remaining)
            self._spread(now, self.remaining, in_flight)
        return FirstPace(interval, step, cycle) if interval else None

    def _expect_reset(self, now: int, reset_at: int) -> None:
        same = now < self.reset_at <= reset_at <= self.reset_at + RESET_ERROR_NS
        self.reset_at = self.reset_at if same else reset_at

    def _find_fixed_window(self, now: int, remaining: int) -> None:
        """Find out whether most of the quota comes back at a reset that has stayed the same until then."""
        if self.reset_at - self.anchor_reset > RESET_ERROR_NS:
            recent = now - self.previous_at < 2 * RESET_ERROR_NS
            came_back = remaining * 5 >= self.limit * 4 and self.previous * 2 < self.limit
            due = now >= self.anchor_reset - RESET_ERROR_NS
            self.fixed = due and self.steady and came_back and recent
            self.anchor, self.anchor_reset, self.steady = now, self.reset_at, False
        elif now - self.anchor >= 2 * RESET_ERROR_NS:
            self.steady = True
        self.previous, self.previous_at = remaining, now

    def _spread(self, now: int, remaining: int, in_flight: int) -> None:
        """Spread the rest of a fixed window over its time, which other clients may have shortened."""
        left = self.reset_at - now
        if self.fixed and left > 5 * RESET_ERROR_NS:  # else, the error would be a large part of it
            self.floor = max(self.floor, left / max(1, remaining - in_flight + 1))
        if self.fixed and left > 2 * RESET_ERROR_NS and not remaining:
            self.blocked_until = max(self.blocked_until, self.reset_at)


def bound_interval(allowance: Allowance) -> tuple[float, float]:
    """Return the shortest and the longest interval that use up a quota."""
    limit, window, remaining = allowance.limit or 1, allowance.window_ns or 0, allowance.remaining
    longest = window / limit
    shortest = longest if window >= EXACT_WINDOW_NS else (window - NS_PER_S) / limit
    if window > FRONT_LOAD_NS:
        to_load = (limit if remaining is None else remaining) - limit / 2
        if to_load > 0:
            longest = min(longest, FRONT_LOAD_NS / to_load)
        if remaining and allowance.reset_ns:  # less time is left for it than a whole window
            longest = min(longest, allowance.reset_ns / remaining)
        shortest = min(shortest, longest)
    return shortest, longest
