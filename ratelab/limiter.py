"""What a decision, an algorithm and a limiter are: the shapes that every engine shares."""

from __future__ import annotations

from collections.abc import Callable, MutableSequence
from typing import ClassVar, NamedTuple, Protocol, Self

from ratelab.quota import Quota

NEVER = 2**63 - 1
"""The `retry_after_ns` of a request that no wait can help: it costs more than `burst`."""

State = MutableSequence[int]
"""One key's memory: a list in a limiter, some integers of many in a replay."""

Clock = Callable[[], int]
"""Nanoseconds from any origin; `time.monotonic_ns` is one."""


class Decision(NamedTuple):
    """The answer to one hit: these five fields, in this order, in every engine, file and table."""

    allowed: bool
    """Whether the request may go ahead."""
    remaining: int
    """Further cost admissible at this instant."""
    retry_after_ns: int
    """The shortest wait after which the same request, alone, is admitted: 0 if allowed, `NEVER` if none helps."""
    reset_after_ns: int
    """The time until the key is as good as new, which is also how long its state must be kept."""
    delay_ns: int
    """How long an admitted request must queue before it goes ahead."""

    @property
    def retry_after(self) -> float:
        """`retry_after_ns` in seconds; infinite if no wait can help."""
        return float("inf") if self.retry_after_ns == NEVER else self.retry_after_ns / 1e9

    @property
    def reset_after(self) -> float:
        """`reset_after_ns` in seconds."""
        return self.reset_after_ns / 1e9

    @property
    def delay(self) -> float:
        """`delay_ns` in seconds."""
        return self.delay_ns / 1e9


class Algorithm(Protocol):
    """Decide one hit on one key in integers alone: a frozen dataclass with no clock, lock, I/O or exception.

    Two optional class attributes are shown by `ratelab algorithms`: `remembers`, the names of the numbers in a
    key's state, and `at_most = (factor, extra)`, the promise that no window of `Quota.window` lets out a cost of more
    than `factor * burst + extra`, a positive `extra` counted in whole requests. Tests hold a class to the promise.
    Two more are for pictures: a method `level(state, now)`, which reads a level in units of cost from a state last
    stepped at `now`, and `shows`, what that is a level of. Without them, what is left is shown.
    """

    name: ClassVar[str]

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the algorithm that grants `quota`; raise `InputError` if it cannot."""
        ...

    def start(self, now: int) -> list[int]:
        """Return the state of a key never seen before."""
        ...

    def step(self, state: State, now: int, cost: int) -> tuple[bool, int, int, int, int]:
        """Decide a hit of `cost` >= 0 at `now`, update `state` in place and return a `Decision`'s five fields.

        `now` never decreases from one step of a state to the next; see `ratelab.stores.memory.monotonic`.
        """
        ...


class Bounded(Algorithm, Protocol):
    """An algorithm that says how large its numbers become, for engines whose integers have an end."""

    def largest(self, latest: int, cost: int, idle: int) -> int:
        """Return what no number of a step exceeds, those of a time's own unit in the state aside.

        `latest` is the latest time, `cost` the largest cost, and `idle` for how long at most a state has been as good
        as new when it is used again.
        """
        ...


class LongStated(Bounded, Protocol):
    """An algorithm whose state is long, and that spares such engines work on it."""

    only_tells: ClassVar[tuple[int, ...]]
    """The places in a state on which nothing depends but what a `Decision` tells besides `allowed` and the delay."""

    def reached(self, asked: int) -> int:
        """Return how many of a state's first numbers all else takes while no more than `asked` is asked for in all."""
        ...

    def looks_at(self, state: State) -> int:
        """Return where in `state` the next step will look; a miss now and then does no harm."""
        ...


class Limiter(Protocol):
    """An algorithm joined to a place that keeps the keys' states."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that decides."""
        ...

    def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide a request of `cost` by `key` now, and charge it if it is allowed; cost 0 only looks."""
        ...


class AsyncLimiter(Protocol):
    """A `Limiter` whose states are kept elsewhere, so that a decision is waited for."""

    @property
    def algorithm(self) -> Algorithm:
        """The algorithm that decides; its integers are nanoseconds, as everywhere."""
        ...

    async def hit(self, key: str, cost: int = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if there is no decision."""
        ...
