"""States that hits replace and never change, so that nothing can interrupt a hit at a bad moment.

A hit may be interrupted anywhere: by another thread, by a signal handler or a finalizer that itself calls `hit`, by an
exception that one of them raises, or by a fork. A hit therefore copies the latest state of its key, decides on the
copy, and appends the copy to that state as its successor. An append is atomic: of several hits that started from one
state, the first to append has committed, and the others start over from its successor.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from ratelab.algorithms import BUILT_IN, Policy
from ratelab.algorithms.composite import Composite, Part
from ratelab.clock import Clock
from ratelab.limiter import Row

MAX_COPIED_NUMBERS = 1024
"""Numbers in a state that every hit copies; of a longer state, it copies the pages that it changes."""

PAGE_BITS = 9
"""Each page of a long state holds `2**PAGE_BITS` numbers."""

Version = list[Any]
"""A state of a key: its numbers and, once a hit has replaced it, its successor; further items are ignored."""

CLOSED: Version = []
"""The successor of the last state of an evicted key; a key that was moved to another table has an empty one, too."""

Result = TypeVar("Result")


class Entry:
    """The states of a key or an overflow bucket, from one of them on: the latest is the last successor."""

    __slots__ = ("key", "state")

    def __init__(self, key: str, state: Version) -> None:
        self.key, self.state = key, state


class Kernel:
    """The `start` and `step` of policies, for states of `size` items that a hit can copy in a short time.

    A built-in algorithm with a short state is used as it is. Any other state is one item, a list or `PagedState`, of
    which `step` changes a copy. Several policies are composed.
    """

    def __init__(self, policies: Sequence[Policy], clock: Clock) -> None:
        self._clock = clock
        parts: list[Part] = []
        for policy in policies:
            parts.append(_create_part(policy, parts[-1].end if parts else 0))
        self.composite = Composite(parts)
        self.size = parts[-1].end
        self.start: Callable[[int], Version] = self.composite.start
        self.step: Callable[[Version, int, int], Row] = self._step_together
        self.decide: Callable[[Version, int, int], Any] = self.composite.decide_together
        """Return the fields of a `Decision` but those of `admitted` or `denied`, which end it."""
        self.admitted, self.denied = tuple[Any, ...](), tuple[Any, ...]()
        if len(parts) == 1 and not policies[0].shadow:
            self.start, self.step = parts[0].start, parts[0].step
            self.decide, self.admitted, self.denied = self.step, (None, ()), (policies[0].name, ())

    def _step_together(self, state: Version, now: int, cost: int) -> Row:
        return self.composite.decide_together(state, now, cost)[:5]

    def is_new(self, state: Version, now: int) -> bool:
        """Return whether every policy would decide by `state` as by that of a new key."""
        return all(part.step(state[part.begin : part.end], now, 0)[3] <= 0 for part in self.composite.parts)

    def update(self, entry: Entry, change: Callable[[Version, int], Result]) -> Result | None:
        """Replace the latest state by a copy that `change` has changed at the current time, and return its result.

        Return None if the entry is closed.
        """
        while state := self.latest(entry):
            new = state[: self.size]
            result = change(new, self._clock())  # read after the state, so that no step goes back in time
            if self.commit(state, new):
                entry.state = new
                return result
        return None

    def latest(self, entry: Entry) -> Version:
        """Return the latest state of `entry`; an empty one if it is closed."""
        state, size = entry.state, self.size
        while len(state) > size:
            state = state[size]
        return state

    def commit(self, state: Version, new: Version) -> bool:
        """Make `new` the successor of `state`; return False if it already has one."""
        state.append(new)
        return state[self.size] is new


def _create_part(policy: Policy, begin: int) -> Part:
    """Return the part of a policy whose state begins at item `begin`: packed into one item unless it is short."""
    built_in = type(policy.algorithm) in BUILT_IN
    size = len(policy.start(0)) if built_in else 0
    if 0 < size <= MAX_COPIED_NUMBERS:
        return Part(policy, policy.start, policy.step, policy.charge, begin, begin + size)
    pack: Callable[[list[int]], Any] = PagedState.split if built_in else list

    def start(now: int) -> Version:
        return [pack(policy.start(now))]

    def step(item: Version, now: int, cost: int) -> Row:
        state = item[0].copy()
        row = policy.step(state, now, cost)
        item[0] = state
        return row

    def charge(item: Version, now: int, cost: int, at: int | None) -> None:
        state = item[0].copy()
        policy.charge(state, now, cost, at)
        item[0] = state

    return Part(policy, start, step, charge, begin, begin + 1)


class PagedState:
    """A long state of a built-in algorithm; copies share the pages that neither has changed."""

    __slots__ = ("_changed", "_pages")

    def __init__(self, pages: list[list[int]]) -> None:
        self._pages = pages
        self._changed: set[int] = set()

    @classmethod
    def split(cls, state: list[int]) -> PagedState:
        """Return the pages of a state."""
        return cls([state[begin : begin + (1 << PAGE_BITS)] for begin in range(0, len(state), 1 << PAGE_BITS)])

    def __getitem__(self, index: int) -> int:
        return self._pages[index >> PAGE_BITS][index & ((1 << PAGE_BITS) - 1)]

    def __setitem__(self, index: int, value: int) -> None:
        page = index >> PAGE_BITS
        if page not in self._changed:
            self._pages[page] = self._pages[page].copy()
            self._changed.add(page)
        self._pages[page][index & ((1 << PAGE_BITS) - 1)] = value

    def copy(self) -> PagedState:
        """Return a copy that shares all pages."""
        return PagedState(self._pages.copy())
