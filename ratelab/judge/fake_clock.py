"""Fake clock of a process: `time`, `datetime`, sleeps and the event loops of asyncio follow it; nothing waits."""

from __future__ import annotations

import asyncio
import datetime
import inspect
import selectors
import threading
import time
from collections.abc import Callable
from math import ceil
from types import SimpleNamespace
from typing import Any, NoReturn, cast

from ratelab.quota import NS_PER_S

EPOCH_NS = 1_893_456_000 * NS_PER_S
"""The time at which the clock starts: 2030-01-01 UTC."""

BOOT_NS = 100_000 * NS_PER_S
"""The monotonic time at that moment."""

MAX_IO_WAIT_S = 2.0
"""Real seconds that an event loop waits for sockets before the time of its next timer comes."""

EXECUTOR_MODULES = ("concurrent.futures.thread", "anyio", "asyncio")
"""Modules whose threads only run work that they are given; the time in them does not matter."""

TIMER_RESOLUTION_S = 1e-7
"""How early an event loop may call a timer; floats of seconds are coarser than nanoseconds."""

_LOCAL_TIMES = ("localtime", "gmtime", "ctime", "strftime", "asctime")


class Unsuitable(BaseException):
    """A candidate does something that a fake clock cannot follow; the message states it."""


class FakeClock:
    """A monotonic clock and a wall clock, `wall_offset_ns` ahead of it; both stand still until they are moved."""

    def __init__(self) -> None:
        self.now_ns = 0
        """Nanoseconds since the clock started."""
        self.wall_offset_ns = 0
        self.reads = 0
        """How often the candidate has read the time."""
        self.on_change: Callable[[], object] = lambda: None
        """Called after each change, to move the clock of a store too."""
        self.problem: str | None = None
        """Why the candidate cannot be judged by this clock, even if it has caught the exception."""

    def advance(self, nanoseconds: int) -> None:
        """Move both clocks on."""
        if nanoseconds > 0:
            self.now_ns += nanoseconds
            self.on_change()

    def move_to(self, now_ns: int) -> None:
        """Move both clocks to a time, unless that is over."""
        self.advance(now_ns - self.now_ns)

    def step_wall(self, nanoseconds: int) -> None:
        """Set the wall clock alone forward or, with a negative argument, back."""
        self.wall_offset_ns += nanoseconds
        self.on_change()

    @property
    def utc_ns(self) -> int:
        """The time of the wall clock in nanoseconds since 1970."""
        return EPOCH_NS + self.now_ns + self.wall_offset_ns

    def read_wall(self) -> int:
        """Return `utc_ns`, and count the call."""
        self.reads += 1
        return self.utc_ns

    def read_monotonic(self) -> int:
        """Return the monotonic time in nanoseconds, and count the call."""
        self.reads += 1
        return BOOT_NS + self.now_ns

    def sleep(self, seconds: float) -> None:
        """Do as `time.sleep`, in no time."""
        if seconds < 0:
            raise ValueError("sleep length must be non-negative")
        self.advance(ceil(seconds * NS_PER_S))

    def reject(self, problem: str) -> NoReturn:
        """Raise `Unsuitable`."""
        self.problem = problem
        raise Unsuitable(problem)


def install(clock: FakeClock) -> None:
    """Have this process read `clock` from now on, in modules that are imported later and in calls of `time.*`.

    Modules of the standard library that have taken a function of `time` by name keep the real one, which their own
    timeouts need. A thread that the candidate starts, such as a timer, raises `Unsuitable`.
    """
    _replace_time(clock)
    _replace_datetime(clock)
    _replace_waits(clock)
    selectors.DefaultSelector = _make_selector(clock)  # type: ignore[assignment,misc]
    start = threading.Thread.start

    def start_thread(self: threading.Thread) -> None:
        frame = inspect.currentframe()
        caller = frame and frame.f_back
        while caller is not None and str(caller.f_globals.get("__name__")) == "threading":
            caller = caller.f_back  # Timer and others that only call the base class
        name = str(caller.f_globals.get("__name__")) if caller else ""
        if not name.startswith((*EXECUTOR_MODULES, "ratelab.judge")):
            kind = type(self).__name__
            clock.reject(f"starts a thread of its own (threading.{kind}), which a fake clock cannot drive")
        start(self)

    threading.Thread.start = start_thread  # type: ignore[method-assign]


def _replace_time(clock: FakeClock) -> None:
    clock_ids = {getattr(time, name, None) for name in ("CLOCK_REALTIME", "CLOCK_REALTIME_COARSE", "CLOCK_TAI")}

    clock_info = time.get_clock_info

    def read_id(clock_id: int) -> int:
        return clock.read_wall() if clock_id in clock_ids else clock.read_monotonic()

    functions: dict[str, Callable[..., Any]] = {
        "time": lambda: clock.read_wall() / NS_PER_S,
        "time_ns": clock.read_wall,
        "monotonic": lambda: clock.read_monotonic() / NS_PER_S,
        "monotonic_ns": clock.read_monotonic,
        "perf_counter": lambda: clock.read_monotonic() / NS_PER_S,
        "perf_counter_ns": clock.read_monotonic,
        "clock_gettime": lambda clock_id: read_id(clock_id) / NS_PER_S,
        "clock_gettime_ns": read_id,
        "sleep": clock.sleep,
    }
    functions["get_clock_info"] = lambda name: SimpleNamespace(
        **{**vars(clock_info(name)), "resolution": TIMER_RESOLUTION_S}
    )
    functions |= {name: _with_default(getattr(time, name), clock, name) for name in _LOCAL_TIMES}
    for name, function in functions.items():
        if hasattr(time, name):
            setattr(time, name, staticmethod(function))  # as an attribute of a class, it is not a method


