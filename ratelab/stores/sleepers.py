"""Sleepers: a thread or a task, on asyncio or Trio, that runs the steps of a waiting request."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from contextvars import copy_context
from functools import partial
from math import ceil
from threading import TIMEOUT_MAX, Lock, Thread
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from ratelab.clock import AlarmClock, Clock
from ratelab.errors import InputError, StoreError
from ratelab.limiter import Admission, Costs, Decision, Keys
from ratelab.quota import NS_PER_S
from ratelab.stores.plans import Plans
from ratelab.stores.waiting import Forecaster, Lines, Sleep

if TYPE_CHECKING:
    from asyncio import Future

Result = TypeVar("Result")
SetAlarm = Callable[[Sleep, Callable[[], object]], AbstractContextManager[float | None]]
"""A method that yields the seconds after which a sleep ends by itself, or None if only a call of the function ends it.

An `AlarmClock` calls the function at the end of the sleep.
"""

_background: set[Future[Any]] = set()  # which the loop alone would not keep


class Chargeable(Protocol):
    """A limiter for which requests can wait; its methods block, or are awaited."""

    @property
    def plans(self) -> Plans:
        """The policies in force, with their quotas by plan and by key."""
        ...

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Any:
        """Decide a request."""
        ...

    def refund(self, key: Keys, cost: Costs = 1) -> Any:
        """Return a cost."""
        ...


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


class Waiting:
    """The requests that wait for a limiter that reads `clock`."""

    def __init__(self, clock: Clock | None = None) -> None:
        self._lines = Lines(clock)

    @property
    def count(self) -> int:
        """How many requests wait at the moment."""
        return self._lines.count

    def wait(
        self,
        limiter: Chargeable,
        key: Keys,
        cost: Costs,
        timeout: float | None,
        plan: str | None,
        forecast: Forecaster | None = None,
    ) -> Admission:
        """Wait for a limiter that blocks: in this thread or, if an event loop runs in it, in the task that awaits this.

        In a task, a limiter without `forecast`, which keeps its states in a store, is called in worker threads. If the
        task is cancelled during a hit, a charge is refunded.
        """
        give_back: Callable[[], object] = partial(_refund, limiter, key, cost)
        if in_event_loop():
            if forecast is None:
                give_back = Thread(target=give_back).start

            async def hit(cost: Costs) -> Decision:
                call = partial(limiter.hit, key, cost, plan)
                decision: Decision = call() if forecast is not None else await _hit_in_thread(call, cost, give_back)
                return decision

            return cast("Admission", self._wait_in_task(limiter, key, cost, timeout, plan, forecast, hit, give_back))
        sleeper = ThreadSleeper()
        waiter = self._lines.create_waiter(key, cost, timeout, plan, limiter.plans, forecast, sleeper.wake, give_back)
        try:
            return Admission(
                *run_in_thread(
                    self._lines.admit(waiter),
                    sleeper,
                    self._set_alarm,
                    lambda attempt: limiter.hit(key, attempt.cost, plan),
                )
            )
        finally:
            self._lines.leave(waiter)  # in case an exception of a signal handler has interrupted its own call of this

    def pause(self, nanoseconds: int) -> None:
        """Let this thread sleep through the delay of an admitted request, by the time of the limiter."""
        sleeper, until = ThreadSleeper(), self._lines.now() + nanoseconds
        while self._lines.now() < until:
            with self._set_alarm(Sleep(until), sleeper.wake) as seconds:
                sleeper.sleep(seconds)

    async def pause_async(self, nanoseconds: int) -> None:
        """Let this task sleep through the delay of an admitted request, by the time of the limiter."""
        sleeper, until = create_sleeper(), self._lines.now() + nanoseconds
        while self._lines.now() < until:
            with self._set_alarm(Sleep(until), sleeper.wake) as seconds:
                await sleeper.sleep(seconds)

    async def wait_async(
        self, limiter: Chargeable, key: Keys, cost: Costs, timeout: float | None, plan: str | None
    ) -> Decision:
        """Wait for a limiter whose methods are awaited, in a task of asyncio.

        If the task is cancelled during a hit, which may then be charged or not, a charge is refunded.
        """
        from asyncio import ensure_future  # slow to import where only threads wait

        def in_background(call: Any) -> Future[Any]:
            task: Future[Any] = ensure_future(call)
            _background.add(task)
            task.add_done_callback(_background.discard)
            return task

        async def refund() -> None:
            with suppress(StoreError, InputError):
                await limiter.refund(key, cost)

        def give_back() -> object:
            return in_background(refund())

        async def hit(cost: Costs) -> Decision:
            return await _await_hit(in_background(limiter.hit(key, cost, plan)), cost, give_back)

        return await self._wait_in_task(limiter, key, cost, timeout, plan, None, hit, give_back)

    async def _wait_in_task(
        self,
        limiter: Chargeable,
        key: Keys,
        cost: Costs,
        timeout: float | None,
        plan: str | None,
        forecast: Forecaster | None,
        hit: Callable[[Costs], Awaitable[Decision]],
        give_back: Callable[[], object],
    ) -> Decision:
        sleeper = create_sleeper()
        waiter = self._lines.create_waiter(key, cost, timeout, plan, limiter.plans, forecast, sleeper.wake, give_back)
        try:
            return await run_in_task(
                self._lines.admit(waiter), sleeper, self._set_alarm, lambda attempt: hit(attempt.cost)
            )
        finally:
            self._lines.leave(waiter)

    def _set_alarm(self, sleep: Sleep, wake: Callable[[], object]) -> AbstractContextManager[float | None]:
        return set_alarm(sleep, wake, self._lines.now, self._lines.alarms())


async def call_in_thread(call: Callable[[], Any]) -> Any:
    """Return the result of a call that blocks."""
    trio = running_trio()
    if trio is not None:
        return await trio.to_thread.run_sync(call)
    return await sys.modules["asyncio"].to_thread(call)


async def _hit_in_thread(call: Callable[[], Decision], cost: Costs, refund: Callable[[], object]) -> Decision:
    """Return the decision of a hit that blocks; refund a charge that this task, once cancelled, does not get."""
    if running_trio() is not None:  # it cancels no task that waits for a thread
        decision: Decision = await call_in_thread(call)
        return decision
    loop = sys.modules["asyncio"].get_running_loop()
    return await _await_hit(loop.run_in_executor(None, copy_context().run, call), cost, refund)


async def _await_hit(hit: Future[Decision], cost: Costs, refund: Callable[[], object]) -> Decision:
    """Return the decision of a hit; if this task is cancelled meanwhile, refund the charge once the hit is decided."""
    from asyncio import CancelledError, shield  # slow to import where only threads wait

    def refund_charge(hit: Future[Decision]) -> None:
        if not hit.cancelled() and hit.exception() is None and hit.result().allowed:
            refund()

    try:
        return await shield(hit)
    except CancelledError:
        if cost:
            hit.add_done_callback(refund_charge)
        raise


def _refund(limiter: Chargeable, key: Keys, cost: Costs) -> None:
    with suppress(StoreError, InputError):
        limiter.refund(key, cost)
