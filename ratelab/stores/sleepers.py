"""Sleepers: a thread or a task, on asyncio or Trio, that runs the steps of a waiting request."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import copy_context
from functools import partial
from math import ceil
from threading import TIMEOUT_MAX, Lock, Thread
from typing import TYPE_CHECKING, Any, Protocol, cast

from ratelab.clock import Clock
from ratelab.errors import InputError, StoreError
from ratelab.limiter import Admission, Costs, Decision, Keys
from ratelab.quota import NS_PER_S
from ratelab.stores.plans import Plans
from ratelab.stores.waiting import Attempt, Lines, Look, Sleep

if TYPE_CHECKING:
    from asyncio import Future

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
        look: Look | None = None,
    ) -> Admission:
        """Wait for a limiter that blocks: in this thread or, if an event loop runs in it, in the task that awaits this.

        In a task, a limiter without `look`, which keeps its states in a store, is called in worker threads. If the task
        is cancelled during a hit, a charge is refunded.
        """
        give_back: Callable[[], object] = partial(_refund, limiter, key, cost)
        if in_event_loop():
            if look is None:
                give_back = Thread(target=give_back).start

            async def hit(cost: Costs) -> Decision:
                call = partial(limiter.hit, key, cost, plan)
                decision: Decision = call() if look is not None else await _hit_in_thread(call, cost, give_back)
                return decision

            return cast("Admission", self._wait_in_task(limiter, key, cost, timeout, plan, look, hit, give_back))
        sleeper = ThreadSleeper()
        waiter = self._lines.create_waiter(key, cost, timeout, plan, limiter.plans, look, sleeper.wake, give_back)
        steps, decision = self._lines.admit(waiter), None
        try:
            while True:
                step = steps.send(decision)
                decision = None
                if isinstance(step, Attempt):
                    decision = limiter.hit(key, step.cost, plan)
                else:
                    with self._alarm(step, sleeper.wake) as seconds:
                        sleeper.sleep(seconds)
        except StopIteration as done:
            return Admission(*done.value)
        finally:
            steps.close()
            self._lines.leave(waiter)  # in case an exception of a signal handler has interrupted its own call of this

    def pause(self, nanoseconds: int) -> None:
        """Let this thread sleep through the delay of an admitted request, by the time of the limiter."""
        sleeper, until = ThreadSleeper(), self._lines.now() + nanoseconds
        while self._lines.now() < until:
            with self._alarm(Sleep(until), sleeper.wake) as seconds:
                sleeper.sleep(seconds)

    async def pause_async(self, nanoseconds: int) -> None:
        """Let this task sleep through the delay of an admitted request, by the time of the limiter."""
        sleeper, until = create_sleeper(), self._lines.now() + nanoseconds
        while self._lines.now() < until:
            with self._alarm(Sleep(until), sleeper.wake) as seconds:
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
        look: Look | None,
        hit: Callable[[Costs], Awaitable[Decision]],
        give_back: Callable[[], object],
    ) -> Decision:
        sleeper = create_sleeper()
        waiter = self._lines.create_waiter(key, cost, timeout, plan, limiter.plans, look, sleeper.wake, give_back)
        steps, decision = self._lines.admit(waiter), None
        try:
            while True:
                step = steps.send(decision)
                decision = None
                if isinstance(step, Attempt):
                    decision = await hit(step.cost)
                else:
                    with self._alarm(step, sleeper.wake) as seconds:
                        await sleeper.sleep(seconds)
        except StopIteration as done:
            return done.value  # type: ignore[no-any-return]
        finally:
            steps.close()
            self._lines.leave(waiter)

    @contextmanager
    def _alarm(self, step: Sleep, wake: Callable[[], bool]) -> Iterator[float | None]:
        """Yield the seconds after which a sleep ends by itself, or None; an `AlarmClock` wakes it at its time."""
        alarms = self._lines.alarms()
        if step.until is None:
            yield None
        elif alarms is None:
            yield max(0, step.until - self._lines.now()) / NS_PER_S
        else:
            cancel = alarms.call_at(step.until, wake)
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
