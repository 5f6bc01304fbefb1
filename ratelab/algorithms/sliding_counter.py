"""Sliding counter: two counters that estimate the sliding log."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, Level, Row, State, Traits
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class SlidingCounter:
    """`burst` in a sliding window of `burst / rate`, estimated from two fixed windows.

    The current window of the clock is counted, and so is the one before it. The estimate assumes that the previous
    count was spread evenly over its window, and adds the fraction that still overlaps the sliding window. Three
    integers replace a whole log. Where traffic is uneven the estimate errs in both directions: it admits too much, or
    denies requests that fit.

    Cloudflare, "How we built rate limiting capable of scaling to millions of domains" (2017):
    https://blog.cloudflare.com/counting-things-a-lot-of-different-things/
    """

    name: ClassVar[str] = "sliding-counter"
    traits: ClassVar[Traits] = Traits(
        state=("window", "previous", "current"),
        at_most=(2, -1),
        aligned=True,
        level=Level("estimated in the window", lambda counter, state, now: counter.estimate(state, now)),
        charges=True,
        bound=lambda counter, latest, cost, idle: max(
            latest + 2 * counter.window, (counter.burst + cost) * counter.window
        ),
    )

    burst: int  # cost that the estimate may reach
    window: int  # length of a window in nanoseconds

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the counters that grant `quota`."""
        return cls(quota.burst, quota.window)

    def start(self, now: int) -> list[int]:
        """Return two empty counters, the current one for the window of `now`."""
        return [now // self.window, 0, 0]

    def estimate(self, state: State, now: int) -> float:
        """Return the estimated cost in the window that ends at `now`."""
        index, previous, current = state
        return previous * (1 - (now - index * self.window) / self.window) + current

    def step(self, state: State, now: int, cost: int) -> Row:
        """Shift the counters if the clock has entered a later window, then count `cost` if the estimate has room."""
        burst, window = self.burst, self.window
        index, previous, current = state[0], state[1], state[2]
        latest = now // window
        if latest > index:  # never an earlier window: a clock may step back
            previous = current if latest == index + 1 else 0
            index, current = latest, 0
        elapsed = now - index * window
        elapsed = elapsed if elapsed > 0 else 0
        free = (burst - current) * window - previous * (window - elapsed)  # in units of cost x window
        charge = cost * window
        allowed = charge <= free
        if allowed or cost > burst:
            retry_after = 0 if allowed else NEVER
        elif current + cost <= burst:  # enough of the previous window must slide out
            retry_after = -((free - charge) // previous)
        else:  # this window must end and then slide out in part
            retry_after = window - elapsed - ((burst - current - cost) * window // current)
        current = current + cost if allowed else current
        free = free - charge if allowed else free
        state[0] = index
        state[1] = previous
        state[2] = current
        windows_left = 2 if current > 0 else 1 if previous > 0 else 0
        reset_after = windows_left * window - elapsed if windows_left > 0 else 0
        return allowed, free // window if free > 0 else 0, retry_after, reset_after, 0

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision; if it is negative, refund a charge of the time `at`.

        Without a time, the previous window is refunded first, since it counts for less.
        """
        self.step(state, now, 0)
        index, previous, current = state[0], state[1], state[2]
        if cost > 0:
            state[2] = current + cost
            return
        refund = -cost
        if at is None:
            state[1] = max(0, previous - refund)
            state[2] = max(0, current - max(0, refund - previous))
        elif at // self.window == index:
            state[2] = max(0, current - refund)
        elif at // self.window == index - 1:
            state[1] = max(0, previous - refund)
