"""Waiting for quota: first come, first served, in one line for each key of a limiter.

Only the first in line asks the limiter. If it is denied, it sleeps until it can be admitted, and asks again; the others
sleep until it is their turn. If it is admitted with a delay, it sleeps through that before the next takes its turn: of
all that wait, at most one is charged, and this charge is refunded if it is cancelled.

`Lines.admit` is all of this for one waiter, without I/O; `ratelab.stores.waiting` runs it in a thread or a task.
"""

from __future__ import annotations

import random
from collections import OrderedDict
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from heapq import heappop, heappush
from itertools import count
from typing import Any, NamedTuple

from ratelab.clock import AlarmClock, Clock, default_clocks
from ratelab.errors import RateLimitExceeded
from ratelab.limiter import NEVER, Costs, Decision, Keys
from ratelab.quota import NS_PER_S
from ratelab.stores.arguments import name_costs, name_keys, parse_timeout
from ratelab.stores.forecast import Forecast, best_case, may_queue, wait_of
from ratelab.stores.fork import reset_in_children
from ratelab.stores.key_table import ReentrantLock
from ratelab.stores.plans import Plans

MAX_JITTER_NS = NS_PER_S
"""The most that is added to a sleep before a hit of a store; it is also at most a tenth of the sleep."""

STORE_TICK_NS = 1000
"""The resolution of time of a store."""


class Attempt(NamedTuple):
    """A step of a waiter: hit the limiter, and send the decision."""

    cost: Costs


class Sleep(NamedTuple):
    """A step of a waiter: sleep until its `wake` is called, or until a time of `Lines.now`."""

    until: int | None


Steps = Generator[Attempt | Sleep, Any, Decision]
"""The steps of a waiter; it returns the decision that admits it."""

Forecaster = Callable[[Mapping[str, str], str | None], Forecast]
"""A method that returns a forecast from the current states of the keys of policies in a plan."""


@dataclass(eq=False)
class Waiter:
    """A request that waits."""

    key: Keys
    cost: Costs
    plan: str | None
    keys: Mapping[str, str]
    """The key of each policy that it asks, by its name."""
    costs: Mapping[str, int]
    """Its cost for each policy, by its name."""
    deadline: int | None
    """The last time of `Lines.now` at which it may go."""
    plans: Plans
    forecast: Forecaster | None
    """The limiter's method, if it keeps its states in memory."""
    wake: Callable[[], bool]
    """End its sleep, from any thread; return whether it can continue."""
    give_back: Callable[[], object]
    """Refund its hit, without waiting for another waiter."""
    refusal: Decision | None = None
    """The decision because of which it no longer waits for its turn."""
    may_be_in_line: bool = False

    @cached_property
    def line(self) -> object:
        """The name of its line: its key, if that is the key of all policies."""
        distinct = {*self.keys.values()}
        alike = len(distinct) == 1 and len(self.keys) == len(self.plans.policies)
        return distinct.pop() if alike else (*self.keys.items(),)

    def needs_turn(self) -> bool:
        """Return whether it may be admitted and charged: no cost is above the burst of a policy, and one above 0."""
        asked = [policy for policy in self.plans.policies if policy.name in self.keys]
        bursts = {one.name: self.plans.policy_of(one, self.plan, self.keys[one.name]).quota.burst for one in asked}
        fits = all(policy.shadow or self.costs[policy.name] <= bursts[policy.name] for policy in asked)
        return fits and any(self.costs[policy.name] for policy in asked)

    def deny(self, decision: Decision, wait: int) -> Decision:
        """Return the denial of a request that would have to wait for `wait` nanoseconds."""
        queueing = (policy.name for policy in self.plans.policies if may_queue([policy]) and not policy.shadow)
        bound_by = decision.bound_by or next(queueing, self.plans.policies[0].name)
        return decision._replace(allowed=False, retry_after_ns=wait, delay_ns=0, bound_by=bound_by)

    def refuse(self, decision: Decision, wait: int) -> RateLimitExceeded:
        """Return the exception for a request that would have to wait for `wait` nanoseconds."""
        return RateLimitExceeded(self.deny(decision, wait), self.key)

    def check(self, decision: Decision, now: int, forecast: Forecast | None = None) -> None:
        """Raise `RateLimitExceeded` if it cannot wait for as long as it must from `now` on."""
        wait = wait_of(decision)
        if forecast is not None and self.deadline is not None and 0 < wait < NEVER:
            after = forecast.admit(self.costs)  # it may have a delay, too
            wait = NEVER if after is None else after.now - forecast.now
        if wait >= NEVER or (self.deadline is not None and wait > 0 and now + wait > self.deadline):
            raise self.refuse(decision, wait)


