"""Several policies that decide each request together: a request takes from all of them, or from none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from ratelab.algorithms import Policy
from ratelab.errors import InputError, short_repr
from ratelab.limiter import NEVER, Decision, Row, State

Combined = tuple[bool, int, int, int, int, str | None, tuple[str, ...]]
"""The fields of a `Decision`."""

Answer = tuple[Policy, Row]
"""A policy, and its decision."""


def check_policies(policies: object) -> tuple[Policy, ...]:
    """Return one policy, or a sequence of them, as a tuple.

    Raises `InputError` unless there is at least one, and each has another name.
    """
    given = (policies,) if isinstance(policies, Policy) else policies
    if isinstance(given, str) or not isinstance(given, Sequence) or not all(isinstance(one, Policy) for one in given):
        remedy = "create one with Policy.create"
        raise InputError(f"policies must be a Policy or a list of them, got {short_repr(policies)}: {remedy}")
    names = [policy.name for policy in given]
    if not names:
        raise InputError("policies must hold at least one Policy, got an empty list")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"policies must have different names, got {short_repr(twice)} twice: set name=")
    return tuple(given)


class Part(NamedTuple):
    """One policy of a composition, and the place of its numbers in the state."""

    policy: Policy
    start: Callable[[int], list[int]]
    step: Callable[[Any, int, int], Row]
    charge: Callable[[Any, int, int, int | None], None]
    begin: int
    end: int


class Composite:
    """A kernel that enforces several policies: its state is the concatenation of theirs.

    A denied request changes no enforcing policy, except that the penalty of one that denies it counts the denial. Of
    these, the decision has the least `remaining`, and the greatest `retry_after_ns`, `reset_after_ns` and `delay_ns`. A
    shadow policy decides as if it were alone, and is charged if it would admit the request.
    """

    def __init__(self, parts: Sequence[Part]) -> None:
        self.parts = tuple(parts)
        self.policies = tuple(part.policy for part in parts)
        self._steps = tuple((part.step, part.begin, part.end, not part.policy.shadow) for part in parts)
        self._named_steps = tuple((part.step, slice(part.begin, part.end), part.policy.name) for part in parts)
        alike = not any(policy.shadow or policy.counts_denials for policy in self.policies)
        self.decide_together: Callable[[State, int, int], tuple[list[int], Combined]] = (
            (self._decide_two if len(parts) == 2 else self._decide_alike) if alike else self._decide_any
        )
        """Return the next state and the fields of the `Decision`, as `decide` and `combine` do, in half the time."""

    @classmethod
    def of(cls, policies: Iterable[Policy]) -> Composite:
        """Compose policies of one key."""
        parts: list[Part] = []
        for policy in policies:
            begin = parts[-1].end if parts else 0
            end = begin + len(policy.start(0))
            parts.append(Part(policy, policy.start, policy.step, policy.charge, begin, end))
        return cls(parts)

    def start(self, now: int) -> list[int]:
        """Return the state of a new key."""
        return [number for part in self.parts for number in part.start(now)]

    def step(self, state: State, now: int, cost: int) -> Row:
        """Decide a hit that costs `cost` by every policy, and update `state` in place."""
        new, rows = self.decide(state, now, (cost,) * len(self.parts))
        state[:] = new
        return self.combine(rows)[:5]

    def decide(self, state: State, now: int, costs: Sequence[int]) -> tuple[list[int], list[Row]]:
        """Decide a hit with a cost for each policy; return the next state and what each policy decided.

        If another policy denies the request, a policy that would admit it is not charged, and returns its quota as it
        stays.
        """
        new, rows, denied = self.attempt(state, now, costs)
        if denied:
            self.withdraw(state, now, new, rows)
        return new, rows  # type: ignore[return-value]

    def _decide_any(self, state: State, now: int, cost: int) -> tuple[list[int], Combined]:
        """Decide by any policies, for `decide_together`."""
        new, rows = self.decide(state, now, (cost,) * len(self.parts))
        return new, self.combine(rows)

    def _decide_two(self, state: State, now: int, cost: int) -> tuple[list[int], Combined]:
        """Decide by two policies without shadows and penalties, for `decide_together`."""
        (step1, place1, name1), (step2, place2, name2) = self._named_steps
        new1, new2 = state[place1], state[place2]
        allowed1, left1, retry1, reset1, delay1 = step1(new1, now, cost)
        allowed2, left2, retry2, reset2, delay2 = step2(new2, now, cost)
        if allowed1 != allowed2:  # charge neither
            new1, new2 = state[place1], state[place2]
            if allowed1:
                _, left1, _, reset1, _ = step1(state[place1], now, 0)
            else:
                _, left2, _, reset2, _ = step2(state[place2], now, 0)
        remaining = left2 if left2 < left1 else left1
        reset_after_ns = reset2 if reset2 > reset1 else reset1
        if allowed1 and allowed2:
            return [*new1, *new2], (True, remaining, 0, reset_after_ns, delay2 if delay2 > delay1 else delay1, None, ())
        bound_by, retry_after_ns = (name2, retry2) if retry2 > retry1 else (name1, retry1)
        return [*new1, *new2], (False, remaining, retry_after_ns, reset_after_ns, 0, bound_by, ())

    def _decide_alike(self, state: State, now: int, cost: int) -> tuple[list[int], Combined]:
        """Decide by policies without shadows and penalties, for `decide_together`."""
        new: list[int] = []
        remaining, retry_after_ns, reset_after_ns, delay_ns = NEVER, 0, 0, 0
        denied, bound_by, bound_left, bound_reset = 0, None, 0, 0
        for step, place, name in self._named_steps:
            part = state[place]
            allowed, left, retry, reset, delay = step(part, now, cost)
            new += part
            if left < remaining:
                remaining = left
            if reset > reset_after_ns:
                reset_after_ns = reset
            if delay > delay_ns:
                delay_ns = delay
            if not allowed:
                denied += 1
                if retry > retry_after_ns:
                    bound_by, retry_after_ns, bound_left, bound_reset = name, retry, left, reset
        if not denied:
            return new, (True, remaining, 0, reset_after_ns, delay_ns, None, ())
        if denied < len(self._named_steps):  # some would have been charged: look at all but one that was not
            new, remaining, reset_after_ns = [*state[: self.parts[-1].end]], bound_left, bound_reset
            for step, place, name in self._named_steps:
                if name != bound_by:
                    _, left, _, reset, _ = step(state[place], now, 0)
                    if left < remaining:
                        remaining = left
                    if reset > reset_after_ns:
                        reset_after_ns = reset
        return new, (False, remaining, retry_after_ns, reset_after_ns, 0, bound_by, ())

    def attempt(self, state: State, now: int, costs: Sequence[int | None]) -> tuple[list[int], list[Row | None], bool]:
        """Return the state after a hit, what each policy decided, and whether one denies the hit.

        A policy with the cost None is not asked, and its row is None.
        """
        new: list[int] = []
        rows: list[Row | None] = []
        denied = False
        for (step, begin, end, enforced), cost in zip(self._steps, costs, strict=True):
            part = state[begin:end]
            row = None if cost is None else step(part, now, cost)
            if row is not None and not row[0]:
                if cost == 0:  # only a look, of a key in debt
                    row = True, 0, 0, row[3], 0
                else:
                    row = False, max(0, row[1]), row[2], row[3], 0
                    denied = denied or enforced
            new += part
            rows.append(row)
        return new, rows, denied

    def withdraw(self, state: State, now: int, new: list[int], rows: list[Row | None]) -> None:
        """Change the result of `attempt` to that of a hit that another policy denies."""
        for n, ((step, begin, end, enforced), row) in enumerate(zip(self._steps, rows, strict=True)):
            if enforced and row is not None and row[0]:
                part = state[begin:end]
                _, remaining, _, reset_after_ns, _ = step(part, now, 0)
                rows[n] = True, max(0, remaining), 0, reset_after_ns, 0
                new[begin:end] = part

    def combine(self, rows: Sequence[Row]) -> Combined:
        """Return the fields of the `Decision` on a hit from what each policy decided."""
        return combine(zip(self.policies, rows, strict=True))

    def decisions(self, rows: Sequence[Row]) -> tuple[Decision, ...]:
        """Return the decision of each policy."""
        return list_decisions(zip(self.policies, rows, strict=True))


def combine(answers: Iterable[Answer]) -> Combined:
    """Return the fields of the `Decision` on a hit from what each policy decided."""
    remaining, retry_after_ns, reset_after_ns, delay_ns = NEVER, 0, 0, 0
    bound_by: str | None = None
    shadow: tuple[str, ...] = ()
    for policy, (allowed, left, retry, reset, delay) in answers:
        if policy.shadow:
            if not allowed:
                shadow += (policy.name,)
            continue
        if left < remaining:
            remaining = left
        if reset > reset_after_ns:
            reset_after_ns = reset
        if delay > delay_ns:
            delay_ns = delay
        if not allowed and (bound_by is None or retry > retry_after_ns):
            bound_by, retry_after_ns = policy.name, retry
    if bound_by is not None:
        return False, remaining, retry_after_ns, reset_after_ns, 0, bound_by, shadow
    return True, remaining, 0, reset_after_ns, delay_ns, None, shadow


def list_decisions(answers: Iterable[Answer]) -> tuple[Decision, ...]:
    """Return the decision of each policy."""
    return tuple(Decision(*row, bound_by=None if row[0] else policy.name) for policy, row in answers)
