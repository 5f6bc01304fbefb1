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
    """Return one policy, or a sequence of them, as a tuple; an object that wraps a policy is one, too.

    Raises `InputError` unless there is at least one, and each has another name.
    """
    given: Sequence[Any] = policies if isinstance(policies, Sequence) else (policies,)
    if isinstance(given, str) or not all(map(_is_policy, given)):
        remedy = "create one with Policy.create"
        raise InputError(f"policies must be a Policy or a list of them, got {short_repr(policies)}: {remedy}")
    names = [policy.name for policy in given]
    if not names:
        raise InputError("policies must hold at least one Policy, got an empty list")
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"policies must have different names, got {short_repr(twice)} twice: set name=")
    return tuple(given)


def _is_policy(given: object) -> bool:
    return isinstance(given, Policy) or all(hasattr(given, name) for name in ("quota", "algorithm", "start", "step"))


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
        self._order = self._named_steps  # of two policies, in which they are asked
        self._both_deny = False  # whether both of two are expected to deny a request if one of them does
        self.decide_together: Callable[[Any, int, int], Combined] = self._decide_and_combine
        """Update a state in place and return the fields of the `Decision`, as `decide` and `combine` do, but faster.

        No policy may be in debt. Items of the state after those of the policies may be removed.
        """
        if not any(policy.shadow or policy.counts_denials for policy in self.policies):
            self.decide_together = self._decide_two if len(parts) == 2 else self._decide_alike

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
        return self._decide_and_combine(state, now, cost)[:5]

    def decide(self, state: State, now: int, costs: Sequence[int]) -> tuple[list[int], list[Row]]:
        """Decide a hit with a cost for each policy; return the next state and what each policy decided.

        If another policy denies the request, a policy that would admit it is not charged, and returns its quota as it
        stays.
        """
        new, rows, denied = self.attempt(state, now, costs)
        if denied:
            self.withdraw(state, now, new, rows)
        return new, rows  # type: ignore[return-value]

    def decide_in_place(self, state: Any, now: int, costs: Sequence[int]) -> list[Row]:
        """Update a state, and return what each policy decided, as `decide` does."""
        state[:], rows = self.decide(state, now, costs)
        return rows

    def _decide_and_combine(self, state: State, now: int, cost: int) -> Combined:
        return self.combine(self.decide_in_place(state, now, (cost,) * len(self.parts)))

    def _decide_alike(self, state: State, now: int, cost: int) -> Combined:
        """Do as `decide_together` for policies that enforce, and that denials do not change."""
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
        if 0 < denied < len(self._named_steps):  # some have been charged: look at all but one that was not
            new, remaining, reset_after_ns = [], bound_left, bound_reset
            for step, place, name in self._named_steps:
                part = state[place]
                if name != bound_by:
                    _, left, _, reset, _ = step(part, now, 0)
                    if left < remaining:
                        remaining = left
                    if reset > reset_after_ns:
                        reset_after_ns = reset
                new += part
        state[:] = new
        return not denied, remaining, retry_after_ns, reset_after_ns, 0 if denied else delay_ns, bound_by, ()

    def _decide_two(self, state: State, now: int, cost: int) -> Combined:
        """Do as `_decide_alike` for two policies, and expect that the next denials will be those of the last request.

        The policy that denied it alone is asked first: once it denies this one, too, the other is only looked at.
        """
        (step, place, name), (other_step, other_place, other_name) = order = self._order
        part, other_part = state[place], state[other_place]
        allowed, left, retry, reset, delay = step(part, now, cost)
        if allowed:
            allowed, other_left, other_retry, other_reset, other_delay = other_step(other_part, now, cost)
            if allowed:
                if other_delay > delay:
                    delay = other_delay
            else:
                self._order = order[::-1]
                part, delay = state[place], 0
                _, left, _, reset, _ = step(part, now, 0)
        else:
            tried = cost if self._both_deny else 0
            admitted, other_left, other_retry, other_reset, _ = other_step(other_part, now, tried)
            if admitted if tried else cost > other_left:
                self._both_deny = not tried
                other_part = state[other_place]
                _, other_left, other_retry, other_reset, _ = other_step(other_part, now, cost - tried)
        state[place], state[other_place] = part, other_part
        if other_left < left:
            left = other_left
        if other_reset > reset:
            reset = other_reset
        if allowed:
            return True, left, 0, reset, delay, None, ()
        if other_retry > retry:
            return False, left, other_retry, reset, 0, other_name, ()
        return False, left, retry, reset, 0, self.policies[0].name if other_retry == retry else name, ()

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
