"""Clocks: their type, a manual one for tests, and wrappers that protect limiters from steps."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

Clock = Callable[[], int]
"""A function that returns nanoseconds since a fixed origin, such as `time.monotonic_ns`."""

MAX_CLOCK_LAG_NS = 1_000_000_000
"""How far a clock may lag behind its latest time before that counts as a step back."""

MAX_WALL_CLOCK_AGE_NS = 10_000_000
"""How long a limiter with aligned windows may take to notice a step of the wall clock."""

STEADY_CLOCKS: tuple[Clock, ...] = (time.monotonic_ns,)
"""Clocks that never step. In a tuple, which freezegun does not change: a limiter that a test creates outlives it."""


def wall_clock() -> int:
    """Return the nanoseconds since 1970-01-01 UTC.

    `time.time_ns` is looked up for each call, so this clock follows libraries that replace it in tests, such as
    freezegun and time-machine. Pass it as `clock=` to a limiter.
    """
    return time.time_ns()


class AlarmClock(Protocol):
    """A clock that calls functions at its times: waiting for a limiter that reads it takes its time, not real time."""

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        ...

    def call_at(self, when: int, wake: Callable[[], object]) -> Callable[[], object]:
        """Call `wake` once the clock shows `when` or later, from any thread; return a function that cancels this.

        If that is so already, `wake` is called at once. It never blocks, and may be called more often than once.
        """
        ...


class ManualClock:
    """A clock that moves only when it is set or advanced; `clock()` returns `now`, in nanoseconds.

    It is an `AlarmClock`: a thread or a task that waits for a limiter with this clock continues when the clock is moved
    far enough. `next_alarm` is the earliest time for which one waits.
    """

    def __init__(self, now: int = 0) -> None:
        self._alarms: dict[object, tuple[int, Callable[[], object]]] = {}
        self.now = now

    def __call__(self) -> int:
        """Return the time in nanoseconds."""
        return self.now

    @property
    def now(self) -> int:
        """The time in nanoseconds."""
        return self._now

    @now.setter
    def now(self, now: int) -> None:
        self._now = now
        for when, wake in sorted([*self._alarms.values()], key=lambda alarm: alarm[0]):
            if when <= now:
                wake()

    @property
    def next_alarm(self) -> int | None:
        """The earliest time for which a thread or a task waits; None if there is none."""
        return min((when for when, _ in [*self._alarms.values()]), default=None)

    def advance(self, nanoseconds: int) -> None:
        """Move the clock by `nanoseconds`, which may be negative."""
        self.now += nanoseconds

    def call_at(self, when: int, wake: Callable[[], object]) -> Callable[[], object]:
        """Call `wake` once the clock shows `when` or later; return a function that cancels this."""
        alarm = object()
        self._alarms[alarm] = when, wake
        if when <= self.now:
            wake()
        return lambda: self._alarms.pop(alarm, None)


def monotonic(clock: Clock) -> Clock:
    """Wrap `clock` so that it never goes backwards: later than every time that an earlier call has returned, or equal.

    While `clock` lags behind its latest time by at most `MAX_CLOCK_LAG_NS`, time stands still, so that a clock that
    jitters grants no extra quota (golang/go#56287). After a larger step back, time continues from the latest time, so
    that no client is locked out until the clock has caught up.
    """
    state: list[Any] = [None, 0]  # the latest time, how far it is ahead of the clock, and the state that replaces it

    def read() -> int:
        nonlocal state
        while True:
            current = state
            while len(current) > 2:
                current = current[2]
            latest, shift = current[:2]
            now = clock() + shift
            if latest is not None and now < latest:
                if latest - now > MAX_CLOCK_LAG_NS:
                    shift += latest - now
                now = latest
            new = [now, shift]
            current.append(new)
            if current[2] is new:
                state = new
                return int(now)

    return read


class Alignment(NamedTuple):
    """The relation of an aligned clock to its steady clock, from one look at the wall clock to the next."""

    offset: int
    """The time is this much ahead of the steady clock, and at least `floor`."""
    floor: int
    looked_at: int
    """Readings of the steady clock: of the last look at the wall clock, and of the last step back."""
    stepped_back_at: int
    ahead: int
    """How far the time is ahead of the wall clock, without `whole_windows`."""
    whole_windows: int
    """The length of the windows by which the time stays ahead; they do not move its windows."""


def aligned_clock(window: int | None, wall: Clock = time.time_ns, steady: Clock = time.monotonic_ns) -> Clock:
    """Return a clock that never goes backwards, and whose windows of `window` nanoseconds are those of `wall`.

    It runs at the pace of `steady`, and looks at `wall` every `MAX_WALL_CLOCK_AGE_NS`. A step forward, for example
    after the machine was suspended, is followed at once. After a step back, time runs at half its pace until its
    windows end when those of `wall` do: no quota is granted twice, and no wait takes more than twice as long. Without a
    `window`, as with those of a calendar, whose lengths differ, that is when the time is that of `wall` again.
    """

    def look(previous: Alignment | None) -> Alignment:
        now_on_wall = wall()  # first: if this thread is interrupted before the next line, the time is not ahead
        now = steady()
        if previous is None:
            return Alignment(now_on_wall - now, now_on_wall, now, now, 0, 0)
        offset, floor, looked_at, stepped_back_at, was_ahead, whole_windows = previous
        floor = max(floor, looked_at + MAX_WALL_CLOCK_AGE_NS + offset)  # no later time was returned
        ahead = now + offset - now_on_wall - whole_windows
        if ahead <= 0:
            return Alignment(offset - ahead, floor, now, stepped_back_at, 0, whole_windows)
        if ahead > was_ahead:
            stepped_back_at = now
        slowed = min(ahead if window is None else ahead % window, (now - looked_at) // 2)
        ahead -= slowed
        if window is not None and ahead % window == 0 and now - stepped_back_at >= window:
            whole_windows, ahead = whole_windows + ahead, 0  # a later step forward is a new one
        return Alignment(offset - slowed, floor, now, stepped_back_at, ahead, whole_windows)

    def schedule(alignment: Alignment) -> list[Any]:
        return [alignment.looked_at + MAX_WALL_CLOCK_AGE_NS, alignment.offset, alignment.floor, alignment]

    state = schedule(look(None))  # when to look again, what until then, and from then on the state that replaces it

    def read() -> int:
        nonlocal state
        while True:
            now, current = steady(), state
            if now < current[0]:
                now += current[1]
                return now if now > current[2] else current[2]  # type: ignore[no-any-return]
            while len(current) > 4:
                current = current[4]
            if now >= current[0]:  # from then on, no thread returns a time by this alignment
                current.append(schedule(look(current[3])))
                current = current[4]  # of several threads, the first to append has replaced it
            state = current

    return read


class DefaultClocks:
    """The clocks of limiters that are given none. Tests replace them before they create limiters."""

    def __init__(self) -> None:
        self.steady: Clock = time.monotonic_ns
        self.aligned: Callable[[int | None], Clock] = aligned_clock
        """Returns a clock that follows UTC, for windows of this length."""
        self.wall: Clock = wall_clock
        """The nanoseconds since 1970-01-01 UTC, for dates in responses."""
        self.alarms: AlarmClock | None = None
        """The clock by which clients wait for limiters with these clocks; None for real time."""


default_clocks = DefaultClocks()
"""The default clocks of this process."""
