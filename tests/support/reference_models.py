"""Reference models of the algorithms: slow and obvious, with exact fractions and waits found by searching."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from fractions import Fraction
from typing import Protocol

from ratelab import NEVER, Decision, Quota


class Model(Protocol):
    """An algorithm as a textbook describes it; times are nanoseconds that never decrease."""

    def __init__(self, quota: Quota) -> None: ...
    def admits(self, now: int, cost: int) -> bool:
        """Return whether a request is admitted at `now` if no other comes before it."""
        ...

    def charge(self, now: int, cost: int) -> None:
        """Charge an admitted request."""
        ...

    def is_new(self, now: int) -> bool:
        """Return whether the key is fully replenished at `now`."""
        ...


def decide(model: Model, quota: Quota, now: int, cost: int) -> Decision:
    """Return the decision of `model`, charge it, and find each number by searching."""

    def first_wait(holds: Callable[[int], bool]) -> int:
        return bisect_left(range(2 * quota.window + 2), True, key=lambda wait: holds(now + wait))

    allowed = model.admits(now, cost)
    delay = first_wait(model.is_new) if allowed and isinstance(model, LeakyBucket) else 0
    retry_after = 0
    if allowed:
        model.charge(now, cost)
    elif cost > quota.burst:
        retry_after = NEVER
    else:
        retry_after = first_wait(lambda later: model.admits(later, cost))
    refused_from = bisect_left(range(quota.burst + 1), True, key=lambda more: not model.admits(now, more))
    return Decision(allowed, refused_from - 1, retry_after, first_wait(model.is_new), delay)


def seconds(nanoseconds: int) -> Fraction:
    return Fraction(nanoseconds, 10**9)


class TokenBucket:
    def __init__(self, quota: Quota) -> None:
        self.burst, self.per_second = quota.burst, quota.limit / seconds(quota.period)
        self.tokens, self.last = Fraction(quota.burst), 0

    def tokens_at(self, now: int) -> Fraction:
        return min(Fraction(self.burst), self.tokens + seconds(now - self.last) * self.per_second)

    def admits(self, now: int, cost: int) -> bool:
        return cost <= self.tokens_at(now)

    def charge(self, now: int, cost: int) -> None:
        self.tokens, self.last = self.tokens_at(now) - cost, now

    def is_new(self, now: int) -> bool:
        return self.tokens_at(now) == self.burst


class LeakyBucket:
    """A queue: a request is delayed until the work ahead of it has drained."""

    def __init__(self, quota: Quota) -> None:
        self.burst, self.per_second = quota.burst, quota.limit / seconds(quota.period)
        self.level, self.last = Fraction(0), 0

    def level_at(self, now: int) -> Fraction:
        return max(Fraction(0), self.level - seconds(now - self.last) * self.per_second)

    def admits(self, now: int, cost: int) -> bool:
        return self.level_at(now) + cost <= self.burst

    def charge(self, now: int, cost: int) -> None:
        self.level, self.last = self.level_at(now) + cost, now

    def is_new(self, now: int) -> bool:
        return self.level_at(now) == 0


class FixedWindow:
    def __init__(self, quota: Quota) -> None:
        self.burst, self.window = quota.burst, quota.window
        self.used: Counter[int] = Counter()

    def admits(self, now: int, cost: int) -> bool:
        return self.used[now // self.window] + cost <= self.burst

    def charge(self, now: int, cost: int) -> None:
        self.used[now // self.window] += cost

    def is_new(self, now: int) -> bool:
        return self.used[now // self.window] == 0


class SlidingLog:
    def __init__(self, quota: Quota) -> None:
        self.burst, self.window = quota.burst, quota.window
        self.admissions: list[int] = []

    def counting(self, now: int) -> int:
        return sum(at + self.window > now for at in self.admissions)

    def admits(self, now: int, cost: int) -> bool:
        return self.counting(now) + cost <= self.burst

    def charge(self, now: int, cost: int) -> None:
        self.admissions += [now] * cost

    def is_new(self, now: int) -> bool:
        return self.counting(now) == 0


class SlidingCounter:
    def __init__(self, quota: Quota) -> None:
        self.burst, self.window = quota.burst, quota.window
        self.used: Counter[int] = Counter()

    def counted(self, now: int) -> tuple[int, int]:
        """Return the cost in the previous and in the current window of `now`."""
        return self.used[now // self.window - 1], self.used[now // self.window]

    def admits(self, now: int, cost: int) -> bool:
        previous, current = self.counted(now)
        still_inside = 1 - seconds(now % self.window) / seconds(self.window)
        return previous * still_inside + current + cost <= self.burst

    def charge(self, now: int, cost: int) -> None:
        self.used[now // self.window] += cost

    def is_new(self, now: int) -> bool:
        return self.counted(now) == (0, 0)


class Gcra:
    def __init__(self, quota: Quota) -> None:
        self.interval = seconds(quota.period) / quota.limit
        self.tolerance = quota.burst * self.interval
        self.arrival: Fraction | None = None  # the theoretical arrival time

    def due(self, now: int) -> Fraction:
        return seconds(now) if self.arrival is None else max(self.arrival, seconds(now))

    def admits(self, now: int, cost: int) -> bool:
        return self.due(now) + cost * self.interval <= seconds(now) + self.tolerance

    def charge(self, now: int, cost: int) -> None:
        self.arrival = self.due(now) + cost * self.interval

    def is_new(self, now: int) -> bool:
        return self.due(now) == seconds(now)


MODELS: dict[str, type[Model]] = {
    "token-bucket": TokenBucket,
    "leaky-bucket": LeakyBucket,
    "fixed-window": FixedWindow,
    "sliding-log": SlidingLog,
    "sliding-counter": SlidingCounter,
    "gcra": Gcra,
}
