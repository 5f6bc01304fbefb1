"""Calendar window: a counter that restarts with each day, week or month of a time zone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, Level, Row, State, Traits
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class CalendarWindow:
    """`burst` in each day, week or month of a time zone: the fixed window of a quota with a calendar.

    A window begins when the local clock first reaches its first date, so that it lasts as long as the day, which may
    have 23 or 25 hours, or the month. Weeks begin on Monday (ISO 8601). A key's state is the end of its window, so a
    hit only looks the window up in the table of the zone if it is the first one of the key in that window.
    """

    name: ClassVar[str] = "fixed-window"
    traits: ClassVar[Traits] = Traits(
        state=("end of the window", "used"),
        at_most=(3, 0),  # a short day or February fits into the average window, with a part of both neighbours
        aligned=True,
        level=Level("used in this window", lambda counter, state, now: state[1]),
        charges=True,
        bound=lambda counter, latest, cost, idle: max(latest + 2 * max(counter.lengths), counter.burst + cost),
    )

    burst: int  # cost that a window admits
    starts: tuple[int, ...]  # of each run of windows of one length, which the first run also extends into the past
    lengths: tuple[int, ...]  # of the windows of each run

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the counter that grants `quota`, which has a calendar."""
        return cls(quota.burst, *quota.runs)

    def start(self, now: int) -> list[int]:
        """Return an unused counter for the window of `now`."""
        state = [now, 0]
        self.step(state, now, 0)
        return state

    def step(self, state: State, now: int, cost: int) -> Row:
        """Restart the counter if the clock has entered a later window, then count `cost` if it fits."""
        burst, starts, lengths = self.burst, self.starts, self.lengths
        end, used = state[0], state[1]
        if now >= end:  # never an earlier window: a clock may step back
            run, beyond = 0, len(starts)
            while beyond - run > 1:  # find the last run that has begun
                middle = (run + beyond) // 2
                if starts[middle] <= now:
                    run = middle
                else:
                    beyond = middle
            end, used = now + lengths[run] - (now - starts[run]) % lengths[run], 0
        allowed = used + cost <= burst
        used = used + cost if allowed else used
        state[0] = end
        state[1] = used
        left = end - now
        retry_after = 0 if allowed else left if cost <= burst else NEVER
        return allowed, burst - used, retry_after, left if used > 0 else 0, 0

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision; if it is negative, refund a charge of the time `at`.

        A window that has ended has nothing to refund.
        """
        self.step(state, now, 0)
        if cost > 0 or at is None or self.start(at)[0] == state[0]:
            state[1] = max(0, state[1] + cost)
