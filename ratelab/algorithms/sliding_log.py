"""Sliding log: remember every admission, and so be exact."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.errors import InputError
from ratelab.limiter import NEVER, State
from ratelab.quota import Quota

LONGEST_LOG = 1_000_000
"""The most admissions that one key's log may hold: 8 MB in a column of integers, 40 MB in a list of them."""


@dataclass(frozen=True, slots=True)
class SlidingLog:
    """`burst` in any window of `burst / rate`, exactly.

    The time of every admitted unit is kept in a ring and counts until it is a window old. A request is admitted if its
    `cost` fits beside what still counts. No window, wherever it is laid, holds more than `burst`: the reference that
    the others are held against. That is paid for in memory, with `burst` numbers a key.

    In a store it is usually a sorted set: https://www.figma.com/blog/an-alternative-approach-to-rate-limiting/
    """

    name: ClassVar[str] = "sliding-log"
    remembers: ClassVar[tuple[str, ...]] = ("head", "count", "time", "a ring of burst times")
    shows: ClassVar[str] = "in the log"
    at_most: ClassVar[tuple[int, int]] = (1, 0)
    choose_when: ClassVar[str] = "the limit is a promise, and `burst` is small"
    say: ClassVar[str] = (
        "I would take a sliding log where the limit is a promise: no window, wherever it is laid, holds more. It "
        "keeps the time of every admitted request, O(burst) memory where the others are O(1), so I would keep it for "
        "small limits, and for tests, as the truth that the others are measured against."
    )

    burst: int  # admissions that may count at once, and places in the ring
    window: int  # nanoseconds for which an admission counts

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the log that grants `quota`; refuse a burst whose log could not be held in memory."""
        if quota.burst > LONGEST_LOG:
            raise InputError(
                f"sliding-log keeps the time of every admission, so burst must be at most {LONGEST_LOG} "
                f"({40 * LONGEST_LOG // 10**6} MB a key), got {quota.burst}: use sliding-counter or lower the burst"
            )
        return cls(quota.burst, quota.window)

    def start(self, now: int) -> list[int]:
        """Return an empty log."""
        return [0, 0, now] + [0] * self.burst

    def level(self, state: State, now: int) -> float:
        """Return the admissions that count."""
        return state[1]

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return a bound on a step's numbers: see `ratelab.limiter.Bounded`."""
        return max(latest + self.window, self.burst + cost)

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Forget the admissions that are a window old, then log `cost` more if they fit beside the rest."""
        burst, window = self.burst, self.window
        head, count = state[0], state[1]
        now = now if now > state[2] else state[2]
        while count > 0 and state[3 + head] + window <= now:
            head = head + 1 if head + 1 < burst else 0
            count -= 1
        allowed = count + cost <= burst
        retry_after = 0 if allowed else NEVER
        if allowed:
            for place in range(head + count, head + count + cost):
                state[3 + (place if place < burst else place - burst)] = now
            count += cost
        elif cost <= burst:  # the oldest so many must go first
            retry_after = state[3 + (head + count + cost - burst - 1) % burst] + window - now
        state[0] = head
        state[1] = count
        state[2] = now
        newest = state[3 + (head + count - 1) % burst]
        return allowed, burst - count, retry_after, newest + window - now if count > 0 else 0, 0
