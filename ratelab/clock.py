"""The type of clocks, and a manual clock for tests and simulations."""

from __future__ import annotations

from collections.abc import Callable

Clock = Callable[[], int]
"""A function that returns nanoseconds since a fixed origin, such as `time.monotonic_ns`."""


class ManualClock:
    """A clock that moves only when it is set or advanced; `clock()` returns `now`, in nanoseconds."""

    def __init__(self, now: int = 0) -> None:
        self.now = now

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now

    def advance(self, nanoseconds: int) -> None:
        """Move the clock by `nanoseconds`, which may be negative."""
        self.now += nanoseconds
