"""GCRA, the generic cell rate algorithm: a token bucket folded into one timestamp."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, State
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class Gcra:
    """A token bucket as one timestamp: the theoretical arrival time of the next unit.

    One time is kept, at which the next unit would come if all kept to the rate. Each admitted unit moves it on by
    `1 / rate`. A request is early by however far the time then lies ahead of the clock, and may be early by up to
    `burst / rate`. It decides exactly as `token-bucket` does, with one number instead of two.

    ATM Forum, Traffic Management Specification 4.0 (1996), section 4.4.2, with costs. Let's Encrypt keeps one such time
    for each key in Redis, and moves it on with `INCRBY`, since reading it first and setting it later (check-then-act)
    is a race: https://github.com/letsencrypt/boulder/issues/7780. In a store, ratelab keeps two numbers more beside it,
    the time of the last request and a correction of the clock.
    """

    name: ClassVar[str] = "gcra"
    remembers: ClassVar[tuple[str, ...]] = ("theoretical arrival time",)
    shows: ClassVar[str] = "booked ahead of the clock"
    at_most: ClassVar[tuple[int, int]] = (2, -1)

    limit: int  # credits in a nanosecond; all times below are counted in credits, so that none is a fraction
    period: int  # credits that a unit of cost moves the time on
    tolerance: int  # credits by which a request may be early

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the timestamp that grants `quota`."""
        return cls(quota.limit, quota.period, quota.burst * quota.period)

    def start(self, now: int) -> list[int]:
        """Return a time that is due."""
        return [now * self.limit]

    def level(self, state: State, now: int) -> float:
        """Return how much is booked ahead of the clock, in units of cost."""
        return max(0, state[0] - now * self.limit) / self.period

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return a bound on a step's numbers: see `ratelab.limiter.Bounded`."""
        return max(latest, self.tolerance + cost * self.period, idle * self.limit)

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Move the theoretical arrival time on by `cost` units if that stays within the tolerance."""
        limit, period, tolerance = self.limit, self.period, self.tolerance
        clock = now * limit
        due = state[0] if state[0] > clock else clock
        moved = due + cost * period
        early = moved - clock - tolerance
        allowed = early <= 0
        retry_after = 0 if allowed else -(-early // limit) if cost * period <= tolerance else NEVER
        due = moved if allowed else due
        state[0] = due
        spare = tolerance - (due - clock)
        return allowed, spare // period if spare > 0 else 0, retry_after, -((clock - due) // limit), 0
