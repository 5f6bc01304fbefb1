"""Sleepers: threads and tasks, of asyncio or Trio, that run the steps of a waiting request."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from math import ceil
from threading import TIMEOUT_MAX, Lock
from typing import Any, TypeVar

from ratelab.clock import AlarmClock, Clock
from ratelab.quota import NS_PER_S
from ratelab.stores.waiting_lines import Sleep

Result = TypeVar("Result")
SetAlarm = Callable[[Sleep, Callable[[], object]], AbstractContextManager[float | None]]
"""A method that yields the seconds after which a sleep ends by itself, or None if only a call of the function ends it.

An `AlarmClock` calls the function at the end of the sleep.
"""


class ThreadSleeper:
    """The sleep of one thread, which a signal handler may interrupt."""

    def __init__(self) -> None:
        self._asleep = Lock()  # released when the thread is to wake up
        self._asleep.acquire()

    def wake(self) -> bool:
        """End the current sleep, or else the next."""
        with suppress(RuntimeError):  # it is awake
            self._asleep.release()
        return True

    def sleep(self, seconds: float | None) -> None:
        """Sleep until `wake` is called, for at most a number of seconds."""
        self._asleep.acquire(timeout=-1 if seconds is None else min(seconds, TIMEOUT_MAX))


class TaskSleeper:
    """The sleep of one task of asyncio."""

    def __init__(self) -> None:
        import asyncio  # it runs the task, but is slow to import where only threads wait

        self._loop, self._awake = asyncio.get_running_loop(), asyncio.Event()

    def wake(self) -> bool:
        """End the current sleep, or else the next; return False if the event loop has ended."""
        try:
            self._loop.call_soon_threadsafe(self._awake.set)
        except RuntimeError:
            return False
        return True

    async def sleep(self, seconds: float | None) -> None:
        """Sleep until `wake` is called, for at most a number of seconds, rounded up to milliseconds.

        Some event loops end a sleep up to half a millisecond early.
        """
        timer = None if seconds is None else self._loop.call_later(ceil(seconds * 1000) / 1000, self._awake.set)
        try:
            await self._awake.wait()
        finally:
            if timer is not None:
                timer.cancel()
        self._awake.clear()


class TrioSleeper:
    """The sleep of one task of Trio."""

    def __init__(self, trio: Any) -> None:
        self._trio, self._token = trio, trio.lowlevel.current_trio_token()
        self._awake = trio.Event()

    def wake(self) -> bool:
        """End the current sleep, or else the next; return False if Trio has ended."""
        try:
            self._token.run_sync_soon(lambda: self._awake.set())
        except self._trio.RunFinishedError:
            return False
        return True

    async def sleep(self, seconds: float | None) -> None:
        """Sleep until `wake` is called, for at most a number of seconds."""
        with self._trio.move_on_after(float("inf") if seconds is None else seconds):
            await self._awake.wait()
        self._awake = self._trio.Event()


def running_trio() -> Any:
    """Return the module `trio` if it runs the current task, else None; it is never imported here."""
    trio = sys.modules.get("trio")
    if trio is None:
        return None
    try:
        trio.lowlevel.current_task()
    except RuntimeError:
        return None
    return trio


def create_sleeper() -> TaskSleeper | TrioSleeper:
    """Return the sleeper of this task."""
    trio = running_trio()
    return TaskSleeper() if trio is None else TrioSleeper(trio)


def in_event_loop() -> bool:
    """Return whether an event loop of asyncio or Trio runs in this thread, which must therefore not block."""
    asyncio = sys.modules.get("asyncio")
    if asyncio is not None:
        with suppress(RuntimeError):
            return asyncio.get_running_loop() is not None
    return running_trio() is not None


def run_in_thread(
    steps: Generator[Any, Any, Result], sleeper: ThreadSleeper, set_alarm: SetAlarm, act: Callable[[Any], Any]
) -> Result:
    """Run the steps of a request that waits: sleep in this thread, and send back the result of `act` for the others."""
    result = None
    try:
        while True:
            step = steps.send(result)
            result = None
            if isinstance(step, Sleep):
                with set_alarm(step, sleeper.wake) as seconds:
                    sleeper.sleep(seconds)
            else:
                result = act(step)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        steps.close()


async def run_in_task(
    steps: Generator[Any, Any, Result],
    sleeper: TaskSleeper | TrioSleeper,
    set_alarm: SetAlarm,
    act: Callable[[Any], Awaitable[Any]],
) -> Result:
    """Run the steps of a request that waits, in this task, as `run_in_thread` does in a thread."""
    result = None
    try:
        while True:
            step = steps.send(result)
            result = None
            if isinstance(step, Sleep):
                with set_alarm(step, sleeper.wake) as seconds:
                    await sleeper.sleep(seconds)
            else:
                result = await act(step)
    except StopIteration as done:
        return done.value  # type: ignore[no-any-return]
    finally:
        steps.close()


@contextmanager
def set_alarm(
    sleep: Sleep, wake: Callable[[], object], clock: Clock, alarms: AlarmClock | None
) -> Iterator[float | None]:
    """Do as `SetAlarm` describes, for a sleep until a time of `clock`."""
    if sleep.until is None:
        yield None
    elif alarms is None:
        yield max(0, sleep.until - clock()) / NS_PER_S
    else:
        cancel = alarms.call_at(alarms() + sleep.until - clock(), wake)
        try:
            yield None
        finally:
            cancel()


async def call_in_thread(call: Callable[[], Any]) -> Any:
    """Return the result of a call that blocks."""
    trio = running_trio()
    if trio is not None:
        return await trio.to_thread.run_sync(call)
    return await sys.modules["asyncio"].to_thread(call)
