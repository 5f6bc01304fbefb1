"""Requests that wait for a limiter: in threads, or in tasks of asyncio or Trio."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager, suppress
from contextvars import copy_context
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any, Protocol, cast

from ratelab.clock import Clock
from ratelab.errors import InputError, StoreError
from ratelab.limiter import Admission, Costs, Decision, Keys
from ratelab.stores.plans import Plans
from ratelab.stores.sleepers import (
    ThreadSleeper,
    call_in_thread,
    create_sleeper,
    in_event_loop,
    run_in_task,
    run_in_thread,
    running_trio,
    set_alarm,
)
from ratelab.stores.waiting_lines import Forecaster, Lines, Sleep

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
