"""Costs known afterwards, in memory: reserve, settle, cancel and refund."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest
import test_memory_interrupts as interrupts
from contracts import CHARGED
from mutate import rewritten
from test_memory_threads import THREADS, in_threads

from ratelab import InputError, ManualClock, MemoryLimiter, Policy
from ratelab.stores.tickets import Reservation

SECOND = 10**9
NOW = 1_700_000_000 * SECOND


def create(*names: str, clock: ManualClock | None = None) -> MemoryLimiter:
    """Return a limiter with a policy of 100 a day for each algorithm."""
    policies = [Policy.create(name, "100/day", name=f"p{number}") for number, name in enumerate(names or ["gcra"])]
    return MemoryLimiter(policies, clock or ManualClock(NOW))


def remaining(limiter: MemoryLimiter) -> list[int]:
    return [one.remaining for one in limiter.hit_each("alice", 0)[1]]


@pytest.mark.parametrize("name", CHARGED)
def test_a_settled_ticket_charges_the_actual_cost_once(name: str) -> None:
    limiter = create(name)
    for actual, expected in ((10, 90), (50, 40), (0, 40), (40, 0)):
        ticket = limiter.reserve("alice", 40)
        assert (ticket.allowed, ticket.settle(actual)) == (True, True)
        assert remaining(limiter) == [expected]
        assert (ticket.settle(7), ticket.cancel()) == (False, False)
        assert remaining(limiter) == [expected]


@pytest.mark.parametrize("name", CHARGED)
def test_a_higher_cost_is_charged_in_full(name: str) -> None:
    clock = ManualClock(NOW)
    limiter = create(name, clock=clock)
    limiter.hit("alice", 90)
    assert limiter.reserve("alice", 10).settle(60)
    assert not limiter.hit("alice").allowed
    assert limiter.hit("alice", 0).allowed
    wait = limiter.hit("alice").retry_after_ns
    clock.advance(wait - 1)
    assert not limiter.hit("alice").allowed
    clock.advance(1)
    assert limiter.hit("alice").allowed


def test_debts_are_at_most_one_ticket_each() -> None:
    limiter = create()
    tickets = [limiter.reserve("alice", 30) for _ in range(5)]
    assert [ticket.allowed for ticket in tickets] == [True] * 3 + [False] * 2
    assert [ticket.settle(30) for ticket in tickets] == [True] * 3 + [False] * 2
    assert remaining(limiter) == [10]


def test_a_cancelled_ticket_returns_everything() -> None:
    limiter = create("token-bucket", "sliding-log", "fixed-window")
    assert limiter.reserve("alice", 60).cancel()
    assert remaining(limiter) == [100, 100, 100]


def test_a_ticket_in_a_context_keeps_its_cost_unless_it_is_settled() -> None:
    limiter = create()
    with limiter.reserve("alice", 20) as ticket:
        ticket.settle(5)
    with limiter.reserve("alice", 20):
        pass
    with pytest.raises(ValueError, match="the request failed"), limiter.reserve("alice", 20):
        raise ValueError("the request failed")
    assert remaining(limiter) == [55]


def test_a_ticket_is_final_after_its_deadline() -> None:
    clock = ManualClock(NOW)
    limiter = create(clock=clock)
    tickets = [limiter.reserve("alice", 20, deadline=30) for _ in range(2)]
    clock.advance(30 * SECOND)
    assert tickets[0].settle(10)
    clock.advance(1)
    assert not tickets[1].settle(0)
    assert remaining(limiter) == [70]


def test_a_denied_ticket_cannot_be_settled() -> None:
    limiter = create("gcra", "token-bucket")
    ticket = limiter.reserve("alice", 101)
    assert (ticket.allowed, ticket.settle(5), ticket.decision.bound_by) == (False, False, "p0")
    assert remaining(limiter) == [100, 100]


def test_each_policy_settles_its_cost() -> None:
    policies = [Policy.create("token-bucket", "60/min", name="requests")]
    policies += [Policy.create("token-bucket", "1000/min", name=name, cost=name) for name in ("input", "output")]
    limiter = MemoryLimiter(policies, ManualClock(NOW))
    ticket = limiter.reserve("alice", {"input": 300, "output": 500})
    assert ticket.settle({"output": 120})
    assert remaining(limiter) == [59, 700, 880]


def test_a_shadow_policy_settles_what_it_would_have_admitted() -> None:
    policies = [Policy.create("gcra", "100/day", name="limit")]
    policies += [Policy.create("gcra", f"{burst}/day", name=f"shadow {burst}", shadow=True) for burst in (50, 10)]
    limiter = MemoryLimiter(policies, ManualClock(NOW))
    ticket = limiter.reserve("alice", 40)
    assert ticket.decision.shadow == ("shadow 10",)
    ticket.settle(20)
    assert remaining(limiter) == [80, 30, 10]


@pytest.mark.parametrize(
    ("actual", "message"),
    [
        (-1, "cost must be a whole number >= 0, got -1"),
        (1.5, "cost must be a whole number >= 0, got 1.5"),
        ({"p1": 3}, "unknown policy 'p1' in cost: choose from p0"),
    ],
)
def test_an_invalid_cost_is_rejected_and_leaves_the_ticket_open(actual: Any, message: str) -> None:
    limiter = create()
    ticket = limiter.reserve("alice", 20)
    with pytest.raises(InputError, match=message):
        ticket.settle(actual)
    assert ticket.settle(10)
    assert remaining(limiter) == [90]


@pytest.mark.parametrize("deadline", [0, -1, "5", float("nan"), 10**10])
def test_a_deadline_is_a_number_of_seconds(deadline: Any) -> None:
    limiter = create()
    with pytest.raises(InputError, match="deadline must be a number of seconds above 0, got"):
        limiter.reserve("alice", 20, deadline=deadline)
    assert remaining(limiter) == [100]


def test_a_refund_without_a_ticket_is_at_most_the_quota() -> None:
    limiter = create(*CHARGED)
    limiter.hit("alice", 30)
    limiter.refund("alice", 10)
    assert remaining(limiter) == [80] * len(CHARGED)
    limiter.refund("alice", 10**9)
    assert remaining(limiter) == [100] * len(CHARGED)


@pytest.mark.parametrize("rate", ["200/day", "50/day", "33/day"])
def test_a_ticket_changes_in_proportion_with_the_quota(rate: str) -> None:
    policy = Policy.create("gcra", rate, name="p0")
    for hits in (0, 1):
        limiter = create()
        limiter.hit("alice", 20)
        ticket = limiter.reserve("alice", 40)
        limiter.update(policy)
        for _ in range(hits):
            limiter.hit("alice", 0)
        assert ticket.settle(10)
        (left,) = remaining(limiter)
        assert 0 <= policy.quota.burst * 7 // 10 - left <= hits


def test_threads_settle_exactly() -> None:
    limiter = MemoryLimiter(Policy.create("token-bucket", f"{THREADS * 200}/day"), ManualClock())

    def reserve_and_settle() -> None:
        for _ in range(50):
            assert limiter.reserve("hot", 3).settle(2)

    in_threads(reserve_and_settle)
    assert limiter.hit("hot", 0).remaining == THREADS * 100


@pytest.mark.slow
@interrupts.in_new_thread
def test_an_interrupted_settlement_charges_one_of_the_two_costs() -> None:
    for moment in count():
        limiter = create("gcra", "fixed-window")
        ticket = limiter.reserve("alice", 30)
        interrupter = interrupts.Interrupter(moment, lambda: interrupts.throw(interrupts.Interrupted()))
        try:
            interrupter.run(lambda: ticket.settle(50))  # noqa: B023  (called at once)
        except interrupts.Interrupted:
            ticket.settle(50)
        assert remaining(limiter) in ([70, 70], [50, 50])
        if not interrupter.acted:
            return


MUTANTS = {
    "a ticket is settled twice": ("self._unsettled.pop()", "self._unsettled[0]"),
    "a ticket has no deadline": ("or self._clock() > self._due", ""),
    "a denied ticket is settled": ("not unsettled or ", ""),
}
CHECKS = [
    lambda: test_a_settled_ticket_charges_the_actual_cost_once("gcra"),
    test_a_ticket_is_final_after_its_deadline,
    test_a_denied_ticket_cannot_be_settled,
]


def check_all() -> None:
    for check in CHECKS:
        check()


@pytest.mark.parametrize(("right", "wrong"), MUTANTS.values(), ids=MUTANTS)
def test_a_mutant_of_a_ticket_fails(monkeypatch: pytest.MonkeyPatch, right: str, wrong: str) -> None:
    monkeypatch.setattr(Reservation, "take", rewritten(Reservation.take, right, wrong))
    with pytest.raises((AssertionError, InputError)):
        check_all()
