"""Leaky bucket: a queue drained at the rate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.limiter import NEVER, Level, Row, State, Traits
from ratelab.quota import Quota


@dataclass(frozen=True, slots=True)
class LeakyBucket:
    """A queue of `burst` places, drained at `rate`.

    A request joins the queue if it fits, and is denied if it does not. It waits (`delay`) until the queue ahead of it
    has drained, so departures are evenly spaced however requests arrive. An empty queue saves nothing up: the first
    request of a burst leaves at once, and each of the others waits its turn. The leaky bucket as a meter, which admits
    without delay, is the token bucket upside down and makes the same decisions.

    This is nginx's `limit_req` with a `burst` and without `nodelay`; without a `burst`, nothing queues:
    https://nginx.org/en/docs/http/ngx_http_limit_req_module.html
    """

    name: ClassVar[str] = "leaky-bucket"
    traits: ClassVar[Traits] = Traits(
        state=("level", "time"),
        at_most=(1, 1),
        queues=True,
        level=Level("cost in the queue", lambda queue, state, now: state[0] / queue.period),
        charges=True,
        admits_need=True,
        bound=lambda queue, latest, cost, idle: max(latest, queue.capacity + cost * queue.period, idle * queue.limit),
    )

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

    def step(self, state: State, now: int, cost: int) -> Row:
        """Drain for the time since the last step, then join the queue if `cost` fits."""
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

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision; if it is negative, refund a charge of the time `at`."""
        self.step(state, now, 0)
        state[0] = max(0, state[0] + cost * self.period)