def _with_default(function: Callable[..., Any], clock: FakeClock, name: str) -> Callable[..., Any]:
    """Return a function of `time` that formats or converts the time of `clock` unless it gets another."""
    wanted = 2 if name == "strftime" else 1  # arguments, with which the time of the machine is not read
    convert = time.localtime

    def call(*arguments: Any) -> Any:
        if len(arguments) >= wanted and arguments[-1] is not None:
            return function(*arguments)
        seconds = clock.read_wall() / NS_PER_S
        moment = convert(seconds) if name in ("asctime", "strftime") else seconds
        return function(*arguments[: wanted - 1], moment)

    return call


def _replace_datetime(clock: FakeClock) -> None:
    real_date: Any = datetime.date
    real_datetime: Any = datetime.datetime

    class RealInstances(type):
        """Counts instances of the real class as its own."""

        def __instancecheck__(cls, instance: object) -> bool:
            return isinstance(instance, cast("type", cls.__base__))

        def __subclasscheck__(cls, subclass: type) -> bool:
            return issubclass(subclass, cast("type", cls.__base__))

    class FakeDate(real_date, metaclass=RealInstances):  # type: ignore[misc]
        """A date whose `today` follows the fake clock."""

        @classmethod
        def today(cls) -> Any:
            return cls.fromtimestamp(clock.read_wall() / NS_PER_S)

    class FakeDatetime(real_datetime, metaclass=RealInstances):  # type: ignore[misc]
        """A time whose `now`, `utcnow` and `today` follow the fake clock."""

        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> Any:
            utc_ns = clock.read_wall()
            moment = cls.fromtimestamp(utc_ns // NS_PER_S, tz)
            return moment.replace(microsecond=utc_ns % NS_PER_S // 1000)

        @classmethod
        def utcnow(cls) -> Any:
            return cls.now(datetime.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls) -> Any:
            return cls.now()

    for fake, name in ((FakeDate, "date"), (FakeDatetime, "datetime")):
        fake.__name__ = fake.__qualname__ = name
        fake.__module__ = "datetime"
        setattr(datetime, name, fake)


def _replace_waits(clock: FakeClock) -> None:
    """Let the timeouts of events and conditions pass at once: no other thread of the candidate could set them."""
    harness = {threading.main_thread()}
    real_event_wait, real_condition_wait = threading.Event.wait, threading.Condition.wait

    def follows_clock(timeout: float | None) -> bool:
        thread = threading.current_thread()
        return timeout is not None and (thread in harness or thread.name.startswith("judge-"))

    def wait_for_event(self: threading.Event, timeout: float | None = None) -> bool:
        if timeout is None or not follows_clock(timeout):
            return real_event_wait(self, timeout)
        if not self.is_set():
            clock.sleep(max(0, timeout))
        return self.is_set()

    def wait_for_condition(self: threading.Condition, timeout: float | None = None) -> bool:
        if timeout is None or not follows_clock(timeout):
            return real_condition_wait(self, timeout)
        clock.sleep(max(0, timeout))
        return False

    threading.Event.wait = wait_for_event  # type: ignore[method-assign]
    threading.Condition.wait = wait_for_condition  # type: ignore[method-assign]


def _make_selector(clock: FakeClock) -> type[selectors.BaseSelector]:
    base: Any = selectors.DefaultSelector

    class Selector(base):  # type: ignore[misc]
        """Moves the clock to the next timer of its loop instead of waiting; waits for sockets in real time."""

        is_idle = False
        """Whether no task waits for a socket, so that there is no need to wait for one."""

        def select(self, timeout: float | None = None) -> Any:
            if timeout is None:
                return super().select(None)
            ready = super().select(0)
            if ready or timeout <= 0:
                return ready
            if len(self.get_map()) > 1 and not self.is_idle:  # sockets, besides the one by which a loop wakes itself
                ready = super().select(min(timeout, MAX_IO_WAIT_S))
            if not ready:
                clock.advance(ceil(timeout * NS_PER_S) + 1)
            return ready

    return Selector


class FakeLoop(asyncio.SelectorEventLoop):
    """The event loop that runs coroutines of a candidate."""

    def __init__(self, clock: FakeClock) -> None:
        self._fake_clock = clock
        self._fake_selector: Any = selectors.DefaultSelector()
        super().__init__(self._fake_selector)

    def time(self) -> float:
        """Return the monotonic time in seconds; the candidate has not read it."""
        return (BOOT_NS + self._fake_clock.now_ns) / NS_PER_S

    def run_for(self, nanoseconds: int) -> None:
        """Let this much time pass, with the timers and tasks that are due in it."""
        if nanoseconds > 0:
            self._fake_selector.is_idle = not asyncio.all_tasks(self)
            try:
                self.run_until_complete(asyncio.sleep(nanoseconds / NS_PER_S))
            finally:
                self._fake_selector.is_idle = False

    def cancel_tasks(self) -> None:
        """Cancel the tasks that are left."""
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        if tasks:
            self.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
