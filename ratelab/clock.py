"""Clocks other than the machine's own."""

from __future__ import annotations

from ratelab.limiter import Clock

MAX_CLOCK_LAG_NS = 1_000_000_000
"""How far, in nanoseconds, a clock may lag behind itself before that counts as a step back."""


class ManualClock:
    """A clock that moves only when told to; `clock()` reads it."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now

    def advance(self, nanoseconds: int) -> None:
        """Move by `nanoseconds`, which may be negative."""
        self.now += nanoseconds


def steady(clock: Clock) -> Clock:
    """Make of any clock one that never runs backwards, to be read under one lock.

    While `clock` lags behind what it said before by up to `MAX_CLOCK_LAG_NS`, time stands still, so that a clock that
    swings to and fro mints nothing (golang/go#56287). A larger step back is taken for good: time goes on from
    where it was, so that nobody is locked out until the clock has caught up.
    """
    latest: int | None = None
    shift = 0

    def read() -> int:
        nonlocal latest, shift
        now = clock() + shift
        if latest is not None and now < latest:
            if latest - now > MAX_CLOCK_LAG_NS:
                shift += latest - now
            now = latest
        latest = now
        return now

    return read
