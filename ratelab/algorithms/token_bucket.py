"""Token bucket: tokens accumulate at the rate, and a request spends them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, Level, Row, State, Traits
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class TokenBucket:
    """A bucket of `burst` tokens, refilled at `rate`.

    A request takes `cost` tokens, and is denied if there are fewer. Tokens return at `rate`, with or without requests,
    until the bucket is full. A new key has a full bucket: it may send `burst` at once, and `rate` from then on. There
    is no timer. Each request first adds the tokens earned since the previous one, which is called lazy refill.

    Turner 1986, "New directions in communications (or which way to the information age?)", IEEE Communications
    24(10), read as a bucket that fills.
    """

    name: ClassVar[str] = "token-bucket"
    traits: ClassVar[Traits] = Traits(
        state=("tokens", "time"),
        at_most=(2, -1),
        level=Level("tokens in the bucket", lambda bucket, state, now: state[0] / bucket.period),
        charges=True,
        admits_need=True,
        bound=lambda bucket, latest, cost, idle: max(
            latest, bucket.capacity + idle * bucket.limit, cost * bucket.period
        ),
    )

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

    def step(self, state: State, now: int, cost: int) -> Row:
        """Refill for the time since the last step, then take `cost` tokens if there are enough."""
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

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision; if it is negative, refund a charge of the time `at`."""
        self.step(state, now, 0)
        state[0] = min(self.capacity, state[0] - cost * self.period)
