"""In-memory rate limiter for threads and asyncio."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

from ratelab.algorithms import Policy
from ratelab.algorithms.composite import Answer, Combined, check_policies, combine, list_decisions
from ratelab.clock import STEADY_CLOCKS, Clock, default_clocks, monotonic
from ratelab.errors import InputError
from ratelab.limiter import Admission, Costs, Decision, Keys, Row
from ratelab.stores.arguments import (
    check_clock,
    check_cost,
    check_max_keys,
    default_clock,
    is_aligned,
    name_costs,
    name_keys,
    refuse_pickling,
)
from ratelab.stores.forecast import Forecast, forecast_groups, forecast_key
from ratelab.stores.key_table import SHARD_COUNT, KeyTable, ReentrantLock, Stats
from ratelab.stores.plans import Followers, Plans, Preparation, QuotaChanges
from ratelab.stores.policy_groups import ALL, PolicyGroups
from ratelab.stores.tickets import DEFAULT_DEADLINE_S, Reservation, Ticket, check_deadline
from ratelab.stores.versions import Kernel, Version
from ratelab.stores.waiting import Waiting

ONE = 1
"""CPython caches small ints, so `cost is ONE` skips validation in the common case."""

_NO_COST = object()

_new_tuple = tuple.__new__  # skips the length check of Decision._make

Result = TypeVar("Result")


class MemoryLimiter:
    """Enforce policies for each key, in threads and in asyncio: `hit` waits for nothing but other new keys.

    `policies` is a `Policy` or a list of them, which decide together: a denied request is charged to none. Policies
    with different `key=` have their keys in different tables. `plans` and `overrides` give the quotas of a plan and of
    a key, by the names of the policies (see `Plans`).

    A hit within a hit, as in a signal handler or a finalizer, is decided like any other. A hit that an exception
    interrupts has been charged or not, to all policies, and the limiter remains usable. So does a copy of it in a
    forked process.

    At most `max_keys` states are kept for each kind of key. A fully replenished key is evicted without loss when others
    arrive; a key that has used any of its quota is never evicted. When the limiter is full and the few keys checked are
    all in use, new keys share a few states, and a key that gets a separate state later starts with a copy of the shared
    one. A flood of new keys therefore obtains no fresh quota; during it, and for a window after it, a new key may be
    denied because of other keys in its bucket.

    The default clock is that of `default_clock`; threads may call a `clock` at the same time. Raises `InputError`
    unless `max_keys` is a whole number >= 1 and `clock` returns whole numbers, and for invalid policies or plans. A
    limiter cannot be pickled.
    """

    def __init__(
        self,
        policies: Policy | Sequence[Policy],
        clock: Clock | None = None,
        max_keys: int = 1_000_000,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        check_max_keys(max_keys)
        self.policies = check_policies(policies)
        self.max_keys = max_keys
        self._plans = Plans.of(self.policies, plans, overrides)
        self._follows_utc = clock is not None or self._plans.may_change or any(map(is_aligned, self.policies))
        self._clock = self.choose_clock(clock)
        self._kernel = Kernel(self.policies, self._clock)
        self._table = KeyTable(self._kernel, self._clock, max_keys, self.note_shared)
        self._groups: PolicyGroups | None = None  # for all that hits of one key by one kernel cannot do
        self._created: list[PolicyGroups] = []
        self._lock = ReentrantLock()  # for changes of the policies
        self._followers, self.waiting = Followers(), Waiting(clock)
        kernel, shards = self._kernel, self._table.shards
        self._hot: Any = shards, self._clock, kernel.decide, kernel.size, kernel.admitted, kernel.denied, ONE
        self._hot_row: Any = shards, self._clock, kernel.step, kernel.size, ONE
        one_kind_of_key = {policy.key for policy in self.policies} == {self.policy.key} != {ALL}
        if plans or overrides or not one_kind_of_key:
            self._generalize(nested=False)

    @property
    def policy(self) -> Policy:
        """The first of the policies."""
        return self.policies[0]

    @property
    def plans(self) -> Plans:
        """The policies in force, with their quotas by plan and by key."""
        return self._plans

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 charges nothing.

        A cost above the quota's burst is denied with an infinite `retry_after`. `key` and `cost` may be mappings from
        the names of policies: a policy without a key is not asked. `plan` names the plan of the client.

        Raises `InputError`, and changes nothing, unless each key is text, each cost is a whole number >= 0, and each
        name that of a policy or plan.
        """
        shards, clock, decide, size, admitted, denied, usual_cost = self._hot  # one attribute lookup instead of seven
        if cost is not usual_cost or plan is not None:
            if type(cost) is not int or usual_cost is _NO_COST or plan is not None:
                return _new_tuple(Decision, combine(self.hit_policies(key, cost, plan)))
            check_cost(cost)
        try:
            entry = shards[hash(key) % SHARD_COUNT][key]
        except (KeyError, TypeError):  # a new key, or one that is not text
            pass
        else:
            state = entry.state
            new = [*state]
            row = decide(new, clock(), cost)  # read after the state, so that no step goes back in time
            state.append(new)
            if state[size] is new:
                entry.state = new
                return _new_tuple(Decision, row + admitted if row[0] else row + denied)
        return _new_tuple(Decision, self._hit_slowly(key, cost))

    def wait(self, key: Keys, cost: Costs = 1, timeout: float | None = None, plan: str | None = None) -> Admission:
        """Wait until a request is admitted and may go, and return the decision; in a task, `await` the result.

        Requests of a key take their turns in the order of their arrival. Raises `RateLimitExceeded`, and charges
        nothing, as soon as it is certain that this takes more than `timeout` seconds; with 0, it never sleeps.
        """
        return self.waiting.wait(self, key, cost, timeout, plan, self.forecast)

    def forecast(self, keys: Mapping[str, str], plan: str | None) -> Forecast:
        """Return a copy of the current states of the keys of policies, in which hits can be tried."""
        forecast = None
        if self._groups is None and len(keys) == len(self.policies) and len({*keys.values()}) == 1:
            forecast = forecast_key(self._table, next(iter(keys.values())), self._clock)
        return forecast or forecast_groups(self._generalized(), keys, plan, self._clock)

    def hit_each(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `hit` does; also return the decision of each policy that was asked, in their order.

        If another policy denies the request, a policy that would admit it returns its quota as it stays.
        """
        answers = self.hit_policies(key, cost, plan)
        return Decision(*combine(answers)), list_decisions(answers)

    def look(self, key: Keys, plan: str | None = None) -> dict[str, Decision]:
        """Return the decision of each policy on a hit of cost 0, by its name, and change nothing.

        A policy has the quota under which it decided the last hit of its key; without one, that of `plan`.
        """
        keys = name_keys(self.policies, key)
        self._plans.check_plan(plan)
        if self._groups is None and isinstance(key, str):
            return dict(zip(keys, self.hit_each(key, 0)[1], strict=True))
        answers = self._generalized().look(keys, plan)
        return {policy.name: one for (policy, _), one in zip(answers, list_decisions(answers), strict=True)}

    def hit_row(self, key: Keys, cost: Costs = 1) -> Row:
        """Decide as `hit` does, and return the first five fields as a plain tuple, which is faster."""
        shards, clock, step, size, usual_cost = self._hot_row
        if cost is not usual_cost:
            if type(cost) is not int or usual_cost is _NO_COST:
                return combine(self.hit_policies(key, cost))[:5]
            check_cost(cost)
        row: Row
        try:
            entry = shards[hash(key) % SHARD_COUNT][key]
        except (KeyError, TypeError):
            pass
        else:
            state = entry.state
            new = [*state]
            row = step(new, clock(), cost)
            state.append(new)
            if state[size] is new:
                entry.state = new
                return row
        return self._hit_slowly(key, cost)[:5]

    def reserve(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> Ticket:
        """Decide a request whose cost is known only afterwards, and charge `cost` if it is allowed.

        Settle the ticket with the actual cost within `deadline` seconds; later, the reserved cost is final.
        """
        return self.reserve_each(key, cost, plan, deadline)[0]

    def reserve_each(
        self, key: Keys, cost: Costs = 1, plan: str | None = None, deadline: float = DEFAULT_DEADLINE_S
    ) -> tuple[Ticket, tuple[Decision, ...]]:
        """Reserve as `reserve` does; also return the decision of each policy that was asked, in their order."""
        keys, costs = name_keys(self.policies, key), name_costs(self.policies, cost)
        self._plans.check_plan(plan)
        check_deadline(deadline)
        groups = self._generalized()
        answers, now = groups.hit(keys, costs, plan)
        decision = Decision(*combine(answers))
        charged = [policy.name for policy, row in answers if row[0] and (decision.allowed or policy.shadow)]
        reserved = {name: costs[name] for name in charged}
        reservation = Reservation(decision, reserved, deadline, self._clock, now)
        bursts = {policy.name: policy.quota.burst for policy, _ in answers}
        ticket = Ticket(reservation, lambda changes: groups.charge(keys, changes, now, bursts))
        return ticket, list_decisions(answers)

    def refund(self, key: Keys, cost: Costs = 1) -> None:
        """Return `cost` to the quotas of `key`, each up to that of a new key.

        Windows and logs return their oldest charges. Settle a ticket to refund one charge exactly.
        """
        keys, costs = name_keys(self.policies, key), name_costs(self.policies, cost)
        self._generalized().charge(keys, {name: -one for name, one in costs.items()})

    def update(
        self,
        policies: Policy | Sequence[Policy] | None = None,
        *,
        plans: Mapping[str, QuotaChanges] | None = None,
        overrides: Mapping[str, QuotaChanges] | None = None,
    ) -> None:
        """Replace the policies, plans or overrides, each if it is given, while the limiter is in use.

        The share of a burst that a key has used stays used, rounded up to whole units: no change grants anything. A
        policy is the same one if it has the same name and `key`. Raises `InputError`, and changes nothing, for invalid
        policies, and for aligned windows unless the limiter has a clock for them.
        """
        checked = self.policies if policies is None else check_policies(policies)
        if not self._follows_utc and any(map(is_aligned, checked)):
            raise InputError("aligned windows need a clock that follows UTC: create the limiter with one of them")
        changed = self._plans.change(checked, plans, overrides)
        finish = self._followers.prepare(changed)
        self._generalized()
        self._lock.call(self._update, changed)
        finish()

    def on_update(self, prepare: Preparation) -> None:
        """Call the method `prepare` before each `update`, which raises the `InputError` of a method that refuses it."""
        self._followers.add(prepare)

    def reset(self, key: Keys) -> None:
        """Restore the full quota of `key`, or of its overflow bucket if there is no room for a separate state.

        The one counter of a policy with the key `all` is reset only if a mapping gives that policy a key.
        """
        keys = name_keys(self.policies, key)
        if self._groups is None:
            for one in {*keys.values()}:
                self._table.reset(one)
        if self._groups is not None:
            given = isinstance(key, Mapping)
            shared = {policy.name for policy in self.policies if policy.key == ALL and not given}
            self._groups.reset({name: one for name, one in keys.items() if name not in shared})

    @property
    def stats(self) -> Stats:
        """The current counters."""
        return self._table.stats if self._groups is None else self._groups.stats

    __reduce__ = refuse_pickling

    def choose_clock(self, clock: Clock | None) -> Clock:
        """Return the clock that hits read, which never goes backwards."""
        if clock is None:
            aligned = any(map(is_aligned, self.policies))
            return default_clocks.aligned(None) if self._follows_utc and not aligned else default_clock(self.policies)
        check_clock(clock)
        return clock if clock in STEADY_CLOCKS else monotonic(clock)

    def note_shared(self) -> None:
        """Do nothing about a hit that is decided by an overflow bucket."""

    # --- one key and one kernel

    def _hit_slowly(self, key: Keys, cost: int) -> Combined:
        """Decide a hit of a new key, or one that another hit of the same key has overtaken."""
        if isinstance(key, str) and self._groups is None:
            kernel = self._kernel
            fields = self._hit_table(key, lambda state, now: kernel.decide(state, now, cost))
            if fields is not None:
                return fields + (kernel.admitted if fields[0] else kernel.denied)  # type: ignore[no-any-return]
        return combine(self.hit_policies(key, cost))

    def _hit_table(self, key: str, change: Callable[[Version, int], Result]) -> Result | None:
        """Return what `change` returns for the state of a key; None if the keys were moved to the groups."""
        table, kernel = self._table, self._kernel
        entry = table.get(key)
        while True:
            result = None if entry is None else kernel.update(entry, change)
            if result is not None:
                return result
            state, now = table.start_new(key)
            if not state:
                return None
            result = change(state, now)
            if kernel.is_new(state, now):
                table.evict_idle()
                return result
            entry = table.place(key)

    # --- several policies

    def hit_policies(self, key: Keys, cost: Costs, plan: str | None = None) -> Sequence[Answer]:
        """Decide a hit by several policies; return what each of those that are asked decided."""
        policies = self.policies
        if type(cost) is int and cost >= 0:
            costs = (cost,) * len(policies)
        else:
            costs = tuple(name_costs(policies, cost).values())
        if type(key) is str and plan is None and self._groups is None:
            composite = self._kernel.composite
            entry, rows = self._table.get(key), None
            if entry is not None:
                state = entry.state
                new, decided = composite.decide(state, self._clock(), costs)  # reads the time after the state
                if self._kernel.commit(state, new):
                    entry.state, rows = new, decided
            rows = rows or self._hit_table(key, lambda state, now: composite.decide_in_place(state, now, costs))
            if rows is not None:
                return [*zip(policies, rows, strict=True)]
        keys = name_keys(policies, key)
        self._plans.check_plan(plan)
        named = {policy.name: one for policy, one in zip(policies, costs, strict=True)}
        return self._generalized().hit(keys, named, plan)[0]

    def _generalized(self) -> PolicyGroups:
        """Return the groups of the policies; on the first call, move the states of all keys into them."""
        return self._groups or self._lock.call(self._generalize)

    def _generalize(self, nested: bool) -> PolicyGroups:  # noqa: ARG002  (the signature for `ReentrantLock.call`)
        if self._groups is None:
            groups = PolicyGroups(self._plans, self._clock, self.max_keys, self.note_shared)
            nowhere: list[dict[str, Any]] = [{}] * SHARD_COUNT
            groups.replace(self._table)
            self._created.append(groups)
            self._groups = groups = self._created[0]  # not that of a hit within this one, if it was first
            self._hot = nowhere, *self._hot[1:-1], _NO_COST
            self._hot_row = nowhere, *self._hot_row[1:-1], _NO_COST
            groups.move_all()
        return self._groups

    def _update(self, nested: bool, plans: Plans) -> None:  # noqa: ARG002  (the signature for `ReentrantLock.call`)
        assert self._groups is not None  # noqa: S101  (checked by the caller)
        self._groups.update(plans)
        self._plans, self.policies = plans, plans.policies
