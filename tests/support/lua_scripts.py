"""Lua scripts that read a clock which a test sets, and the decisions of the Python kernels for comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from ratelab import ALGORITHMS, Decision, Policy
from ratelab.algorithms import build_policy
from ratelab.algorithms.penalty import Penalized, in_microseconds
from ratelab.limiter import NEVER, charge_without_decision
from ratelab.stores.valkey.lua_text import has_text
from ratelab.stores.valkey.script import Script

MAX_LAG_US = 1_000_000
"""The largest lag of a clock that does not count as a step back, in microseconds."""

CLOCK_KEY = "clock"
READ_CLOCK = ("local time = call('TIME')", f"local time = {{ 0, call('GET', '{CLOCK_KEY}') }}")
"""Replaces the server's clock by a key that holds microseconds."""

LIVE_LONG = ("1, ceil((", "86400000, ceil((")
"""Has keys live for at least a day, since expiry depends on the server's clock."""

Change = tuple[str, str]
"""A part of a script, and its replacement."""

only_on_valkey = pytest.mark.parametrize("server", ["valkey"], indirect=True, scope="session")
"""Runs a test with Valkey alone, where one server is enough, such as for a script that is changed."""


SCRIPTED = [name for name, kind in ALGORITHMS.items() if has_text(kind)]
"""The names of the built-in algorithms that can run in a store."""


def change_script(text: str, *changes: Change) -> str:
    for right, wrong in changes:
        assert right in text, f"no script contains {right!r}: update this change"
        text = text.replace(right, wrong)
    return text


class ScriptedStore:
    """A script with some `changes` on a server, at the times that a test passes in."""

    def __init__(self, client: Any, script: Script, changes: tuple[Change, ...] = ()) -> None:
        self._client, self._script = client, script
        self.sha = client.script_load(change_script(script.text, READ_CLOCK, *changes))
        client.flushdb()

    def hit(self, clock: int, cost: int, key: str = "key") -> Decision:
        """Decide one hit at a time in microseconds."""
        (decision,) = self.hits([(clock, cost)], key)
        return decision

    def hits(self, steps: list[tuple[int, int]], key: str = "key") -> list[Decision]:
        """Decide hits, each at its time and of its cost."""
        burst = self._script.policies[0].quota.burst
        pipeline = self._client.pipeline(transaction=False)
        for clock, cost in steps:
            pipeline.set(CLOCK_KEY, clock)
            pipeline.evalsha(self.sha, 1, key, *self._script.parameters, min(cost, burst + 1))
        replies: list[Any] = pipeline.execute()[1::2]
        return [decision for reply in replies for decision in self._script.decode(reply)]


class Model:
    """A kernel in microseconds, with the store's rules: for a clock that steps back, and for unwritten states."""

    def __init__(self, policy: Policy) -> None:
        kind = in_microseconds(type(policy.algorithm))
        self._kernel = build_policy(kind, policy.quota.in_microseconds()).algorithm
        self._state: list[int] = []
        self._shift = self._last = 0

    def look(self, clock: int, cost: int) -> Decision:
        """Return the decision on a hit, and forget the hit."""
        before = self._state, self._shift, self._last
        decision = self.hit(clock, cost)
        self._state, self._shift, self._last = before
        return decision

    def hit(self, clock: int, cost: int) -> Decision:
        """Return the decision, in nanoseconds.

        A hit that is denied or costs nothing does not change the state, unless a penalty counts the denial.
        """
        stepped = bool(self._state) and self._last - clock - self._shift > MAX_LAG_US
        if stepped:
            self._shift = self._last - clock
        now = max(clock + self._shift, self._last) if self._state else clock
        before = self._state or self._kernel.start(now)
        state = [*before]
        allowed, remaining, retry, reset, delay = self._kernel.step(state, now, cost)
        if (allowed and cost) or stepped or self._has_counted(before, state):
            self._state, self._last = state, now
        retry = retry if retry == NEVER else retry * 1000
        bound_by = None if allowed else self._kernel.name
        return Decision(allowed, remaining, retry, reset * 1000, delay * 1000, bound_by)

    def charge(self, clock: int, cost: int, at: int | None) -> None:
        """Charge without a decision, on a clock that does not step back."""
        if cost:
            state = [*self._state] or self._kernel.start(clock)
            charge_without_decision(self._kernel, state, clock, cost, at)
            self._state, self._last = state, clock

    def _has_counted(self, before: Sequence[int], after: Sequence[int]) -> bool:
        """Return whether the end or the length of a penalty, or the denials that count, have changed."""
        if not isinstance(self._kernel, Penalized):
            return False
        counts = slice(1, 2 + self._kernel.penalty.after)
        return before[counts] != after[counts]
