"""Decisions, algorithms and limiters: the types that every engine shares."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, MutableSequence
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple, Protocol, Self, cast

from ratelab.quota import Quota

if TYPE_CHECKING:
    from ratelab.algorithms import Policy

NEVER = 2**63 - 1
"""The `retry_after_ns` of a request that costs more than `burst`: no wait is long enough."""

State = MutableSequence[int]
"""The state of one key: a list in a limiter, a slice of an array in a replay."""

Row = tuple[bool, int, int, int, int]
"""The first five fields of a `Decision`, as `step` returns them."""

Keys = str | Mapping[str, str]
"""The key of a hit: one for all policies, or one for each by its name; a policy without a key is not asked."""

Costs = int | Mapping[str, int]
"""The cost of a hit: one for all policies, or one for each by its name."""


class Decision(NamedTuple):
    """The result of one hit, of one policy or of several together.

    Engines, files and tables use the first five fields, in this order: `ROW_FIELDS`.
    """

    allowed: bool
    """Whether the request is admitted."""
    remaining: int
    """Further cost that would be admitted at this instant."""
    retry_after_ns: int
    """Shortest wait after which the same request alone is admitted: 0 if allowed, `NEVER` if no wait is enough."""
    reset_after_ns: int
    """Time until the key is fully replenished; also the TTL of its state."""
    delay_ns: int
    """Time that an admitted request must queue."""
    bound_by: str | None = None
    """Name of the policy that denied the request: of several, the one with the longest `retry_after_ns`."""
    shadow: tuple[str, ...] = ()
    """Names of the shadow policies that would have denied the request."""

    @property
    def row(self) -> Row:
        """The first five fields."""
        return self[:5]

    @property
    def retry_after(self) -> float:
        """`retry_after_ns` in seconds; infinite for `NEVER`."""
        return float("inf") if self.retry_after_ns == NEVER else self.retry_after_ns / 1e9

    @property
    def reset_after(self) -> float:
        """`reset_after_ns` in seconds."""
        return self.reset_after_ns / 1e9

    @property
    def delay(self) -> float:
        """`delay_ns` in seconds."""
        return self.delay_ns / 1e9


ROW_FIELDS = Decision._fields[:5]
"""The names of the fields of a `Row`."""


class Admission(Decision):
    """The type of the result of `wait`: a `Decision`, which may also be awaited.

    A limiter's method `wait` blocks in a thread, and returns the decision. Where an event loop runs, it returns an
    awaitable instead, which has no other use than to be awaited. This one type lets type checkers accept both
    `limiter.wait(key).remaining` and `(await limiter.wait(key)).remaining`.
    """

    __slots__ = ()

    def __await__(self) -> Generator[Any, None, Decision]:
        """Return the decision at once."""
        yield from ()
        return self


class Level(NamedTuple):
    """A quantity in a key's state that charts can draw over time."""

    label: str
    """The quantity, such as `tokens in the bucket`."""
    read: Callable[[Any, State, int], float]
    """Return it in units of cost, given the algorithm, a state and the time of the state's last step."""


class Traits(NamedTuple):
    """Facts about an algorithm that engines, charts and tables need; declared as `traits: ClassVar[Traits]`."""

    state: tuple[str, ...] = ()
    """Names of the integers in a key's state."""
    at_most: tuple[int, int] | None = None
    """Bound of any window of `Quota.window`: `factor * burst + extra`, a positive `extra` in whole requests."""
    queues: bool = False
    """Whether an admitted request may have a delay."""
    aligned: bool = False
    """Whether windows start at whole multiples of `Quota.window` since the origin of the clock, or by the calendar."""
    level: Level | None = None
    """The level that charts draw; by default `remaining`."""
    bound: Callable[[Any, int, int, int], int] | None = None
    """Return the largest integer that a step can reach, given the algorithm, the latest time, the largest cost and the
    longest time that a fully replenished key is idle. Times in a state, in the state's own unit, do not count.

    An algorithm that declares a bound promises integers >= 0 from every step, and no delay unless it `queues`, so
    engines skip their checks. Without one, they check each row, and compiled code checks for overflow.
    """
    counts_denials: bool = False
    """Whether a denied hit may change later decisions, and is therefore to be kept; that of a penalty does."""
    charges: bool = False
    """Whether the class is a `ChargingAlgorithm`: has a method `charge`."""
    admits_need: bool = False
    """Whether a key is denied nothing if and only if its need at the rate is at most the burst (`ratelab.lab.tune`)."""


