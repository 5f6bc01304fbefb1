"""Hits that change the states of several keys, of changing quotas, in all of them or in none.

Policies that count by the same kind of key form a group, whose states are kept in one table. A version of a key is a
kernel and the numbers of its policies; a hit converts the numbers of other quotas than its own.

A hit of several keys appends a `Pending` version to the latest one of each key, and then its outcome to their common
list. An append is atomic, and only the first outcome counts, so the hit commits at that moment, in every key. A hit
that meets a pending version without an outcome, as in a signal handler, makes the other one fail and start over. This
is a multi-word compare-and-swap: Harris, Fraser and Pratt 2002, "A practical multi-word compare-and-swap operation".
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ratelab.algorithms import Policy
from ratelab.algorithms.composite import Answer
from ratelab.clock import Clock
from ratelab.limiter import Row
from ratelab.stores.key_table import KeyTable, ReentrantLock, Stats
from ratelab.stores.plans import Plans, convert_numbers
from ratelab.stores.versions import Entry, Kernel, Version

ALL = "all"
"""The `key` of a policy with one counter for all clients, and the key of that counter."""

_KERNEL, _NUMBERS, _SIZE = 0, 1, 2  # items of a version


class Pending:
    """The version that a hit of several keys appends to one of them: the old one again unless the hit commits."""

    __slots__ = ("_new", "_old", "_outcome")

    def __init__(self, old: Version, new: Version, outcome: list[bool]) -> None:
        self._old, self._new, self._outcome = old[:_SIZE], new, outcome

    def resolve(self) -> Version:
        """Return the version that is valid; without an outcome, the hit fails."""
        if not self._outcome:
            self._outcome.append(False)
        return self._new if self._outcome[0] else self._old


class Moved(list[Any]):
    """The successor of the last state in a table that another one replaces: empty, with the version in that one."""

    def __init__(self, version: Version) -> None:
        super().__init__()
        self.version = version


class VersionChain(Kernel):
    """The versions of a group's keys: kernel and numbers. A new key has the numbers of `policies`."""

    def __init__(self, policies: Sequence[Policy], clock: Clock) -> None:
        super().__init__(policies, clock)
        self.numbers = Kernel(policies, clock)
        self.start = lambda now: [self.numbers, self.numbers.start(now)]
        self.size = _SIZE

    def is_new(self, state: Version, now: int) -> bool:
        """Return whether every policy would decide by a version as by that of a new key."""
        return bool(state[_KERNEL].is_new(state[_NUMBERS], now))

    def latest(self, entry: Entry) -> Version:
        """Return the latest version of `entry`; an empty one if it is closed."""
        version = entry.state
        while len(version) > _SIZE:
            version = version[_SIZE]
            if type(version) is Pending:
                version = version.resolve()
        return version


@dataclass(slots=True)
class Group:
    """The policies that count by one kind of key, and the states of their keys."""

    policies: tuple[Policy, ...]
    table: KeyTable
    chain: VersionChain
    replaced: KeyTable | None = None
    """The table in which the keys were kept before, while some are left there."""

    def find(self, key: str) -> Entry | None:
        """Return the entry of a key; move it here if it is left in the replaced table."""
        entry = self.table.get(key)
        if entry is None and self.replaced is not None:
            left = self.replaced.get(key)
            moved = None if left is None else self._close(self.replaced, left)
            if moved is not None:
                self.table.adopt(key, moved)
            entry = self.table.get(key)
        return entry

    def replace(self, table: KeyTable) -> None:
        """Take over the keys of a table with their used quotas: each moves at its next hit, or by `move_all`."""
        self.replaced = table
        self.table.reserved = table.retire()
        for number, bucket in [*table.overflow.items()]:
            moved = self._close(table, bucket)
            if moved is not None:
                self.table.overflow.setdefault(number, Entry("", moved))

    def move_all(self) -> None:
        """Move the keys that are left in the replaced table, while others may hit them."""
        for shard in [] if self.replaced is None else self.replaced.shards:
            for key in [*shard]:
                self.find(key)
        self.replaced, self.table.reserved = None, 0

    def _close(self, table: KeyTable, entry: Entry) -> Version | None:
        """Close the entry of a table, and return its version in this one; None if it was evicted."""
        kernel = table.kernel
        while state := kernel.latest(entry):
            kernel.commit(state, Moved([self.chain.numbers, state[: kernel.size]]))
        last = kernel.latest(entry)
        return last.version if isinstance(last, Moved) else None


