"""Candidates of the shipped limiters with one mistake each, and the promise that each of them breaks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from mutate import Mutant, mutate
from valkey_mutants import RESENDS

from ratelab import MemoryLimiter, Policy
from ratelab.algorithms import create
from ratelab.algorithms.composite import Composite
from ratelab.judge.built_in import DEADLINE_S, BuiltIn
from ratelab.quota import NS_PER_S, Quota
from ratelab.stores import fallback
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.key_table import KeyTable
from ratelab.stores.policy_groups import PolicyGroups
from ratelab.stores.valkey import ValkeyLimiter, lua_text, script
from ratelab.stores.valkey.lua_text import load_lua
from ratelab.stores.versions import Kernel

Hit = Callable[..., tuple[bool, float | None]]


class TokenBuckets(BuiltIn):
    """Token buckets of the shipped limiters, after some changes to their code."""

    def __init__(self, *mutants: Mutant) -> None:
        super().__init__("token-bucket")
        self.mutants = mutants

    def __call__(self, limit: int, period: float, burst: int) -> Hit:
        self.change()
        return self.adapt(self.create([make_policy(limit, period, burst)]))

    def several(self, limits: Sequence[tuple[int, float, int]]) -> Hit:
        self.change()
        policies = [make_policy(*each) for each in limits]
        return self.adapt(self.create([replace(each, name=f"limit-{n}") for n, each in enumerate(policies)]))

    def store(self, url: str, limit: int, period: float, burst: int) -> Hit:
        self.change()
        return self.adapt(self.create_on(url, make_policy(limit, period, burst)))

    def change(self) -> None:
        """Install the mutants in this process, which judges this candidate alone."""
        for mutant in self.mutants:
            setattr(mutant.owner, mutant.attribute, mutant.replacement)

    def create(self, policies: list[Policy]) -> MemoryLimiter:
        return MemoryLimiter(policies)

    def create_on(self, url: str, policy: Policy) -> Any:
        return ValkeyLimiter(url, policy, deadline=DEADLINE_S)

    def adapt(self, limiter: Any) -> Hit:
        def hit(key: str) -> tuple[bool, float | None]:
            decision = limiter.hit(key)
            return decision.allowed, decision.retry_after

        return hit


def make_policy(limit: int, period: float, burst: int) -> Policy:
    return create("token-bucket", Quota(limit, round(period * NS_PER_S), burst))


class FullTable(TokenBuckets):
    """Room for 1,000 keys."""

    def create(self, policies: list[Policy]) -> MemoryLimiter:
        return MemoryLimiter(policies, max_keys=1000)


class WallClock(TokenBuckets):
    """Reads the wall clock."""

    def create(self, policies: list[Policy]) -> MemoryLimiter:
        return MemoryLimiter(policies, time.time_ns)


class TwoGroups(TokenBuckets):
    """Counts each of several policies by another kind of key."""

    def create(self, policies: list[Policy]) -> MemoryLimiter:
        return MemoryLimiter([replace(each, key=f"key-{each.name}") for each in policies])


class Resilient(TokenBuckets):
    """Decides in memory while the store is down."""

    def create_on(self, url: str, policy: Policy) -> Any:
        return BlockingResilientLimiter(super().create_on(url, policy))


def change_lua(name: str, right: str, wrong: str) -> list[Mutant]:
    """Return the mutants of the scripts with `wrong` in place of `right` in one of their files."""
    assert right in load_lua(name), f"{name} no longer contains {right!r}: update this mutant"

    def load(file: str) -> str:
        return load_lua(file).replace(right, wrong) if file == name else load_lua(file)

    return [Mutant(module, "load_lua", load) for module in (lua_text, script)]


right_flood, right_clock, right_several, right_store = FullTable(), WallClock(), TwoGroups(), Resilient()

flood_of_exhausted = FullTable(mutate(KeyTable, "_evict", "self.kernel.is_new(state, self._clock())", "True"))
flood_of_idle = TokenBuckets(mutate(KeyTable, "_evict_idle", "nested or not self.queue", "True"))
clock_without_guard = WallClock(
    mutate(MemoryLimiter, "choose_clock", "clock if clock in STEADY_CLOCKS else monotonic(clock)", "clock")
)
threads_commit_blindly = TokenBuckets(mutate(MemoryLimiter, "hit", "if state[size] is new", "if True"))
threads_take_any_turn = TokenBuckets(mutate(Kernel, "commit", "state[self.size] is new", "True"))
several_charge_the_first = TokenBuckets(
    mutate(Composite, "_decide_two", "part, delay = state[place], 0", "delay = 0"),
)
several_groups_charge_all = TwoGroups(mutate(PolicyGroups, "hit", "if denied:", "if False:"))

store_resends = TokenBuckets(*RESENDS)
store_fails_open = Resilient(Mutant(fallback, "choose_fallback", lambda *_: "open"))
bound_of_expired = TokenBuckets(*change_lua("decide.lua", "- shift - clock) / 1000", "- shift - clock) / 4000"))
clock_of_script = TokenBuckets(*change_lua("prelude.lua", "if lag > MAX_LAG", "if false"))
