"""In-memory rate limiter for threads and asyncio."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from math import lcm
from threading import RLock
from typing import Any, NamedTuple, NoReturn

from ratelab.algorithms import Policy, traits_of
from ratelab.algorithms.composite import check_policies
from ratelab.clock import STEADY_CLOCKS, Clock, aligned_clock, monotonic
from ratelab.errors import InputError, short_repr
from ratelab.limiter import Costs, Decision, Keys, Row
from ratelab.quota import NS_PER_S
from ratelab.stores.fork import reset_in_children
from ratelab.stores.versions import CLOSED, Entry, Kernel, Result, Version

SHARD_COUNT = 1024
"""Dictionaries that the keys are divided among; a single one of a million keys would block for milliseconds to grow."""

OVERFLOW_BUCKETS = 64
"""States that new keys share while all `max_keys` keys are in use."""

PROBES_PER_NEW_KEY = 8
"""Keys checked for eviction when a new one arrives; several, so that idle keys leave faster than new ones arrive."""

SWEEP_INTERVAL_NS = 60 * NS_PER_S
"""Time between checks of all keys: memory follows the traffic, yet clients that return soon still have their state."""

ONE = 1
"""CPython caches small ints, so `cost is ONE` skips validation in the common case."""

_NO_COST = object()

_new_tuple = tuple.__new__  # skips the length check of Decision._make


def check_cost(cost: int) -> None:
    """Raise `InputError` unless `cost` is a whole number >= 0."""
    if type(cost) is not int or cost < 0:
        raise InputError(f"cost must be a whole number >= 0, got {short_repr(cost)}")


def check_key(key: object) -> None:
    """Raise `InputError` unless `key` is text."""
    if not isinstance(key, str):
        raise InputError(f"key must be text, got {short_repr(key)}: format it as a str")


def name_keys(policies: Sequence[Policy], key: Keys) -> dict[str, str]:
    """Return the key of each policy that a hit asks, by its name. Raises `InputError` for an invalid key or name."""
    if isinstance(key, str):
        return {policy.name: key for policy in policies}
    if not isinstance(key, Mapping) or not key:
        raise InputError(f"key must be text, got {short_repr(key)}: format it as a str")
    _check_names("key", policies, key)
    for one in key.values():
        check_key(one)
    return {policy.name: key[policy.name] for policy in policies if policy.name in key}


def name_costs(policies: Sequence[Policy], cost: Costs) -> dict[str, int]:
    """Return the cost of a hit for each policy by its name: 1 where a mapping has none and the policy counts requests.

    Raises `InputError` for an invalid cost or name, and for a missing one.
    """
    if not isinstance(cost, Mapping):
        check_cost(cost)
        return {policy.name: cost for policy in policies}
    _check_names("cost", policies, cost)
    for one in cost.values():
        check_cost(one)
    missing = [policy for policy in policies if policy.name not in cost and policy.cost != "requests"]
    if missing:
        name = short_repr(missing[0].name)
        raise InputError(f"missing cost of policy {name}, which counts {missing[0].cost}: give cost={{{name}: ...}}")
    return {policy.name: cost.get(policy.name, 1) for policy in policies}


def _check_names(what: str, policies: Sequence[Policy], given: Mapping[str, object]) -> None:
    names = [policy.name for policy in policies]
    unknown = next((name for name in given if name not in names), None)
    if unknown is not None:
        raise InputError(f"unknown policy {short_repr(unknown)} in {what}: choose from {', '.join(names)}")


def check_clock(clock: Clock) -> None:
    """Raise `InputError` unless `clock` returns a whole number, which clocks in seconds do not."""
    now = clock() if callable(clock) else clock
    if not isinstance(now, int):
        rule = "clock must return whole nanoseconds, as time.monotonic_ns does"
        raise InputError(f"{rule}, got {short_repr(now)}: convert it with int()")


def refuse_pickling(limiter: object) -> NoReturn:
    """Raise `TypeError`: counts belong to one process, and a copy of them would grant quota twice."""
    raise TypeError(f"a {type(limiter).__name__} cannot be pickled or copied: create one in each process")


def default_clock(policies: Sequence[Policy]) -> Clock:
    """Return the clock that a limiter of `policies` reads by default: one that never goes backwards.

    If the windows of a policy are aligned, it follows UTC. Otherwise, it is `time.monotonic_ns`.
    """
    aligned = [policy.quota for policy in policies if traits_of(policy.algorithm).aligned]
    if not aligned:
        return STEADY_CLOCKS[0]
    by_calendar = any(quota.calendar is not None for quota in aligned)
    return aligned_clock(None if by_calendar else lcm(*(quota.window for quota in aligned)))


class Stats(NamedTuple):
    """Counters of a `MemoryLimiter`."""

    keys: int
    """Keys with a separate state, at most `max_keys`."""
    evictions: int
    """Keys evicted after full replenishment."""
    overflow_hits: int
    """Hits decided by a shared bucket because the limiter was full."""


class MemoryLimiter:
    """Enforce policies for each key, in threads and in asyncio: `hit` waits for nothing but other new keys.

    A hit within a hit, as in a signal handler or a finalizer, is decided like any other. A hit that an exception
    interrupts has been charged or not, and the limiter remains usable. So does a copy of it in a forked process.

    At most `max_keys` states are kept. A fully replenished key is evicted without loss when others arrive; a key that
    has used any of its quota is never evicted. When the limiter is full and the few keys checked are all in use, new
    keys share `OVERFLOW_BUCKETS` states, and a key that gets a separate state later starts with a copy of the shared
    one. A flood of new keys therefore obtains no fresh quota; during it, and for a window after it, a new key may be
    denied because of other keys in its bucket.

    The default clock is that of `default_clock`; threads may call a `clock` at the same time. Raises `InputError`
    unless `max_keys` is a whole number >= 1 and `clock` returns whole numbers. A limiter cannot be pickled.
    """

    def __init__(
        self, policies: Policy | Sequence[Policy], clock: Clock | None = None, max_keys: int = 1_000_000
    ) -> None:
        if type(max_keys) is not int or max_keys < 1:
            raise InputError(f"max_keys must be a whole number >= 1, got {short_repr(max_keys)}")
        self.policies = check_policies(policies)
        self.max_keys = max_keys
        self._clock = self.choose_clock(clock)
        self._kernel = Kernel(self.policies, self._clock)
        self._shards: list[dict[str, Entry]] = [{} for _ in range(SHARD_COUNT)]
        self._overflow: dict[int, Entry] = {}  # shared states by bucket number, created on first use
        several = len(self.policies) > 1
        usual_cost: object = _NO_COST if several else ONE  # with several policies, every hit takes the other branch
        kernel, name = self._kernel, self.policy.name
        self._hot: Any = self._shards, self._clock, kernel.step, kernel.size, name, usual_cost
        self._hot_several = self._shards, self._clock, kernel.composite.decide, kernel.size
        self._queue: deque[Entry] = deque()  # every entry of the shards once, in the order of the next checks
        self._unchecked = 0  # entries that this sweep has not checked yet
        self._next_sweep = self._clock() + SWEEP_INTERVAL_NS
        self._evictions = 0
        self._overflow_hits = 0
        self._lock: Any = RLock()  # for keys that come and go
        reset_in_children(self)

    @property
    def policy(self) -> Policy:
        """The first of the policies."""
        return self.policies[0]

    def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 charges nothing.

        A cost above the quota's burst is denied with an infinite `retry_after`. Raises `InputError`, and changes
        nothing, unless `key` is text and `cost` a whole number >= 0, or they are mappings of these by policy name.
        """
        shards, clock, step, size, name, usual_cost = self._hot  # one attribute lookup instead of six
        if cost is not usual_cost:
            if usual_cost is _NO_COST:
                return _new_tuple(Decision, self._kernel.composite.combine(self._hit_several(key, cost)))
            cost = name_costs(self.policies, cost)[name]
        try:
            entry = shards[hash(key) % SHARD_COUNT][key]
        except (KeyError, TypeError):  # a new key, or one that is not text
            pass
        else:
            state = entry.state
            new = [*state]
            # read the clock after the state, so that no step goes back in time
            allowed, remaining, retry_after_ns, reset_after_ns, delay_ns = step(new, clock(), cost)
            state.append(new)
            if state[size] is new:
                entry.state = new
                bound_by = None if allowed else name
                return _new_tuple(
                    Decision, (allowed, remaining, retry_after_ns, reset_after_ns, delay_ns, bound_by, ())
                )
        row: Row = self._hit_slowly(key if isinstance(key, str) else name_keys(self.policies, key)[name], step, cost)
        return Decision(*row, bound_by=None if row[0] else name)

    def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `hit` does; also return the decision of each policy that was asked, in their order.

        If another policy denies the request, a policy that would admit it returns its quota as it stays.
        """
        composite, rows = self._kernel.composite, self._hit_several(key, cost)
        return Decision(*composite.combine(rows)), composite.decisions(rows)

    def hit_row(self, key: str, cost: int = 1) -> Row:
        """Decide as `hit` does, and return the first five fields as a plain tuple, which is faster."""
        shards, clock, step, size, _, usual_cost = self._hot
        row: Row
        if cost is not usual_cost:
            check_cost(cost)
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
        row = self._hit_slowly(key, step, cost)
        return row

    def _hit_several(self, key: Keys, cost: Costs) -> list[Row]:
        """Decide a hit by several policies; return what each decided."""
        if type(cost) is int and cost >= 0:
            costs = (cost,) * len(self.policies)
        else:
            costs = tuple(name_costs(self.policies, cost).values())
        if not isinstance(key, str):
            keys = name_keys(self.policies, key)
            if len(keys) < len(self.policies) or len({*keys.values()}) > 1:
                raise InputError("policies with different keys are not supported yet: give each the same key")
            key = keys[self.policy.name]
        shards, clock, decide, size = self._hot_several
        entry = shards[hash(key) % SHARD_COUNT].get(key)
        if entry is not None:
            state = entry.state
            new, rows = decide(state, clock(), costs)
            state.append(new)
            if state[size] is new:
                entry.state = new
                return rows
        return self._hit_slowly(key, self._step_several, costs)

    def _step_several(self, state: Version, now: int, costs: Sequence[int]) -> list[Row]:
        state[:], rows = self._kernel.composite.decide(state, now, costs)
        return rows

    def reset(self, key: str) -> None:
        """Restore the full quota of `key`, or of its overflow bucket if there is no room for a separate state."""
        check_key(key)
        self._exclusively(self._reset, key)

    @property
    def stats(self) -> Stats:
        """The current counters."""
        return Stats(sum(map(len, self._shards)), self._evictions, self._overflow_hits)

    __reduce__ = refuse_pickling

    def reset_after_fork(self) -> None:
        """Replace the lock, which no thread of this process will release, unless this thread holds it."""
        if not self._lock._is_owned():
            self._lock = RLock()

    def choose_clock(self, clock: Clock | None) -> Clock:
        """Return the clock that hits read, which never goes backwards."""
        if clock is None:
            return default_clock(self.policies)
        check_clock(clock)
        return clock if clock in STEADY_CLOCKS else monotonic(clock)

    # --- keys

    def _hit_slowly(self, key: str, step: Callable[[Version, int, Any], Result], cost: Any) -> Result:
        """Decide a hit of a new key, or one that another hit of the same key has overtaken."""
        check_key(key)
        entry = self._shard(key).get(key)
        result = None if entry is None else self._kernel.decide(entry, step, cost)
        return self._exclusively(self._hit_new, key, step, cost) if result is None else result

    def _exclusively(self, work: Callable[..., Result], *arguments: object) -> Result:
        """Call `work` while no other thread adds or evicts keys.

        Its first argument is whether it runs within another such call, for example in a signal handler.
        """
        lock = self._lock
        nested = lock._is_owned()
        try:
            try:
                if not nested:
                    lock.acquire()
                return work(nested, *arguments)
            finally:
                if not nested and lock._is_owned():
                    lock.release()
        finally:  # in case an exception has interrupted the other one
            if not nested and lock._is_owned():
                lock.release()

    def _hit_new(self, nested: bool, key: str, step: Callable[[Version, int, Any], Result], cost: Any) -> Result:
        """Decide a hit of a key without a separate state; keep a state for it if it needs one and there is room."""
        if not nested:
            self._evict_idle()
        shard = self._shard(key)
        while True:
            full = len(self._queue) >= self.max_keys  # first: a nested hit of the key may take the last place
            entry = shard.get(key)
            if entry is not None:
                result = self._kernel.decide(entry, step, cost)
                if result is not None:
                    return result
                if nested:  # the outer call is evicting the key
                    return self.hit_shared(key, step, cost)
                del shard[key]  # an eviction of the key was interrupted
            if full:
                if nested and self._complete_insertion(key):
                    continue
                return self.hit_shared(key, step, cost)
            state, now = self._start_new(key)
            result = step(state, now, cost)
            if self._kernel.is_new(state, now) or self._insert(key, state):
                return result

    def _start_new(self, key: str) -> tuple[Version, int]:
        """Return the state of a new key, which is a copy of its overflow bucket if there is one, and the time."""
        shared = self._overflow.get(hash(key) % OVERFLOW_BUCKETS)
        state = None if shared is None else self._kernel.latest(shared)[: self._kernel.size]
        now = self._clock()
        return self._kernel.start(now) if state is None else state, now

    def hit_shared(self, key: str, step: Callable[[Version, int, Any], Result], cost: Any) -> Result:
        """Decide a hit by the overflow bucket of `key`."""
        self._overflow_hits += 1
        number = hash(key) % OVERFLOW_BUCKETS
        shared = self._overflow.get(number)
        if shared is None:
            shared = self._overflow.setdefault(number, Entry("", self._kernel.start(self._clock())))
        result = self._kernel.decide(shared, step, cost)
        assert result is not None  # noqa: S101  (buckets are never evicted)
        return result

    def _insert(self, key: str, state: Version) -> bool:
        """Keep `state` for `key`; return False if nested hits have taken the room, or kept a state for the key."""
        entry = Entry(key, state)
        self._queue.append(entry)  # first, so that no kept key is ever missing from the queue
        if len(self._queue) > self.max_keys:
            self._queue.pop()
            return False
        return self._shard(key).setdefault(key, entry) is entry

    def _complete_insertion(self, key: str) -> bool:
        """Keep the state of an `_insert` of `key` that this call has interrupted; return whether there is one."""
        last = self._queue[-1]
        if len(self._queue) > self.max_keys or last.key != key or self._kernel.latest(last) is CLOSED:
            return False
        self._shard(key).setdefault(key, last)
        return True

    def _reset(self, nested: bool, key: str) -> None:  # noqa: ARG002  (the signature for `_exclusively`)
        while (entry := self._shard(key).get(key)) is None:
            entry = self._overflow.get(hash(key) % OVERFLOW_BUCKETS)
            if entry is None or len(self._queue) >= self.max_keys:
                break
            if self._insert(key, self._kernel.start(self._clock())):
                return
        if entry is not None:
            self._kernel.refill(entry)

    def _evict_idle(self) -> None:
        """If room is scarce or a sweep is due, check a few keys and evict those that are fully replenished."""
        if not self._queue:
            return
        now = self._clock()
        if now >= self._next_sweep:
            self._unchecked, self._next_sweep = len(self._queue), now + SWEEP_INTERVAL_NS
        scarce = 2 * len(self._queue) >= self.max_keys
        probes = min(PROBES_PER_NEW_KEY, len(self._queue) if scarce else self._unchecked)
        self._unchecked = max(0, self._unchecked - probes)
        for _ in range(probes):
            if self._evict(self._queue[0]):
                self._queue.popleft()
            else:
                self._queue.rotate(-1)

    def _evict(self, entry: Entry) -> bool:
        """Remove `entry` if it is fully replenished; return whether it is no longer kept."""
        shard = self._shard(entry.key)
        if shard.get(entry.key) is not entry:  # its hit was interrupted, or overtaken by another of the same key
            return True
        state = self._kernel.latest(entry)
        if state is not CLOSED and not (
            self._kernel.is_new(state, self._clock()) and self._kernel.commit(state, CLOSED)
        ):
            return False
        del shard[entry.key]
        self._evictions += 1
        return True

    def _shard(self, key: str) -> dict[str, Entry]:
        return self._shards[hash(key) % SHARD_COUNT]