@dataclass(eq=False, slots=True)
class Access:
    """The part of a hit or a charge that concerns one key of a group: the costs of its policies, by name."""

    group: Group
    key: str
    costs: dict[str, int]
    kernel: Kernel | None
    """The kernel of its quotas; None keeps those that the key has."""
    entry: Entry | None = None
    version: Version = field(default_factory=list)
    numbers: list[Any] = field(default_factory=list)

    def read(self) -> None:
        """Read the latest version of the key; without one, that of a new key."""
        table = self.group.table
        self.entry = self.entry or self.group.find(self.key)
        self.version = [] if self.entry is None else table.kernel.latest(self.entry)
        if not self.version:
            self.entry, (self.version, _) = None, table.start_new(self.key)

    def convert(self, now: int) -> tuple[Kernel, list[Any], list[int | None]]:
        """Return the kernel of the hit, the numbers of the key in it, and the cost for each of its policies."""
        kernel, numbers = self.version[_KERNEL], self.version[_NUMBERS]
        if self.kernel is not None and self.kernel is not kernel:
            numbers, kernel = convert_numbers(kernel, self.kernel, numbers, now), self.kernel
        return kernel, numbers, [self.costs.get(policy.name) for policy in kernel.composite.policies]


class PolicyGroups:
    """The groups of policies, and the kernels of their plans and overrides."""

    def __init__(self, plans: Plans, clock: Clock, max_keys: int, note_shared: Callable[[], None]) -> None:
        self._clock = clock
        self._table_options = max_keys, note_shared
        self._lock = ReentrantLock()  # between threads: without it, two hits could make each other start over
        self._groups: dict[str | None, Group] = {}
        self.update(plans)

    def update(self, plans: Plans) -> None:
        """Replace the policies and their plans; the numbers of a key are converted at its next hit."""
        members: dict[str | None, list[Policy]] = {}
        for policy in plans.policies:
            members.setdefault(policy.key, []).append(policy)
        groups = {}
        for key, policies in members.items():
            chain, old = VersionChain(policies, self._clock), self._groups.get(key)
            table = KeyTable(chain, self._clock, *self._table_options) if old is None else old.table
            table.kernel = chain
            groups[key] = Group(tuple(policies), table, chain, None if old is None else old.replaced)
        self._state: tuple[Plans, dict[str | None, Group], dict[Any, Kernel]] = plans, groups, {}
        self._groups = groups

    def replace(self, table: KeyTable) -> None:
        """Take over the keys of a table for the first group; if there are several, the table must be empty."""
        next(iter(self._groups.values())).replace(table)

    def move_all(self) -> None:
        """Move the keys that are left in a replaced table."""
        for group in self._groups.values():
            group.move_all()

    @property
    def stats(self) -> Stats:
        """The sum of the counters of all groups."""
        return Stats(*map(sum, zip(*(group.table.stats for group in self._groups.values()), strict=True)))

    def hit(self, keys: Mapping[str, str], costs: Mapping[str, int], plan: str | None) -> tuple[list[Answer], int]:
        """Decide a hit of the policies with a key; return what each decided, in their order, and the time."""
        answers: dict[str, Answer] = {}

        def decide(accesses: Sequence[Access], now: int) -> list[Version]:
            given = [access.convert(now) for access in accesses]
            results = [kernel.composite.attempt(numbers, now, each) for kernel, numbers, each in given]
            denied = any(denied for _, _, denied in results)
            answers.clear()
            for (kernel, numbers, _), (new, rows, _) in zip(given, results, strict=True):
                if denied:
                    kernel.composite.withdraw(numbers, now, new, rows)
                answers.update(_name_answers(kernel, rows))
            return [[kernel, new] for (kernel, _, _), (new, _, _) in zip(given, results, strict=True)]

        now = self._change(self.find_accesses(keys, costs, plan, converts=True), decide)
        return [answers[policy.name] for policy in self._state[0].policies if policy.name in answers], now

    def look(self, keys: Mapping[str, str], plan: str | None) -> list[Answer]:
        """Return what each policy with a key decides at cost 0, with the quota of the last hit of its key."""
        answers: dict[str, Answer] = {}
        for access in self.find_accesses(keys, {}, plan, converts=True):
            access.read()
            if access.entry is not None and access.kernel is not None:
                known = {policy.name: policy for policy in access.version[_KERNEL].composite.policies}
                kept = [known.get(policy.name, policy) for policy in access.kernel.composite.policies]
                access.kernel = Kernel(kept, self._clock)
            kernel, numbers, costs = access.convert(now := self._clock())
            answers |= _name_answers(kernel, kernel.composite.attempt(numbers, now, costs)[1])
        return [answers[policy.name] for policy in self._state[0].policies if policy.name in answers]

    def charge(
        self,
        keys: Mapping[str, str],
        costs: Mapping[str, int],
        at: int | None = None,
        bursts: Mapping[str, int] | None = None,
    ) -> None:
        """Charge without a decision; a negative cost refunds a charge of the time `at`, when quotas had these `bursts`.

        A refund changes in proportion to the burst, rounded down, as the charge has done.
        """

        def charge(accesses: Sequence[Access], now: int) -> list[Version]:
            versions = []
            for access in accesses:
                kernel, numbers, costs = access.convert(now)
                new: list[Any] = []
                for part, given in zip(kernel.composite.parts, costs, strict=True):
                    cost = given
                    state = numbers[part.begin : part.end]
                    if cost and cost < 0 and bursts is not None:
                        cost = -(-cost * part.policy.quota.burst // bursts[part.policy.name])
                    if cost:
                        part.charge(state, now, cost, at)
                    new += state
                versions.append([kernel, new])
            return versions

        self._change(self.find_accesses(keys, costs, None, converts=False), charge)

    def reset(self, keys: Mapping[str, str]) -> None:
        """Restore the full quota of the key of each policy."""
        for access in self.find_accesses(keys, {}, None, converts=False):
            access.group.find(access.key)
            access.group.table.reset(access.key)

    def find_accesses(
        self, keys: Mapping[str, str], costs: Mapping[str, int], plan: str | None, *, converts: bool
    ) -> list[Access]:
        """Return the parts of a hit or a charge, with the quotas of a plan if it `converts` the keys to them."""
        plans, groups, kernels = self._state
        accesses: dict[tuple[str | None, str], Access] = {}
        for policy in plans.policies:
            if policy.name not in keys:
                continue
            key = ALL if policy.key == ALL else keys[policy.name]
            access = accesses.get((policy.key, key))
            if access is None:
                group, kernel = groups[policy.key], None
                if converts:
                    quotas = plan, key if key in plans.overrides else None
                    kernel = kernels.get((policy.key, *quotas))
                    if kernel is None:
                        changed = [plans.policy_of(one, *quotas) for one in group.policies]
                        created = group.chain.numbers if changed == [*group.policies] else Kernel(changed, self._clock)
                        kernel = kernels.setdefault((policy.key, *quotas), created)
                access = accesses[policy.key, key] = Access(group, key, {}, kernel)
            access.costs[policy.name] = costs.get(policy.name, 0)
        return [*accesses.values()]

    def _change(self, accesses: list[Access], work: Callable[[Sequence[Access], int], list[Version]]) -> int:
        """Replace the versions of keys by those that `work` returns, in all or in none; return the time."""
        if len(accesses) > 1:
            return self._lock.call(self._change_all, accesses, work)
        return self._change_all(False, accesses, work)

    def _change_all(
        self,
        nested: bool,  # noqa: ARG002  (the signature for `ReentrantLock.call`)
        accesses: list[Access],
        work: Callable[[Sequence[Access], int], list[Version]],
    ) -> int:
        while True:
            for access in accesses:
                access.read()
            now = self._clock()  # after the versions, so that no step goes back in time
            versions = work(accesses, now)
            new_keys = [
                access
                for access, (kernel, numbers) in zip(accesses, versions, strict=True)
                if access.entry is None and not kernel.is_new(numbers, now)
            ]
            for access in accesses:
                if access.entry is None and access not in new_keys:
                    access.group.table.evict_idle()
            if new_keys:
                for access in new_keys:
                    access.entry = access.group.table.place(access.key)
                accesses = [*_merge(accesses)]
                continue
            kept = [pair for pair in zip(accesses, versions, strict=True) if pair[0].entry is not None]
            if _commit([(access.version, version) for access, version in kept]):
                for access, version in kept:
                    access.entry.state = version  # type: ignore[union-attr]
                return now


def _name_answers(kernel: Kernel, rows: Sequence[Row | None]) -> Iterator[tuple[str, Answer]]:
    for policy, row in zip(kernel.composite.policies, rows, strict=True):
        if row is not None:
            yield policy.name, (policy, row)


def _merge(accesses: Sequence[Access]) -> Iterator[Access]:
    """Yield the accesses; those of keys that share an overflow bucket become one."""
    by_entry: dict[int, Access] = {}
    for access in accesses:
        first = access if access.entry is None else by_entry.setdefault(id(access.entry), access)
        if first is access:
            yield access
        else:
            first.costs.update(access.costs)


def _commit(changes: Sequence[tuple[Version, Version]]) -> bool:
    """Make each new version the successor of an old one, in all or in none; return whether they are."""
    if len(changes) == 1:
        ((old, new),) = changes
        old.append(new)
        return old[_SIZE] is new
    outcome: list[bool] = []
    for old, new in changes:
        pending = Pending(old, new, outcome)
        old.append(pending)
        if old[_SIZE] is not pending:
            outcome.append(False)
            return False
    outcome.append(True)
    return outcome[0]