@dataclass(slots=True)
class WaitingLine:
    """The waiters for one key, in the order of their arrival."""

    waiters: OrderedDict[Waiter, None] = field(default_factory=OrderedDict)
    turn: Waiter | None = None
    """The first of them."""
    passes: bool = False
    """Whether the turn passes to the next at the moment."""
    due: int | None = None
    """The time until which it sleeps; None while it asks."""
    soonest: int = 0
    """The time at which it may be admitted: `due` without jitter."""
    charged: bool = False
    """Whether it sleeps through the delay with which it was admitted."""
    denial: Decision | None = None
    """The decision because of which it sleeps, as a denial."""
    deadlines: list[tuple[int, int, Waiter]] = field(default_factory=list)
    """A heap of the waiters with a deadline, and of some that have left."""
    forecast: Forecast | None = None
    """The states after some of the waiters; None if they are unknown."""
    offset: int = 0
    """How far `Lines.now` is ahead of the time of the forecast."""
    behind: list[Waiter] = field(default_factory=list)
    """The waiters after them."""

    def predict(self, waiter: Waiter, due: int, now: int) -> int:
        """Return a time before which a waiter that joins the line is certainly not admitted.

        The first in line sleeps until `due`; if it has woken up meanwhile, it may have changed the states.
        """
        forecast = self.forecast
        if forecast is None:
            self.behind = [*self.waiters]
        if any(other.plan != waiter.plan for other in self.behind):
            return due
        if forecast is None and waiter.forecast is not None:
            forecast = waiter.forecast(waiter.keys, waiter.plan)
            self.offset = now - forecast.now
            self.behind = self.behind[self.charged :]
        elif forecast is None:
            first, utc = self.behind.pop(0), default_clocks.wall()
            bound_by = None if self.denial is None else self.denial.bound_by
            forecast = best_case(waiter.plans, first.keys, first.plan, first.costs, utc, bound_by)
            self.offset = self.soonest - utc - STORE_TICK_NS
        for other in self.behind:
            forecast = forecast.admit(other.costs) or forecast
        after = forecast.admit(waiter.costs)
        if self.due != due or after is None:
            return due
        self.forecast, self.behind = forecast, []
        return max(due, after.now + self.offset)


