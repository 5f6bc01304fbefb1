"""Leaky bucket: a queue that is served at the rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, State
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class LeakyBucket:
    """A queue of `burst` places, drained at `rate`.

    A request joins the queue if it fits, and is denied if it does not. It waits (`delay`) until all that is ahead of
    it has drained, so what leaves is evenly spaced however it arrives. An empty queue has saved nothing up: of a burst
    the first goes at once, and each other one waits its turn. The leaky bucket as a meter, which admits at once, is
    the token bucket upside down and decides exactly as it does.

    This is nginx's `limit_req` with a `burst` and without `nodelay`; without a `burst`, nothing queues:
    https://nginx.org/en/docs/http/ngx_http_limit_req_module.html
    """

    name: ClassVar[str] = "leaky-bucket"
    remembers: ClassVar[tuple[str, ...]] = ("level", "time")
    shows: ClassVar[str] = "cost in the queue"
    at_most: ClassVar[tuple[int, int]] = (1, 1)

    limit: int  # credits that drain in a nanosecond
    period: int  # credits that a unit of cost adds
    capacity: int  # credits that the queue holds

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the queue that grants `quota`."""
        return cls(quota.limit, quota.period, quota.burst * quota.period)

    def start(self, now: int) -> list[int]:
        """Return an empty queue."""
        return [0, now]

    def level(self, state: State, now: int) -> float:
        """Return the cost in the queue."""
        return state[0] / self.period

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return a bound on a step's numbers: see `ratelab.limiter.Bounded`."""
        return max(latest, self.capacity + cost * self.period, idle * self.limit)

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Drain for the time that has passed, then join the queue if `cost` still fits."""
        limit, period, capacity = self.limit, self.period, self.capacity
        last = state[1]
        now = now if now > last else last
        drained = state[0] - (now - last) * limit
        level = drained if drained > 0 else 0
        work = cost * period
        allowed = level + work <= capacity
        wait = -(-level // limit)
        retry_after = 0 if allowed else -((capacity - level - work) // limit) if work <= capacity else NEVER
        level = level + work if allowed else level
        state[0] = level
        state[1] = now
        return allowed, (capacity - level) // period, retry_after, -(-level // limit), wait if allowed else 0
