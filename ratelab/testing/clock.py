"""Clock of tests, which moves the time of every limiter of this process."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from fractions import Fraction
from math import inf, isfinite, nextafter
from threading import RLock, Timer, get_ident

from ratelab.clock import STEADY_CLOCKS, Clock, default_clocks, wall_clock
from ratelab.errors import InputError, short_repr, warn_of_configuration
from ratelab.quota import NS_PER_S, NS_PER_US, UNITS, parse_duration
from ratelab.stores.sleepers import in_event_loop

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)

MAX_EXACT_SECONDS = 2**23
"""From this on, adjacent floating-point numbers of seconds are almost a nanosecond apart, or more."""


PATIENCE_S = 5.0
"""Seconds of real time after which the time moves to that of a client which nothing has woken."""


class LimiterClock:
    """The time of every limiter of this process that is given no clock, and of the store of `ratelab_store`.

    While it is stopped, time moves only by `advance` and `move_to`, and clients wait for that: it is an `AlarmClock`.
    UTC begins at midnight, so that windows that follow it begin then, too, whenever a test runs. Afterwards, the time
    of each limiter runs on from where it is, since it never goes back. A limiter that is created later begins at the
    time of the machine.
    """

    def __init__(self) -> None:
        self.stores = set[str]()
        """Paths of the stores whose servers decide by this clock."""
        self._stopped_at = 0
        """The steady time while it is stopped."""
        self._ahead = 0
        """How far it is ahead of that of the machine while it runs."""
        self._utc: tuple[int | None, tuple[int, ...]] = None, (0,)
        """UTC while it is stopped; and how far limiters are ahead of UTC, by the number of stops before their creation.

        In the next stop, that is a whole number of days.
        """
        self._alarms: dict[object, Callable[[], object]] = {}
        self._thread = 0
        """The thread that has stopped it."""
        self._lock = RLock()
        self._utc_offset = time.time_ns() - time.monotonic_ns()
        """UTC minus the steady clock of the machine, which time-machine does not move."""

    def __call__(self) -> int:
        """Return the steady time in nanoseconds."""
        return read_machine() + self._ahead if self._utc[0] is None else self._stopped_at

    def call_at(self, when: int, wake: Callable[[], object]) -> Callable[[], object]:
        """Call `wake` whenever the time has moved, until the function that is returned is called.

        If the thread of the test waits, nothing else would move the time: it moves to `when` at once. For any other
        thread or task, it does after `PATIENCE_S`, so that no test waits without end.
        """
        alarm, stops = object(), len(self._utc[1])
        timer = Timer(PATIENCE_S, self._reach, [when, stops])
        timer.daemon = True
        self._alarms[alarm] = wake
        if get_ident() == self._thread and not in_event_loop() and not self._find_other_limiters():
            self._reach(when, stops)
        else:
            timer.start()

        def cancel() -> None:
            timer.cancel()
            self._alarms.pop(alarm, None)

        return cancel

    @property
    def now(self) -> datetime:
        """UTC, to the microsecond."""
        return EPOCH + timedelta(microseconds=self._check_stopped() // NS_PER_US)

    @property
    def utc_ns(self) -> int | None:
        """The nanoseconds since 1970-01-01 UTC; None while time runs."""
        return self._utc[0]

    @property
    def waiting(self) -> int:
        """The number of clients that wait for the time to move, of each key the first in line."""
        return len(self._alarms)

    def advance(self, duration: float | str | timedelta) -> None:
        """Move the time of every limiter forward, and wake the clients that wait for it.

        `duration` is a number of seconds, a text such as `1min`, or a `timedelta`. Raises `InputError` for another
        value, and for one below 0.
        """
        self._move(_to_nanoseconds(duration))

    def move_to(self, time: datetime) -> None:
        """Move the time of every limiter forward until `now` is `time`, which has a time zone.

        Raises `InputError` for an earlier time.
        """
        if not isinstance(time, datetime) or time.tzinfo is None:
            raise InputError(f"time must be a datetime with a time zone, got {short_repr(time)}: give tzinfo=")
        distance = (time - EPOCH) // timedelta(microseconds=1) * NS_PER_US - self._check_stopped()
        if distance < 0:
            raise InputError(f"time must be {self.now} or later, got {time}: the time of limiters never goes back")
        self._move(distance)

    def install(self) -> None:
        """Have the limiters that are created from now on follow this clock."""
        default_clocks.steady = self.__call__
        default_clocks.aligned = self._create_aligned_clock
        default_clocks.wall = self._read_utc

    @contextmanager
    def stop(self) -> Iterator[None]:
        """Stop the time during the block."""
        utc, ahead = self._utc
        if utc is not None:
            raise InputError("the time of limiters is stopped already: use one ratelab_clock at a time")
        day = UNITS["day"]
        midnight = ((read_machine() + self._utc_offset) // day + 1) * day
        self._stopped_at = self()
        self._utc = midnight, tuple(-(-one // day) * day for one in ahead)
        self._thread, default_clocks.alarms = get_ident(), self
        try:
            yield
        finally:
            default_clocks.alarms = None
            machine, (utc, ahead) = read_machine(), self._utc
            self._ahead = self._stopped_at - machine
            step_back = max(0, self._check_stopped() - machine - self._utc_offset)
            self._utc = None, (*(one + step_back for one in ahead), 0)
            self._wake_all()  # to continue in real time

    def _move(self, nanoseconds: int) -> None:
        self._check_stopped()
        for name in sorted(self._find_other_limiters()):
            warn_of_configuration(
                f"the limiter {name} decides by the clock of its store, which ratelab_clock does not move: "
                "use the fixture ratelab_store"
            )
        self._reach(self._stopped_at + nanoseconds, len(self._utc[1]))

    def _reach(self, when: int, stops: int) -> None:
        """Move the steady time to `when` unless that is over, and UTC as far, while the same stop lasts."""
        with self._lock:
            utc, ahead = self._utc
            distance = when - self._stopped_at
            if utc is not None and distance > 0 and len(ahead) == stops:
                self._stopped_at = when
                self._utc = utc + distance, ahead
        self._wake_all()

    def _wake_all(self) -> None:
        for wake in [*self._alarms.values()]:
            wake()

    def _check_stopped(self) -> int:
        """Return UTC in nanoseconds; raise `InputError` unless it is stopped."""
        utc = self._utc[0]
        if utc is None:
            raise InputError("the time of limiters runs: use the fixture ratelab_clock in the test")
        return utc

    def _read_utc(self) -> int:
        utc = self._utc[0]
        return wall_clock() if utc is None else utc

    def _create_aligned_clock(self, _window: int | None) -> Clock:
        stops = len(self._utc[1]) - 1

        def read() -> int:
            utc, ahead = self._utc
            return (read_machine() + self._utc_offset if utc is None else utc) + ahead[stops]

        return read

    def _find_other_limiters(self) -> set[str]:
        """Return the names of limiters whose stores decide by a clock of their own."""
        module = sys.modules.get("ratelab.stores.valkey.script")
        if module is None:
            return set()
        if not self.stores.issuperset(address for address, _ in module.list_connected()):
            gc.collect()  # limiters of earlier tests
        return {name for address, name in module.list_connected() if address not in self.stores}


def read_machine() -> int:
    """Return the time of the machine's steady clock; freezegun replaces the variables of a module, not tuples."""
    return STEADY_CLOCKS[0]()


def _to_nanoseconds(duration: object) -> int:
    if isinstance(duration, str):
        return parse_duration(duration)
    nanoseconds = -1
    if isinstance(duration, timedelta):
        nanoseconds = duration // timedelta(microseconds=1) * NS_PER_US
    elif isinstance(duration, (int, float)) and isfinite(duration):
        # The float of a longer `retry_after` may be too short by some nanoseconds.
        seconds = duration if duration < MAX_EXACT_SECONDS else nextafter(duration, inf)
        nanoseconds = round(Fraction(seconds) * NS_PER_S)
    if nanoseconds < 0:
        rule = "a duration must be a number of seconds >= 0, a timedelta, or a text such as 1min"
        raise InputError(f"{rule}, got {short_repr(duration)}")
    return nanoseconds


limiter_clock = LimiterClock()
"""The clock of this process."""
