"""GCRA, the generic cell rate algorithm: a token bucket stored as one timestamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, Level, Row, State, Traits
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class Gcra:
    """A token bucket as one timestamp: the theoretical arrival time of the next unit.

    The state is the time at which the next unit would arrive if all requests kept to the rate. Each admitted unit moves
    it by `1 / rate`. A request is early by the distance from the clock to that time, and may be early by up to
    `burst / rate`. Decisions equal those of `token-bucket`, with one integer instead of two.

    ATM Forum, Traffic Management Specification 4.0 (1996), section 4.4.2, extended to costs. Let's Encrypt stores such
    a time for each key in Redis and moves it with `INCRBY`, since reading it first and setting it later
    (check-then-act) is a race: https://github.com/letsencrypt/boulder/issues/7780. In a store, ratelab adds two
    integers: the time of the last request and a correction of the clock.
    """

    name: ClassVar[str] = "gcra"
    traits: ClassVar[Traits] = Traits(
        state=("theoretical arrival time",),
        at_most=(2, -1),
        level=Level(
            "booked ahead of the clock", lambda gcra, state, now: max(0, state[0] - now * gcra.limit) / gcra.period
        ),
        charges=True,
        admits_need=True,
        bound=lambda gcra, latest, cost, idle: max(latest, gcra.tolerance + cost * gcra.period, idle * gcra.limit),
    )

    limit: int  # credits in a nanosecond; times below are in credits, so that none is a fraction
    period: int  # credits by which a unit of cost moves the time
    tolerance: int  # credits by which a request may be early

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the timestamp that grants `quota`."""
        return cls(quota.limit, quota.period, quota.burst * quota.period)

    def start(self, now: int) -> list[int]:
        """Return a time that is already due."""
        return [now * self.limit]

    def step(self, state: State, now: int, cost: int) -> Row:
        """Move the theoretical arrival time by `cost` units if it stays within the tolerance."""
        limit, period, tolerance = self.limit, self.period, self.tolerance
        clock = now * limit
        due = state[0] if state[0] > clock else clock
        moved = due + cost * period
        early = moved - clock - tolerance
        allowed = early <= 0
        retry_after = 0 if allowed else -(-early // limit) if cost * period <= tolerance else NEVER
        due = moved if allowed else due
        state[0] = due
        left = tolerance - (due - clock)
        return allowed, left // period if left > 0 else 0, retry_after, -((clock - due) // limit), 0

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision; if it is negative, refund a charge of the time `at`."""
        self.step(state, now, 0)
        state[0] = max(now * self.limit, state[0] + cost * self.period)