class Lines:
    """The lines of a limiter that reads `clock`; if that is an `AlarmClock`, waiters sleep by it."""

    def __init__(self, clock: Clock | None) -> None:
        self._clock = clock
        self._lines: dict[object, WaitingLine] = {}
        self._lock = ReentrantLock()
        self._numbers = count()
        reset_in_children(self)

    def reset_after_fork(self) -> None:
        """Forget the waiters of the parent process."""
        self._lines = {}

    @property
    def count(self) -> int:
        """How many waiters there are."""
        return sum(len(line.waiters) for line in [*self._lines.values()])

    def alarms(self) -> AlarmClock | None:
        """Return the clock by which waiters sleep; None for real time."""
        clock: Any = default_clocks.alarms if self._clock is None else self._clock
        return clock if hasattr(clock, "call_at") else None

    def now(self) -> int:
        """Return the time by which waiters sleep, in nanoseconds."""
        return (self.alarms() or default_clocks.steady)()

    def create_waiter(
        self,
        key: Keys,
        cost: Costs,
        timeout: float | None,
        plan: str | None,
        plans: Plans,
        forecast: Forecaster | None,
        wake: Callable[[], bool],
        give_back: Callable[[], object],
    ) -> Waiter:
        """Return a waiter, whose time starts now. Raises `InputError` for an invalid argument."""
        keys, costs = name_keys(plans.policies, key), name_costs(plans.policies, cost)
        plans.check_plan(plan)
        limit = parse_timeout(timeout)
        deadline = None if limit is None else self.now() + limit
        return Waiter(key, cost, plan, keys, costs, deadline, plans, forecast, wake, give_back)

    def admit(self, waiter: Waiter) -> Steps:
        """Return the decision that admits a waiter, once it may go; raise `RateLimitExceeded` as soon as it cannot.

        However it ends, the next in line takes its turn.
        """
        if not waiter.needs_turn():
            decision: Decision = yield Attempt(waiter.cost)
            if decision.allowed:
                return decision
            waiter.check(decision, self.now())
        admitted = False
        try:
            waiter.may_be_in_line = True
            line: WaitingLine = self._lock.call(self._join, waiter)
            while line.turn is not waiter:
                overdue = waiter.deadline is not None and self.now() > waiter.deadline
                refusal = waiter.refusal or (line.denial if overdue else None)
                if refusal is not None:
                    raise waiter.refuse(refusal, refusal.retry_after_ns)
                yield Sleep(None if overdue or self.alarms() is not None else waiter.deadline)
            decision = yield from self._take_turn(waiter, line)
            admitted = True
        finally:
            self.leave(waiter, admitted)
        return decision

    def leave(self, waiter: Waiter, admitted: bool = False) -> None:
        """Give the place of a waiter to the next, if it has one."""
        if waiter.may_be_in_line:
            self._lock.call(self._leave, waiter, admitted)

    def _take_turn(self, waiter: Waiter, line: WaitingLine) -> Steps:
        """Ask until the waiter is admitted, and sleep meanwhile."""
        while True:
            now = self.now()
            decision = yield from self._preview(waiter, now)
            if decision is None or decision.allowed:
                decision = yield Attempt(waiter.cost)
            if self.alarms() is None:  # else, the clock may have been moved since the decision
                now = self.now()
            if decision.allowed:
                yield from self._queue(waiter, line, decision, now)
                return decision
            waiter.check(decision, now)
            soonest = due = now + decision.retry_after_ns
            if waiter.forecast is None and self.alarms() is None:
                due += random.randint(0, min((due - now) // 10, MAX_JITTER_NS))
                due = due if waiter.deadline is None else min(due, max(soonest, waiter.deadline))
            yield from self._sleep(waiter, line, soonest, due, decision)
            line.due = None

    def _preview(self, waiter: Waiter, now: int) -> Generator[Attempt, Any, Decision | None]:
        """Return how a hit would be decided, as far as that is to be known before it is charged, and check it."""
        decision: Decision | None = None
        if waiter.forecast is not None:
            forecast = waiter.forecast(waiter.keys, waiter.plan)
            decision, _ = forecast.hit(waiter.costs)
            waiter.check(decision, now, forecast)
        elif waiter.deadline is not None and may_queue(waiter.plans.policies):
            decision = yield Attempt(0)
            waiter.check(decision, now)
        return decision

    def _queue(self, waiter: Waiter, line: WaitingLine, decision: Decision, now: int) -> Generator[Sleep, Any, None]:
        """Sleep through the delay with which a waiter was admitted; give its charge back if it cannot."""
        if decision.delay_ns:
            try:
                waiter.check(decision, now)
                line.charged, due = True, now + decision.delay_ns
                yield from self._sleep(waiter, line, due, due, decision)
            except BaseException:
                waiter.give_back()
                raise

    def _sleep(
        self, waiter: Waiter, line: WaitingLine, soonest: int, due: int, decision: Decision
    ) -> Generator[Sleep, Any, None]:
        """Sleep until a waiter is due."""
        self._lock.call(self._postpone, line, soonest, due, waiter.deny(decision, wait_of(decision)))
        while self.now() < due:
            yield Sleep(due)

    # --- while no other thread changes a line

    def _join(self, nested: bool, waiter: Waiter) -> WaitingLine:  # noqa: ARG002  (the signature for `ReentrantLock.call`)
        """Add a waiter to its line, unless it is certain that it cannot be admitted in time."""
        line = self._lines.get(waiter.line)
        if line is None:
            line = self._lines[waiter.line] = WaitingLine()
        if waiter.deadline is not None:
            due, denial = line.due, line.denial
            if due is not None and denial is not None:
                now = self.now()
                soonest = line.predict(waiter, due, now)
                if soonest > waiter.deadline:
                    raise waiter.refuse(denial, soonest - now)
            heappush(line.deadlines, (waiter.deadline, next(self._numbers), waiter))
        line.waiters[waiter] = None
        line.turn = line.turn or waiter
        if line.forecast is not None:
            line.behind.append(waiter)
        return line

    def _postpone(self, nested: bool, line: WaitingLine, soonest: int, due: int, denial: Decision) -> None:  # noqa: ARG002
        """Let the first in line sleep, and refuse others that can no longer be admitted in time."""
        line.soonest, line.due, line.denial, line.forecast = soonest, due, denial, None
        while line.deadlines and line.deadlines[0][0] < due:
            _, _, waiter = heappop(line.deadlines)
            if waiter in line.waiters and waiter is not line.turn:
                del line.waiters[waiter]
                waiter.refusal = denial
                waiter.wake()

    def _leave(self, nested: bool, waiter: Waiter, admitted: bool) -> None:  # noqa: ARG002
        """Remove a waiter from its line, and wake the next if it was its turn; do the rest if this was interrupted."""
        line = self._lines.get(waiter.line)
        if line is not None:
            if waiter in line.waiters:
                del line.waiters[waiter]
                line.forecast = line.forecast if admitted else None
            line.passes = line.passes or line.turn is None or line.turn is waiter
            while line.passes:
                line.due, line.charged, line.denial, line.turn = None, False, None, next(iter(line.waiters), None)
                if line.turn is None:
                    del self._lines[waiter.line]
                    break
                if line.turn.wake():
                    line.passes = False
                else:  # its event loop has ended
                    del line.waiters[line.turn]
        waiter.may_be_in_line = False
