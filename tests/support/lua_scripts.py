"""The scripts of the store on a clock that a test sets, and what the Python kernels say to the same."""

from __future__ import annotations

import os
from typing import Any

from ratelab import ALGORITHMS, Decision, Quota
from ratelab.limiter import NEVER
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.server import ValkeyServer

PATIENCE = 1_000_000
"""Microseconds by which a clock may lag before it has stepped back."""

TELLS = "local time = call('TIME')"
"""Where the scripts read the server's clock."""


class ScriptedStore:
    """One algorithm's script, rewritten to tell the time by the key `clock`; `changes` are more to rewrite.

    Its keys live for a day longer than they must, for that clock and the server's are two.
    """

    def __init__(self, client: Any, script: Script, changes: tuple[tuple[str, str], ...] = ()) -> None:
        self._client, self._script = client, script
        text = script.text
        told = (TELLS, "local time = { 0, call('GET', 'clock') }")
        for right, wrong in (told, *changes):
            assert right in text, f"no script says {right!r} any more: bring this up to date"
            text = text.replace(right, wrong)
        self.sha = client.script_load(text)
        client.flushdb()

    def hit(self, clock: int, cost: int, key: str = "key") -> Decision:
        """Decide one hit at a time."""
        (decision,) = self.hits([(clock, cost)], key)
        return decision

    def hits(self, steps: list[tuple[int, int]], key: str = "key") -> list[Decision]:
        """Decide hits, each at its time."""
        burst = self._script.policy.quota.burst
        pipeline = self._client.pipeline(transaction=False)
        for clock, cost in steps:
            pipeline.set("clock", clock)
            pipeline.evalsha(self.sha, 1, key, *self._script.parameters, min(cost, burst + 1))
        replies: list[Any] = pipeline.execute()[1::2]
        return [decision for reply in replies for decision in self._script.decode(reply)]


LIVE_LONG = (("1, ceil((", "86400000, ceil(("),)
"""Has the keys live for a day at least."""


class Model:
    """A kernel that counts in microseconds, behind the store's rule for a clock that steps back."""

    def __init__(self, name: str, quota: Quota) -> None:
        self._kernel = ALGORITHMS[name].from_quota(Quota(quota.limit * 1000, quota.period, quota.burst))
        self._state: list[int] = []
        self._shift = self._last = 0

    def hit(self, clock: int, cost: int) -> Decision:
        """Decide, in nanoseconds; what is denied, or costs nothing, is not remembered."""
        stepped = bool(self._state) and self._last - clock - self._shift > PATIENCE
        if stepped:
            self._shift = self._last - clock
        now = max(clock + self._shift, self._last) if self._state else clock
        state = [*self._state] or self._kernel.start(now)
        allowed, remaining, retry, reset, delay = self._kernel.step(state, now, cost)
        if (allowed and cost) or stepped:
            self._state, self._last = state, now
        retry = retry if retry == NEVER else retry * 1000
        return Decision(allowed, remaining, retry, reset * 1000, delay * 1000)


def urls(running: ValkeyServer) -> list[str]:
    """Return the stores to test: our own, and a Redis where one is named."""
    return [running.url, *filter(None, [os.environ.get("RATELAB_TEST_REDIS_URL")])]