class Algorithm(Protocol):
    """Decide hits on one key with integer arithmetic: a frozen dataclass without clock, lock, I/O or exceptions.

    A class may declare `traits: ClassVar[Traits]`; `ratelab.algorithms.traits_of` supplies defaults for one that does
    not. The conformance tests check the declared traits.
    """

    name: ClassVar[str]

    @classmethod
    def from_quota(cls, quota: Quota) -> Self:
        """Build the algorithm that grants `quota`; raise `InputError` if it cannot."""
        ...

    def start(self, now: int) -> list[int]:
        """Return the state of a new key."""
        ...

    def step(self, state: State, now: int, cost: int) -> Row:
        """Decide a hit of `cost` >= 0 at `now`, update `state` in place and return the fields of a `Decision`.

        Engines guarantee that `now` does not decrease from one step of a state to the next.
        """
        ...


class ChargingAlgorithm(Algorithm, Protocol):
    """An algorithm that declares `Traits.charges`."""

    def charge(self, state: State, now: int, cost: int, at: int | None = None) -> None:
        """Charge `cost` without a decision, even below zero; if it is negative, refund a charge of the time `at`.

        A refund leaves at most the quota of a new key.
        """
        ...


_UNDECLARED = Traits(queues=True)  # a class without traits may return delays


def traits_of(algorithm: Algorithm | type[Algorithm]) -> Traits:
    """Return the declared traits of an algorithm, or those that hold for any class.

    Traits are inherited together with the `step` that they describe: a subclass with its own `step` declares its own.
    """
    kind = algorithm if isinstance(algorithm, type) else type(algorithm)
    for base in kind.__mro__:
        if "traits" in vars(base):
            declared: Traits = vars(base)["traits"]
            return declared
        if "step" in vars(base):
            break
    return _UNDECLARED


def charge_without_decision(algorithm: Algorithm, state: State, now: int, cost: int, at: int | None) -> None:
    """Charge or refund `cost` as `ChargingAlgorithm.charge` does.

    Another algorithm is charged up to its remaining quota, and refunds nothing.
    """
    if traits_of(algorithm).charges:
        cast("ChargingAlgorithm", algorithm).charge(state, now, cost, at)
    elif cost > 0:
        _, remaining, _, _, _ = algorithm.step(state, now, 0)
        algorithm.step(state, now, min(cost, remaining))


class Limiter(Protocol):
    """Policies and the states of their keys."""

    @property
    def policy(self) -> Policy:
        """The first of the policies."""
        ...

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that this limiter enforces together."""
        ...

    def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        """Decide a request of `cost` by `key` now, and charge every policy if all allow it; `cost=0` only looks."""
        ...

    def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `hit` does; also return the decision of each policy that was asked, in their order."""
        ...


class AsyncLimiter(Protocol):
    """A `Limiter` whose decisions are awaited, because its states are kept elsewhere."""

    @property
    def policy(self) -> Policy:
        """The first of the policies, in nanoseconds."""
        ...

    @property
    def policies(self) -> tuple[Policy, ...]:
        """The policies that this limiter enforces together, in nanoseconds."""
        ...

    async def hit(self, key: Keys, cost: Costs = 1) -> Decision:
        """Decide as `Limiter.hit` does; raise `StoreError` if the store returned no decision."""
        ...

    async def hit_each(self, key: Keys, cost: Costs = 1) -> tuple[Decision, tuple[Decision, ...]]:
        """Decide as `Limiter.hit_each` does; raise `StoreError` if the store returned no decision."""
        ...
