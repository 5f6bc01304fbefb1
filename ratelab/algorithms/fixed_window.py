"""Fixed window: one counter per tick of the clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, State
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """`burst` per window of `burst / rate`, the windows aligned to the clock.

    The clock is cut into windows of one length, and a key has one counter. A request is admitted if the counter still
    has room for its `cost`. When the clock enters a later window, the counter starts again from 0. It is the cheapest
    counter there is, and its flaw everybody should know: `burst` at the end of a window and `burst` at the start of
    the next one go through together.

    In a store it is `INCR` with an expiry: https://valkey.io/commands/incr, "Pattern: Rate limiter". A counter that is
    read first and written later (check-then-act) lets requests that come at once all pass on the same count: a race.
    """

    name: ClassVar[str] = "fixed-window"
    remembers: ClassVar[tuple[str, ...]] = ("window", "used")
    shows: ClassVar[str] = "used in this window"
    at_most: ClassVar[tuple[int, int]] = (2, 0)

    burst: int  # cost that a window admits
    window: int  # its length in nanoseconds

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the counter that grants `quota`."""
        return cls(quota.burst, quota.window)

    def start(self, now: int) -> list[int]:
        """Return an unused counter for the window of `now`."""
        return [now // self.window, 0]

    def level(self, state: State, now: int) -> float:
        """Return what is used of the window."""
        return state[1]

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return a bound on a step's numbers: see `ratelab.limiter.Bounded`."""
        return max(latest + self.window, self.burst + cost)

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Begin a new count if the clock has entered a later window, then count `cost` if it fits."""
        burst, window = self.burst, self.window
        index, used = state[0], state[1]
        latest = now // window
        if latest > index:  # never back to an earlier window: a clock may step back
            index, used = latest, 0
        allowed = used + cost <= burst
        used = used + cost if allowed else used
        state[0] = index
        state[1] = used
        left = (index + 1) * window - now
        retry_after = 0 if allowed else left if cost <= burst else NEVER
        return allowed, burst - used, retry_after, left if used > 0 else 0, 0
