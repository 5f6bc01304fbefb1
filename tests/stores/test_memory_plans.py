"""Plans, overrides and changes of policies in memory: used quotas stay used, and nothing is granted."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from itertools import product
from random import Random
from typing import Any

import pytest
from contracts import CHARGED
from mutate import rewritten
from test_memory_threads import in_threads

from ratelab import ALGORITHMS, InputError, ManualClock, MemoryLimiter, Policy, Quota
from ratelab.stores import plans, policy_groups

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


def create(clock: ManualClock, **options: Any) -> MemoryLimiter:
    second = Policy.create("token-bucket", "2/s", 10, name="second")
    return MemoryLimiter([second, Policy.create("fixed-window", "100/day", name="day")], clock, **options)


def remaining(limiter: MemoryLimiter, plan: str | None = None, key: str = "alice") -> list[int]:
    return [one.remaining for one in limiter.hit_each(key, 0, plan)[1]]


def test_a_plan_changes_the_quotas_that_it_names() -> None:
    limiter = create(ManualClock(NOW), plans={"premium": {"second": ("50/s", 100)}, "free": {}})
    assert remaining(limiter, "premium") == [100, 100]
    assert remaining(limiter, "free") == remaining(limiter) == [10, 100]


def test_an_override_replaces_the_quota_of_any_plan() -> None:
    limiter = create(
        ManualClock(NOW),
        plans={"premium": {"second": "50/s", "day": "1000/day"}},
        overrides={"alice": {"second": (None, 7)}},
    )
    assert (remaining(limiter, "premium"), remaining(limiter, "premium", "bob")) == ([7, 1000], [50, 1000])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"plans": {"premium": {"hour": "1/s"}}}, "unknown policy 'hour' in plan 'premium': choose from second, day"),
        ({"overrides": {"alice": {"hour": "1/s"}}}, "unknown policy 'hour' in override 'alice': choose from"),
        ({"plans": {"premium": {"second": "fast"}}}, "rate must look like 2/s, 100/min or 5/2.5s, got 'fast'"),
        ({"plans": {"premium": {"second": ("2/s", 0)}}}, "burst must be a whole number"),
        ({"plans": ["premium"]}, "plans must be a mapping of names to quotas, got"),
        ({"overrides": {5: {"second": "1/s"}}}, "overrides must be a mapping of names to quotas, got {5:"),
        (
            {"plans": {"premium": "2/s"}},
            "plan 'premium' must be a mapping of policies to quotas, or a list of policies",
        ),
        ({"overrides": {"alice": ["2/s"]}}, "override 'alice' must be a mapping of policies to quotas, or a list"),
        (
            {"plans": {"premium": {"second": ("2/s", 1, 1)}}},
            r"the quota of policy 'second' in plan 'premium' must be a rate or \(rate, burst\), got",
        ),
        (
            {"plans": {"premium": {"second": Policy.create("token-bucket", "9/s", name="fast")}}},
            "policy 'second' in plan 'premium' may only have another quota, got Policy",
        ),
        (
            {"overrides": {"alice": [Policy.create("fixed-window", "9/day", name="day", shadow=True)]}},
            "policy 'day' in override 'alice' may only have another quota, got Policy",
        ),
    ],
)
def test_invalid_plans_are_rejected_and_change_nothing(options: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        create(ManualClock(NOW), **options)
    limiter = create(ManualClock(NOW))
    with pytest.raises(InputError, match=message):
        limiter.update(**options)
    assert remaining(limiter) == [10, 100]


def test_plans_keep_their_quotas_when_policies_change() -> None:
    limiter = create(ManualClock(NOW), plans={"premium": {"second": "50/s"}}, overrides={"bob": {"day": "7/day"}})
    changed = Policy.create("gcra", "3/s", name="second", match="/items"), Policy.create("gcra", "9/day", name="day")
    limiter.update(changed)
    assert (remaining(limiter), remaining(limiter, "premium"), remaining(limiter, key="bob")) == (
        [3, 9],
        [50, 9],
        [3, 7],
    )
    assert limiter.plans.plans["premium"]["second"] == changed[0].with_quota("50/s")


def test_an_unknown_plan_is_rejected() -> None:
    with pytest.raises(InputError, match="unknown plan 'gold': pass plans= to the limiter"):
        create(ManualClock(NOW)).hit("alice", plan="gold")
    with pytest.raises(InputError, match="unknown plan \\['gold'\\]: pass plans= to the limiter"):
        create(ManualClock(NOW)).hit("alice", plan=["gold"])  # type: ignore[arg-type]
    with pytest.raises(InputError, match="unknown plan 'gold': choose from free, premium"):
        create(ManualClock(NOW), plans={"free": {}, "premium": {}}).hit("alice", plan="gold")


def test_the_used_share_of_a_burst_stays_used() -> None:
    limiter = create(ManualClock(NOW), plans={"premium": {"second": ("50/s", 100)}})
    limiter.hit("alice", 3)
    assert remaining(limiter, "premium") == [70, 97]
    limiter.hit("alice", 5, "premium")
    assert remaining(limiter) == [6, 92]  # 35 of 100 are 3.5 of 10, rounded up


@pytest.mark.parametrize("names", [*product(CHARGED, repeat=2)], ids=" to ".join)
def test_a_change_of_the_algorithm_keeps_the_used_share(names: Sequence[str]) -> None:
    old, new = (Policy.create(name, rate, name="p") for name, rate in zip(names, ("10/min", "30/min"), strict=True))
    limiter = MemoryLimiter(old, ManualClock(NOW))
    for used in range(1, 12):
        limiter.hit(f"used {used}", used)
    limiter.update(new)
    for used in range(1, 12):
        assert limiter.hit(f"used {used}", 0).remaining == (30 - 3 * used if used <= 10 else 30)
    assert limiter.policies == (new,)


def test_policies_come_and_go() -> None:
    limiter = create(ManualClock(NOW))
    limiter.hit("alice", 4)
    second, day = limiter.policies
    limiter.update([day, Policy.create("gcra", "3/s", name="new")])
    assert remaining(limiter) == [96, 3]
    limiter.update([second, day])
    assert remaining(limiter) == [10, 96]


def test_windows_of_utc_need_a_clock_that_follows_it() -> None:
    limiter = MemoryLimiter(Policy.create("gcra", "2/s"))
    with pytest.raises(InputError, match="aligned windows need a clock that follows UTC: create the limiter with one"):
        limiter.update(Policy.create("fixed-window", "2/s"))
    assert limiter.hit("alice").allowed


@pytest.mark.slow
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_thousand_changes_under_load_grant_nothing(name: str) -> None:
    """However quotas change, no more is admitted than the larger of them grants in the whole time."""
    random, clock = Random(name), ManualClock(NOW)
    quotas = [Quota.parse("10/s", 20), Quota.parse("50/s", 100)]
    limiter = MemoryLimiter(Policy.create(name, quotas[0], name="p"), clock)
    admitted = Fraction(0)  # in bursts of the quota at that time
    for number in range(1_000):
        quota = quotas[number % 2]
        limiter.update(Policy.create(name, quota, name="p"))
        clock.advance(random.choice([0, 0, SECOND // 1000]))
        for _ in range(3):
            cost = random.choice([1, 2, 5])
            admitted += Fraction(cost, quota.burst) if limiter.hit("alice", cost).allowed else 0
    elapsed = Fraction(clock() - NOW, SECOND)
    windows = 2 if name == "fixed-window" else 1
    assert admitted <= windows + elapsed / 2  # either quota grants a burst in two seconds


def test_changes_in_other_threads_grant_nothing() -> None:
    policies = [Policy.create("token-bucket", rate, name="p") for rate in ("400/day", "800/day")]
    limiter = MemoryLimiter(policies[0])

    def hit_and_change() -> Fraction:
        admitted = Fraction(0)
        for number in range(150):
            limiter.update(policies[number % 2])
            for _ in range(3):
                admitted += Fraction(limiter.hit("hot").allowed, 800)
        return admitted

    assert sum(in_threads(hit_and_change)) <= 1


def test_a_first_change_moves_every_key_and_bucket() -> None:
    old, new = Policy.create("gcra", "4/day", name="p"), Policy.create("gcra", "8/day", name="p")
    limiter = MemoryLimiter(old, ManualClock(NOW), max_keys=3)
    for number in range(9):
        limiter.hit(f"key {number}", 3)
    limiter.update(new)
    assert [limiter.hit(f"key {number}", 0).remaining for number in range(3)] == [2, 2, 2]
    assert all(limiter.hit(f"key {number}", 0).remaining <= 2 for number in range(3, 9))
    assert limiter.stats.keys == 3


MUTANTS = {
    "the used share is rounded down": ("-(-used * policy.quota.burst //", "(used * policy.quota.burst //"),
    "a new quota starts unused": ("if source is not None:", "if False:"),
    "a quota keeps its numbers": ("source.policy.algorithm == policy.algorithm", "True"),
}


@pytest.mark.parametrize(("right", "wrong"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_of_a_change_fails(monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    monkeypatch.setattr(policy_groups, "convert_numbers", rewritten(plans.convert_numbers, right, wrong))
    with pytest.raises(AssertionError):
        test_the_used_share_of_a_burst_stays_used()


# --- looks


def count_left(name: str, rate: str, cost: int) -> int:
    """Return how much a policy of its own admits to a client after a hit."""
    limiter = MemoryLimiter(Policy.create(name, rate), ManualClock(NOW))
    limiter.hit("alice", cost)
    return limiter.hit("alice", 0).remaining


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_look_has_the_quotas_of_the_last_hit_and_changes_nothing(name: str) -> None:
    policies = [Policy.create(name, "10/h", name="hour"), Policy.create(name, "20/h", name="other", key="ip")]
    clock = ManualClock(NOW)
    limiter = MemoryLimiter(policies, clock, plans={"premium": {"hour": "100/h"}, "trial": {"hour": "3/h"}})
    limiter.hit("alice", 7, "premium")
    hour, other = count_left(name, "100/h", 7), count_left(name, "20/h", 7)
    for _ in range(3):
        found = limiter.look("alice"), limiter.look({"hour": "alice"}, "trial"), limiter.look({"other": "bob"})
        left = [{policy: one.remaining for policy, one in look.items()} for look in found]
        assert left == [{"hour": hour, "other": other}, {"hour": hour}, {"other": 20}]
    assert limiter.look("bob", "trial")["hour"].remaining == 3
    limiter.update([policies[0].with_quota("50/h"), Policy.create("gcra", "5/h", name="new")])
    assert {policy: one.remaining for policy, one in limiter.look("alice").items()} == {"hour": hour, "new": 5}
    assert limiter.hit_each("alice", 0, "premium")[1][0].remaining == hour


def test_a_look_at_a_limiter_without_plans_is_a_hit_of_cost_0() -> None:
    limiter = create(ManualClock(NOW))
    limiter.hit("alice", 3)
    assert [*limiter.look("alice").values()] == [*limiter.hit_each("alice", 0)[1]]
    with pytest.raises(InputError, match="unknown plan 'gold'"):
        limiter.look("alice", "gold")
