"""The memory limiter enforces several policies in one decision, for one key or for several."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from itertools import combinations_with_replacement, count
from random import Random
from typing import Any

import pytest
import test_memory_interrupts as interrupts
from mutate import rewritten
from test_memory_threads import THREADS, in_threads

from ratelab import ALGORITHMS, InputError, ManualClock, MemoryLimiter, Policy
from ratelab.algorithms.composite import Composite
from ratelab.stores import policy_groups
from ratelab.stores.forecast import Forecast
from ratelab.stores.key_table import OVERFLOW_BUCKETS

SECOND, DAY = 10**9, 86_400 * 10**9
NOW = 1_700_000_000 * SECOND
PAIRS = [*combinations_with_replacement(ALGORITHMS, 2)]


def create_two(clock: ManualClock | None = None, **options: Any) -> MemoryLimiter:
    """Return a limiter of 2 a second and 5 a minute; `options` are those of the second policy."""
    second = Policy.create("token-bucket", "2/s", name="second")
    minute = Policy.create("token-bucket", "1/min", 5, name="minute", **options)
    return MemoryLimiter([second, minute], clock or ManualClock())


def test_the_binding_policy_is_named() -> None:
    limiter = create_two()
    assert [limiter.hit("alice").bound_by for _ in range(3)] == [None, None, "second"]
    assert limiter.hit("alice", 5).bound_by == "second"  # never admitted, which is longer than any wait
    assert MemoryLimiter(Policy.create("gcra", "1/s", name="day")).hit("alice", 2).bound_by == "day"


def test_a_denied_hit_charges_no_policy() -> None:
    for limiter in (create_two(), create_two(key="all")):
        for _ in range(9):
            limiter.hit("alice")
        decision, (second, minute) = limiter.hit_each("alice", 0)
        assert (decision.remaining, second.remaining, minute.remaining) == (0, 0, 3)


def test_a_shadow_policy_never_denies() -> None:
    clock = ManualClock()
    limiter = create_two(clock, shadow=True)
    decisions = []
    for _ in range(7):
        clock.advance(SECOND)
        decisions.append(limiter.hit("alice"))
    assert all(decision.allowed for decision in decisions)
    assert [decision.shadow for decision in decisions] == [()] * 5 + [("minute",)] * 2
    alone = MemoryLimiter(Policy.create("gcra", "1/h", name="alone", shadow=True), clock)
    assert [alone.hit("alice").shadow for _ in range(3)] == [(), ("alone",), ("alone",)]
    assert alone.hit("alice").allowed
    assert alone.hit_row("alice")[0]


def test_an_object_that_wraps_a_policy_is_enforced_as_one() -> None:
    class Wrapper:
        def __init__(self, policy: Policy) -> None:
            self._policy = policy

        def __getattr__(self, name: str) -> Any:
            return getattr(self._policy, name)

    wrapped: Any = Wrapper(Policy.create("token-bucket", "2/s", name="second"))
    for policies in (wrapped, [wrapped], [wrapped, Policy.create("token-bucket", "1/min", 5, name="minute")]):
        limiter = MemoryLimiter(policies, ManualClock())
        assert [limiter.hit("alice").bound_by for _ in range(3)] == [None, None, "second"]


def test_policies_need_different_names() -> None:
    with pytest.raises(InputError, match="policies must have different names, got 'gcra' twice: set name="):
        MemoryLimiter([Policy.create("gcra", "1/s"), Policy.create("gcra", "9/min")])


def test_a_policy_for_all_has_one_counter() -> None:
    limiter = create_two(key="all")
    decisions = [limiter.hit(f"client {number}").allowed for number in range(7)]
    assert decisions == [True] * 5 + [False] * 2
    assert limiter.hit("client 6", 0).remaining == 0
    limiter.reset({"minute": "all"})
    assert limiter.hit("client 6").allowed


def test_each_policy_has_its_key_and_its_cost() -> None:
    limiter = create_two()
    keys = {"second": "alice", "minute": "acme"}
    decision, each = limiter.hit_each(keys, {"second": 1, "minute": 3})
    assert (decision.remaining, [one.remaining for one in each]) == (1, [1, 2])
    assert limiter.hit({"second": "bob", "minute": "acme"}, {"minute": 3}).bound_by == "minute"
    assert len(limiter.hit_each({"second": "bob"})[1]) == 1  # minute is not asked
    assert limiter.hit("acme", 0).remaining == 2


@pytest.mark.parametrize(
    ("key", "cost", "message"),
    [
        ({}, 1, "key must be text, got {}"),
        ({"second": 1}, 1, "key must be text, got 1"),
        ({"hour": "alice"}, 1, "unknown policy 'hour' in key: choose from second, minute"),
        ("alice", {"hour": 1}, "unknown policy 'hour' in cost: choose from second, minute"),
        ("alice", {"second": -1}, "cost must be a whole number >= 0, got -1"),
        ("alice", {"second": 1}, "missing cost of policy 'minute', which counts tokens: give cost="),
    ],
)
def test_invalid_keys_and_costs_are_rejected_and_change_nothing(key: Any, cost: Any, message: str) -> None:
    limiter = create_two(cost="tokens")
    with pytest.raises(InputError, match=message):
        limiter.hit(key, cost)
    assert limiter.hit("alice", 0).remaining == 2


Hit = Callable[[str, int], tuple[Any, ...]]


@pytest.mark.parametrize("names", PAIRS, ids=" and ".join)
def test_every_way_of_asking_makes_the_same_decisions(names: tuple[str, ...]) -> None:
    """Keys as text and as a mapping, groups of keys, and plans decide as the composition does."""
    random, clock = Random(f"{names}"), ManualClock(NOW)
    rates = ["2/s", "5/3s", "4/min"]
    policies = [Policy.create(name, random.choice(rates), 4, name=f"p{n}") for n, name in enumerate(names)]
    kernel = Composite.of(policies)
    text, mapped = MemoryLimiter(policies, clock), MemoryLimiter(policies, clock)
    planned = MemoryLimiter(policies, clock, plans={"same": {}})
    grouped = MemoryLimiter([policies[0], replace(policies[1], key="ip")], clock)
    ways: list[Hit] = [
        text.hit_each,
        lambda key, cost: text_again.hit(key, cost),
        lambda key, cost: mapped.hit_each({"p0": key, "p1": f"{key}'"}, {"p0": cost, "p1": cost}),
        lambda key, cost: planned.hit_each(key, cost, plan="same"),
        grouped.hit_each,
    ]
    text_again = MemoryLimiter(policies, clock)
    states = {key: kernel.start(NOW) for key in "ab"}
    for _ in range(40):
        clock.advance(random.choice([0, 0, SECOND // 2, SECOND, 20 * SECOND]))
        key, cost = random.choice("ab"), random.choice([0, 1, 1, 2, 4, 5])
        states[key], rows = kernel.decide(states[key], clock(), [cost, cost])
        expected = kernel.combine(rows), kernel.decisions(rows)
        for way in ways:
            made = way(key, cost)
            assert (made == expected[0]) if len(made) == 7 else (made == expected)


@pytest.mark.parametrize(("key", "total"), [(None, 900), ("all", 1500)])
def test_threads_get_exactly_the_smaller_of_two_quotas(key: str | None, total: int) -> None:
    policies = [Policy.create("token-bucket", "900/day", name="client")]
    limiter = MemoryLimiter([*policies, Policy.create("gcra", "1500/day", name="total", key=key)])
    keys = [f"client {number}" for number in range(THREADS)] if key else ["client"] * THREADS
    assert sum(in_threads(lambda: sum(limiter.hit(name).allowed for name in keys for _ in range(50)))) == total


# --- interrupts

BURST = 3


class Scene:
    """Two policies with different keys, of equal bursts, and a hit of both that is to be interrupted."""

    def __init__(self) -> None:
        self.limiter = MemoryLimiter(
            [
                Policy.create("token-bucket", f"{BURST}/day", name="client"),
                Policy.create("fixed-window", f"{2 * BURST}/day", name="total", key="all"),
            ],
            ManualClock(NOW),
            max_keys=4,
        )

    def used(self, key: str) -> tuple[int, int]:
        client, total = (one.remaining for one in self.limiter.hit_each(key, 0)[1])
        return BURST - client, 2 * BURST - total

    def hit(self, key: str, outcomes: list[bool]) -> None:
        hit(self.limiter, key, outcomes)


def hit(limiter: MemoryLimiter, key: str, outcomes: list[bool]) -> None:
    outcomes.append(limiter.hit(key).allowed)


@interrupts.in_new_thread
def hit_everywhere(known: bool, key: str | None) -> None:
    """At moments of a hit, hit `key` or raise: both policies are charged, or none."""
    for moment in count(0, 11 if not known else 1 if key is None else 3):
        scene, outcomes = Scene(), list[bool]()
        if known:
            scene.hit("alice", outcomes)
        error = interrupts.Interrupted()
        act = partial(interrupts.throw, error) if key is None else partial(scene.hit, key, outcomes)
        interrupter = interrupts.Interrupter(moment, act)
        try:
            interrupter.run(partial(scene.hit, "alice", outcomes))
        except interrupts.Interrupted:
            assert key is None
        client, total = scene.used("alice")
        other, _ = scene.used("bob")
        assert client + other == total
        assert key is None or total == sum(outcomes)
        assert total - sum(outcomes) in (0, 1)
        for name in ("alice", "bob"):
            for _ in range(2 * BURST):
                scene.hit(name, outcomes)
        assert scene.used("alice") == (BURST, 2 * BURST)
        if not interrupter.acted:
            assert moment > 50
            return


every_interrupt = pytest.mark.parametrize("key", ["alice", "bob", None])


@pytest.mark.slow
@every_interrupt
@pytest.mark.parametrize("known", [True, False])
def test_an_interrupted_hit_of_several_keys_charges_all_or_none(known: bool, key: str | None) -> None:
    hit_everywhere(known, key)


def named_for_bucket(bucket: int, apart: bool = False) -> str:
    """Return a key that shares the overflow bucket of a number, or one that does not."""
    return next(f"key {n}" for n in count() if (hash(f"key {n}") % OVERFLOW_BUCKETS == bucket) != apart)


@pytest.mark.slow
@pytest.mark.parametrize("key", ["alice", "bob", "sharing", "apart", None])
@interrupts.in_new_thread
def test_an_interrupted_first_change_of_policies_grants_nothing(key: str | None) -> None:
    policy = Policy.create("token-bucket", f"{BURST}/day")
    bucket = hash("carol") % OVERFLOW_BUCKETS
    names = {"sharing": named_for_bucket(bucket), "apart": named_for_bucket(bucket, apart=True)}
    for moment in count(0, 29):
        limiter, outcomes = MemoryLimiter(policy, ManualClock(NOW), max_keys=2), list[bool]()
        for name in ("alice", "bob", "carol"):  # the last shares a bucket
            limiter.hit(name)
        error = interrupts.Interrupted()
        act = partial(interrupts.throw, error) if key is None else partial(hit, limiter, names.get(key, key), outcomes)
        interrupter = interrupts.Interrupter(moment, act)
        with suppress(interrupts.Interrupted):
            interrupter.run(partial(limiter.update, policy))
        limiter.update(policy)
        assert not outcomes or outcomes[0]
        used = {name: 1 + (name == key) * len(outcomes) for name in ("alice", "bob")}
        assert [limiter.hit(name, 0).remaining for name in used] == [BURST - one for one in used.values()]
        assert limiter.hit("carol", 0).remaining <= BURST - 1
        assert limiter.hit(names["sharing"], 0).remaining <= BURST - 1 - (key == "sharing") * len(outcomes)
        if not interrupter.acted:
            assert moment > 50
            return


@pytest.mark.slow
def test_new_keys_do_not_take_the_room_of_keys_that_move() -> None:
    policy = Policy.create("token-bucket", f"{BURST}/day")
    bucket = hash("carol") % OVERFLOW_BUCKETS
    names = [name for name in map("key {}".format, range(900)) if hash(name) % OVERFLOW_BUCKETS == bucket]
    for moment in count(0, 31):
        limiter, outcomes = MemoryLimiter(policy, ManualClock(NOW), max_keys=2), list[bool]()
        for name in ("alice", "bob", "carol"):
            limiter.hit(name)

        def hit_new_keys() -> None:
            for name in names[:4]:
                hit(limiter, name, outcomes)  # noqa: B023  (called in this turn)

        interrupter = interrupts.Interrupter(moment, hit_new_keys)
        interrupter.run(partial(limiter.update, policy))
        assert sum(outcomes) <= BURST - 1
        assert limiter.stats.keys <= 2
        if not interrupter.acted:
            assert moment > 50
            return


@pytest.mark.slow
@pytest.mark.parametrize("key", ["alice", "carol"])
def test_a_forecast_during_the_first_change_of_policies_follows_the_keys(key: str) -> None:
    policy = Policy.create("token-bucket", f"{BURST}/day", name="client")
    for moment in count(0, 23):
        limiter, forecasts = MemoryLimiter(policy, ManualClock(NOW), max_keys=1), list[Forecast]()
        for name in ("alice", "carol"):  # the last shares a bucket
            limiter.hit(name)
        interrupter = interrupts.Interrupter(moment, partial(forecast, limiter, key, forecasts))
        interrupter.run(partial(limiter.update, policy))
        for one in forecasts:
            assert [one.hit({"client": cost})[0].allowed for cost in (BURST - 1, BURST)] == [True, False]
        if not interrupter.acted:
            assert moment > 50
            return


def forecast(limiter: MemoryLimiter, key: str, forecasts: list[Forecast]) -> None:
    forecasts.append(limiter.forecast({"client": key}, None))


def commit_one_by_one(changes: Any) -> bool:
    for old, new in changes:
        old.append(new)
        if old[2] is not new:
            return False
    return True


def change(function: Callable[..., Any], target: str, right: str, wrong: str) -> tuple[str, Any]:
    return target, rewritten(function, right, wrong)


RESOLVE, COMMIT = policy_groups.Pending.resolve, policy_groups._commit
MUTANTS: dict[str, tuple[str, Any]] = {
    "versions are committed one by one": ("_commit", commit_one_by_one),
    "a pending version counts": change(RESOLVE, "Pending.resolve", "append(False)", "append(True)"),
    "a failed hit counts": change(RESOLVE, "Pending.resolve", "self._outcome[0]", "True"),
    "an overtaken hit is not repeated": change(COMMIT, "_commit", "return outcome[0]", "return True"),
}


def hit_with_every_interrupt() -> None:
    for key in ("alice", "bob", None):
        hit_everywhere(True, key)


@pytest.mark.slow
@pytest.mark.parametrize(("target", "mutant"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_of_a_hit_of_several_keys_fails(monkeypatch: pytest.MonkeyPatch, target: str, mutant: Any) -> None:
    monkeypatch.setattr(f"ratelab.stores.policy_groups.{target}", mutant)
    with pytest.raises(AssertionError):
        hit_with_every_interrupt()
