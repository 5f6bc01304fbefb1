"""Fixed window: a counter that restarts at each boundary of the clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, Level, Row, State, Traits
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class FixedWindow:
    """`burst` per window of `burst / rate`, the windows aligned to the clock.

    The clock is divided into windows of equal length, and a key has one counter. A request is admitted if its `cost`
    still fits the counter, which restarts at 0 when the clock enters a later window. It is the cheapest algorithm, and
    users can predict it. Its flaw: `burst` at the end of one window and `burst` at the start of the next are admitted
    together.

    In a store it is `INCR` with an expiry: https://valkey.io/commands/incr, "Pattern: Rate limiter". Reading the
    counter first and writing it later (check-then-act) is a race: concurrent requests are all admitted on one count.
    """

    name: ClassVar[str] = "fixed-window"
    traits: ClassVar[Traits] = Traits(
        state=("window", "used"),
        at_most=(2, 0),
        aligned=True,
        level=Level("used in this window", lambda counter, state, now: state[1]),
        charges=True,
        bound=lambda counter, latest, cost, idle: max(latest + counter.window, counter.burst + cost),
    )

    burst: int  # cost that a window admits
    window: int  # its length in nanoseconds

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the counter that grants `quota`."""
        return cls(quota.burst, quota.window)

    def start(self, now: int) -> list[int]:
        """Return an unused counter for the window of `now`."""
        return [now // self.window, 0]

    def step(self, state: State, now: int, cost: int) -> Row:
        """Restart the counter if the clock has entered a later window, then count `cost` if it fits."""
        burst, window = self.burst, self.window
        index, used = state[0], state[1]
        latest = now // window
        if latest > index:  # never an earlier window: a clock may step back
            index, used = latest, 0
        allowed = used + cost <= burst
        used = used + cost if allowed else used
        state[0] = index
        state[1] = used
        left = (index + 1) * window - now
        retry_after = 0 if allowed else left if cost <= burst else NEVER
        return allowed, burst - used, retry_after, left if used > 0 else 0, 0

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision; if it is negative, refund a charge of the time `at`.

        A window that has ended has nothing to refund.
        """
        self.step(state, now, 0)
        if cost > 0 or at is None or at // self.window == state[0]:
            state[1] = max(0, state[1] + cost)
