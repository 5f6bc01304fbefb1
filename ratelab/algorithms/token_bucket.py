"""Token bucket: save up for a burst, then live on the rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, State
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """A bucket of `burst` tokens, refilled at `rate`.

    A request takes `cost` tokens, and is denied if so many are not there. Tokens come back at `rate`, whether anybody
    asks or not, until the bucket is full. A key never seen before has a full bucket, so it may send `burst` at once
    and then `rate` for ever. Nothing ticks: what a key has earned since its last request is added at its next, which is
    called lazy refill.

    Turner 1986, "New directions in communications (or which way to the information age?)", IEEE Communications
    24(10), read as a bucket that fills.
    """

    name: ClassVar[str] = "token-bucket"
    remembers: ClassVar[tuple[str, ...]] = ("tokens", "time")
    shows: ClassVar[str] = "tokens in the bucket"
    at_most: ClassVar[tuple[int, int]] = (2, -1)

    limit: int  # credits that a nanosecond earns
    period: int  # credits that a unit of cost spends
    capacity: int  # credits that a full bucket holds

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the bucket that grants `quota`."""
        return cls(quota.limit, quota.period, quota.burst * quota.period)

    def start(self, now: int) -> list[int]:
        """Return a full bucket."""
        return [self.capacity, now]

    def level(self, state: State, now: int) -> float:
        """Return the tokens in the bucket."""
        return state[0] / self.period

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return a bound on a step's numbers: see `ratelab.limiter.Bounded`."""
        return max(latest, self.capacity + idle * self.limit, cost * self.period)

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Refill for the time that has passed, then take `cost` tokens if they are there."""
        limit, period, capacity = self.limit, self.period, self.capacity
        last = state[1]
        now = now if now > last else last
        refilled = state[0] + (now - last) * limit
        tokens = refilled if refilled < capacity else capacity
        price = cost * period
        allowed = price <= tokens
        retry_after = 0 if allowed else -((tokens - price) // limit) if price <= capacity else NEVER
        tokens = tokens - price if allowed else tokens
        state[0] = tokens
        state[1] = now
        return allowed, tokens // period, retry_after, -((tokens - capacity) // limit), 0
