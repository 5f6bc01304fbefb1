"""Sliding counter: two counters that estimate the sliding log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, State
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class SlidingCounter:
    """`burst` in a sliding window of `burst / rate`, estimated from two fixed ones.

    Two windows of the clock are counted, the current one and the one before it. The previous window's count is taken
    as spread evenly over it, so that the part of it still inside the sliding window counts in proportion. So three
    numbers do the work of a log. Where traffic is not even they are wrong in either direction: they let too much
    through, or deny what is due.

    Cloudflare, "How we built rate limiting capable of scaling to millions of domains" (2017):
    https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
    """

    name: ClassVar[str] = "sliding-counter"
    remembers: ClassVar[tuple[str, ...]] = ("window", "previous", "current")
    shows: ClassVar[str] = "estimated in the window"
    at_most: ClassVar[tuple[int, int]] = (2, -1)

    burst: int  # cost that the estimate may reach
    window: int  # length of a window in nanoseconds

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the counters that grant `quota`."""
        return cls(quota.burst, quota.window)

    def start(self, now: int) -> list[int]:
        """Return two empty counters, the current one for the window of `now`."""
        return [now // self.window, 0, 0]

    def level(self, state: State, now: int) -> float:
        """Return the estimate."""
        return state[1] * (1 - (now - state[0] * self.window) / self.window) + state[2]

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return a bound on a step's numbers: see `ratelab.limiter.Bounded`."""
        return max(latest + 2 * self.window, (self.burst + cost) * self.window)

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Shift the counters if the clock has entered a later window, then count `cost` if the estimate allows it."""
        burst, window = self.burst, self.window
        index, previous, current = state[0], state[1], state[2]
        latest = now // window
        if latest > index:  # never back to an earlier window: a clock may step back
            previous = current if latest == index + 1 else 0
            index, current = latest, 0
        elapsed = now - index * window
        elapsed = elapsed if elapsed > 0 else 0
        free = (burst - current) * window - previous * (window - elapsed)  # units of cost times the window
        charge = cost * window
        allowed = charge <= free
        if allowed or cost > burst:
            retry_after = 0 if allowed else NEVER
        elif current + cost <= burst:  # enough of the previous window must slide out
            retry_after = -((free - charge) // previous)
        else:  # this window must end, and enough of it slide out in turn
            retry_after = window - elapsed - ((burst - current - cost) * window // current)
        current = current + cost if allowed else current
        free = free - charge if allowed else free
        state[0] = index
        state[1] = previous
        state[2] = current
        windows_left = 2 if current > 0 else 1 if previous > 0 else 0
        reset_after = windows_left * window - elapsed if windows_left > 0 else 0
        return allowed, free // window if free > 0 else 0, retry_after, reset_after, 0
