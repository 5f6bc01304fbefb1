"""Sliding log: the time of every admission, and therefore an exact limit."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import ClassVar, Self

from ratelab.errors import InputError
from ratelab.limiter import NEVER, Level, Row, State, Traits
from ratelab.quota import Quota

MAX_LOG_ENTRIES = 1_000_000
"""Largest burst: 8 MB for each key as an array of integers, 40 MB as a list."""


@dataclass(frozen=True, slots=True)
class SlidingLog:
    """`burst` in any window of `burst / rate`, exactly.

    A ring holds the times of the last `burst` admitted units; each counts until it is one window old. A request of
    `cost` is admitted if enough of the oldest entries have expired. Its own times are written after the newest entry,
    where one free place is reserved. No window, wherever it begins, holds more than `burst`, so this is the reference
    for the other algorithms. The price is memory: one integer for each unit.

    In a store it is usually a sorted set: https://www.figma.com/blog/an-alternative-approach-to-rate-limiting/
    """

    name: ClassVar[str] = "sliding-log"
    traits: ClassVar[Traits] = Traits(
        state=("head", "time", "oldest", "a ring of burst + 1 times"),
        at_most=(1, 0),
        level=Level("in the log", lambda log, state, now: (state[0] - state[2]) % (log.burst + 1)),
        charges=True,
        bound=lambda log, latest, cost, idle: max(latest + log.window, log.burst + cost),
    )

    burst: int  # unexpired admissions; the ring has one more place than that
    window: int  # nanoseconds for which an admission counts

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the log that grants `quota`; raise `InputError` for a burst whose log does not fit in memory."""
        if quota.burst > MAX_LOG_ENTRIES:
            raise InputError(
                f"sliding-log keeps the time of every admission, so burst must be at most {MAX_LOG_ENTRIES} "
                f"({40 * MAX_LOG_ENTRIES // 10**6} MB a key), got {quota.burst}: use sliding-counter or lower the burst"
            )
        return cls(quota.burst, quota.window)

    def start(self, now: int) -> list[int]:
        """Return a log whose entries have all expired."""
        return [0, now, 0] + [now - self.window] * (self.burst + 1)

    def step(self, state: State, now: int, cost: int) -> Row:
        """Skip the entries that are a window old, and admit `cost` if enough places are free."""
        size, window = self.burst + 1, self.window
        head, oldest = state[0], state[2]  # places of the next entry and of the oldest unexpired one
        now = now if now > state[1] else state[1]
        for _ in range(size):
            if oldest == head or state[3 + oldest] + window > now:
                break
            oldest = oldest + 1 if oldest + 1 < size else 0
        fits = cost < size
        last = head + cost if fits else head
        last = last if last < size else last - size
        free = state[3 + last] + window  # when the last place that it needs becomes free
        allowed = fits and (cost == 0 or free <= now)
        retry_after = 0 if allowed else free - now if fits else NEVER
        state[3 + head] = now  # takes effect only if the head advances
        for n in range(1, cost if allowed else 0):
            state[3 + (head + n) % size] = now
        head = last if allowed else head
        state[0] = head
        state[1] = now
        state[2] = oldest
        rest = state[3 + (head - 1) % size] + window - now
        return allowed, size - 1 - (head - oldest) % size, retry_after, rest if rest > 0 else 0, 0

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision; if it is negative, refund a charge of the time `at`.

        Beyond the burst, a charge replaces the oldest entries, since decisions depend on the newest ones alone.
        Without a time, the oldest entries are refunded, which would have expired first.
        """
        self.step(state, now, 0)
        size, now = self.burst + 1, state[1]
        for _ in range(min(cost, self.burst)):
            state[3 + state[0]] = now
            state[0] = (state[0] + 1) % size
            if state[0] == state[2]:
                state[2] = (state[2] + 1) % size
        if cost < 0:
            self._refund(state, -cost, at)

    def _refund(self, state: State, cost: int, at: int | None) -> None:
        """Remove up to `cost` entries of time `at`, or the oldest; move the older ones up, and expire their places."""
        size, head, oldest = self.burst + 1, state[0], state[2]
        entries = [state[3 + (oldest + n) % size] for n in range((head - oldest) % size)]
        first = 0 if at is None else bisect_left(entries, at)
        last = len(entries) if at is None else bisect_right(entries, at)
        removed = min(cost, last - first)
        del entries[first : first + removed]
        for n, time in enumerate([state[1] - self.window] * removed + entries):
            state[3 + (oldest + n) % size] = time
        state[2] = (oldest + removed) % size
