"""The memory limiter enforces several policies in one decision."""

from __future__ import annotations

from typing import Any

import pytest

from ratelab import InputError, ManualClock, MemoryLimiter, Policy

SECOND = 10**9


def two_policies(clock: ManualClock | None = None, **options: Any) -> MemoryLimiter:
    """Return a limiter of 2 a second and 5 a minute; `options` are those of the second policy."""
    second = Policy.create("token-bucket", "2/s", name="second")
    minute = Policy.create("token-bucket", "1/min", 5, name="minute", **options)
    return MemoryLimiter([second, minute], clock or ManualClock())


def test_the_binding_policy_is_named() -> None:
    limiter = two_policies()
    assert [limiter.hit("alice").bound_by for _ in range(3)] == [None, None, "second"]
    assert limiter.hit("alice", 5).bound_by == "second"  # never admitted, which is longer than any wait
    assert MemoryLimiter(Policy.create("gcra", "1/s", name="day")).hit("alice", 2).bound_by == "day"


def test_a_denied_hit_charges_no_policy() -> None:
    limiter = two_policies()
    for _ in range(9):
        limiter.hit("alice")
    decision, (second, minute) = limiter.hit_each("alice", 0)
    assert (decision.remaining, second.remaining, minute.remaining) == (0, 0, 3)


def test_a_shadow_policy_never_denies() -> None:
    clock = ManualClock()
    limiter = two_policies(clock, shadow=True)
    decisions = []
    for _ in range(7):
        clock.advance(SECOND)
        decisions.append(limiter.hit("alice"))
    assert all(decision.allowed for decision in decisions)
    assert [decision.shadow for decision in decisions] == [()] * 5 + [("minute",)] * 2


def test_policies_need_different_names() -> None:
    with pytest.raises(InputError, match="policies must have different names, got 'gcra' twice: set name="):
        MemoryLimiter([Policy.create("gcra", "1/s"), Policy.create("gcra", "9/min")])
