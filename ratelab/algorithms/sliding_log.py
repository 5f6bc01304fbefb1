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

    The times of the last `burst` admitted units are kept in a ring, and each counts until it is a window old. A request
    is admitted if as many of the oldest as it costs count no more; its own times follow the newest, where a place is
    spare. No window, wherever it is laid, holds more than `burst`: the reference that the others are held against. That
    is paid for in memory, with a number for each.

    In a store it is usually a sorted set: https://www.figma.com/blog/an-alternative-approach-to-rate-limiting/
    """

    name: ClassVar[str] = "sliding-log"
    remembers: ClassVar[tuple[str, ...]] = ("head", "time", "oldest", "a ring of burst + 1 times")
    shows: ClassVar[str] = "in the log"
    only_tells: ClassVar[tuple[int, ...]] = (2,)  # the place of the oldest that counts
    at_most: ClassVar[tuple[int, int]] = (1, 0)

    burst: int  # admissions that may count at once; the ring has a place for each, and a spare one
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
        """Return a log whose admissions are all a window old."""
        return [0, now, 0] + [now - self.window] * (self.burst + 1)

    def level(self, state: State, now: int) -> float:
        """Return the admissions that count."""
        return (state[0] - state[2]) % (self.burst + 1)

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return a bound on a step's numbers: see `ratelab.limiter.Bounded`."""
        return max(latest + self.window, self.burst + cost)

    def reached(self, asked: int) -> int:
        """Return how far a state is used until so much is asked for: see `ratelab.limiter.LongStated`."""
        return 4 + asked

    def looks_at(self, state: State) -> int:
        """Return where the next step will look: see `ratelab.limiter.LongStated`."""
        return 4 + state[0]

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Forget the admissions that are a window old, and admit `cost` if so many places are free by now."""
        size, window = self.burst + 1, self.window
        head, oldest = state[0], state[2]  # the place of the next admission, and of the oldest that counts
        now = now if now > state[1] else state[1]
        for _ in range(size):
            if oldest == head or state[3 + oldest] + window > now:
                break
            oldest = oldest + 1 if oldest + 1 < size else 0
        fits = cost < size
        last = head + cost if fits else head
        last = last if last < size else last - size
        free = state[3 + last] + window  # when the last place that it takes is
        allowed = fits and (cost == 0 or free <= now)
        retry_after = 0 if allowed else free - now if fits else NEVER
        state[3 + head] = now  # it counts if the head moves on
        for n in range(1, cost if allowed else 0):
            state[3 + (head + n) % size] = now
        head = last if allowed else head
        state[0] = head
        state[1] = now
        state[2] = oldest
        rest = state[3 + (head - 1) % size] + window - now
        return allowed, size - 1 - (head - oldest) % size, retry_after, rest if rest > 0 else 0, 0
