"""Waiting in memory: first come, first served, at the instants that a model predicts."""

from __future__ import annotations

import asyncio
import io
import math
from collections.abc import Callable
from typing import Any

import pytest
from waiting_runs import Outcome, finish, pass_time, predict, run, settle

from ratelab import (
    ALGORITHMS,
    NEVER,
    Decision,
    InputError,
    ManualClock,
    MemoryLimiter,
    Policy,
    RateLimitExceeded,
)
from ratelab.stores.recording import RecordingLimiter

S = 10**9

LIMITERS: dict[str, Callable[[Any, ManualClock], Any]] = {
    "memory": MemoryLimiter,
    "recording": lambda policies, clock: RecordingLimiter(policies, io.StringIO(), clock),
}

every_limiter = pytest.mark.parametrize("create", LIMITERS.values(), ids=LIMITERS)
every_algorithm = pytest.mark.parametrize("algorithm", ALGORITHMS)


def times(outcomes: list[Outcome]) -> list[int]:
    assert all(isinstance(outcome.result, Decision) and outcome.result.allowed for outcome in outcomes)
    return [outcome.at for outcome in outcomes]


def refusal(outcome: Outcome) -> Decision:
    assert isinstance(outcome.result, RateLimitExceeded)
    return outcome.result.decision


@every_limiter
@every_algorithm
def test_each_request_goes_at_the_instant_of_the_model(algorithm: str, create: Any) -> None:
    policy, clock = Policy.create(algorithm, "3/s", 4), ManualClock(7 * S + 1)
    costs = [1, 3, 2, 1, 4, 1, 2]

    async def main() -> list[Outcome]:
        limiter = create(policy, clock)
        return await finish(clock, [limiter.wait("alice", cost) for cost in costs])

    assert times(run(main())) == predict(policy, 7 * S + 1, costs)


@every_limiter
@every_algorithm
def test_a_timeout_suffices_exactly_and_one_nanosecond_less_raises_at_once(algorithm: str, create: Any) -> None:
    policy, costs = Policy.create(algorithm, "3/s", 4), [4, 2, 3]
    waits = predict(policy, 0, [*costs, 1])

    async def main(timeout: int) -> Outcome:
        clock = ManualClock()
        limiter = create(policy, clock)
        ahead = [asyncio.ensure_future(limiter.wait("alice", cost)) for cost in costs]
        await settle()
        (outcome,) = await finish(clock, [limiter.wait("alice", 1, timeout / S)])
        for one in ahead:
            one.cancel()
        return outcome

    assert run(main(waits[-1])).at == waits[-1]
    refused = run(main(waits[-1] - 1))
    decision = refusal(refused)
    assert refused.at == 0
    assert decision.retry_after_ns == waits[-1]
    assert not decision.allowed


@every_algorithm
def test_the_first_in_line_waits_for_exactly_the_timeout_or_not_at_all(algorithm: str) -> None:
    policy = Policy.create(algorithm, "3/s", 4)
    _, wait = predict(policy, 0, [4, 4])

    def spent() -> tuple[ManualClock, MemoryLimiter]:
        clock = ManualClock()
        limiter = MemoryLimiter(policy, clock)
        assert limiter.hit("alice", 4).allowed
        return clock, limiter

    clock, limiter = spent()
    with pytest.raises(RateLimitExceeded) as raised:
        limiter.wait("alice", 4, (wait - 1) / S)
    assert raised.value.decision.retry_after_ns == wait
    assert raised.value.key == "alice"
    clock, limiter = spent()
    (outcome,) = run(finish_one(clock, limiter, wait))
    assert outcome.at == wait


async def finish_one(clock: ManualClock, limiter: MemoryLimiter, wait: int) -> list[Outcome]:
    return await finish(clock, [limiter.wait("alice", 4, wait / S)])


@every_limiter
@every_algorithm
def test_a_cost_above_the_burst_raises_at_once_without_a_timeout(algorithm: str, create: Any) -> None:
    limiter = create(Policy.create(algorithm, "1/s", 2), ManualClock())
    with pytest.raises(RateLimitExceeded, match="no wait is enough") as raised:
        limiter.wait("alice", 3)
    assert raised.value.decision.retry_after_ns == NEVER
    assert limiter.hit("alice", 2).allowed


@every_algorithm
def test_a_cost_above_the_burst_raises_at_once_behind_others(algorithm: str) -> None:
    async def main() -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(Policy.create(algorithm, "1/s", 2), clock)
        ahead = [asyncio.ensure_future(limiter.wait("alice", 2)) for _ in range(3)]
        await settle()
        with pytest.raises(RateLimitExceeded):
            await limiter.wait("alice", 3)
        assert clock.now == 0
        for one in ahead:
            one.cancel()

    run(main())


@every_limiter
def test_a_timeout_of_zero_never_sleeps_and_charges_nothing(create: Any) -> None:
    clock = ManualClock()
    limiter = create(Policy.create("token-bucket", "1/s", 2), clock)
    assert limiter.wait("alice", 2, 0).allowed
    for _ in range(5):
        with pytest.raises(RateLimitExceeded):
            limiter.wait("alice", 1, 0)
    clock.advance(S)
    assert limiter.wait("alice", 1, 0).allowed


@every_limiter
@pytest.mark.parametrize("timeout", [-1, -0.001, math.nan, True, False, "1", b"1", [1], 1j, -math.inf])
def test_an_invalid_timeout_is_rejected_and_changes_nothing(timeout: Any, create: Any) -> None:
    limiter = create(Policy.create("token-bucket", "1/s", 2), ManualClock())
    with pytest.raises(InputError, match="timeout must be a number of seconds >= 0"):
        limiter.wait("alice", 1, timeout)

    async def main() -> None:
        with pytest.raises(InputError, match="timeout must be a number of seconds >= 0"):
            await limiter.wait("alice", 1, timeout)

    run(main())
    assert limiter.hit("alice", 2).allowed


@every_limiter
@pytest.mark.parametrize(("key", "cost"), [(1, 1), ("a", -1), ("a", True), ("a", 1.0), ({"no": "a"}, 1), ({}, 1)])
def test_an_invalid_key_or_cost_is_rejected_as_by_hit(key: Any, cost: Any, create: Any) -> None:
    limiter = create(Policy.create("token-bucket", "1/s", 2), ManualClock())
    with pytest.raises(InputError) as raised:
        limiter.hit(key, cost)
    with pytest.raises(InputError) as raised_by_wait:
        limiter.wait(key, cost)
    assert str(raised_by_wait.value) == str(raised.value)


@pytest.mark.parametrize("timeout", [math.inf, 1e300, 10**30])
def test_an_endless_timeout_is_none(timeout: float) -> None:
    assert MemoryLimiter(Policy.create("token-bucket", "1/s", 2), ManualClock()).wait("alice", 1, timeout).allowed


def test_a_later_and_cheaper_request_does_not_overtake() -> None:
    async def main() -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 5), clock)
        limiter.hit("alice", 4)
        outcomes = await finish(clock, [limiter.wait("alice", 5), limiter.wait("alice", 1), limiter.wait("bob", 1)])
        assert times(outcomes) == [4 * S, 5 * S, 0]

    run(main())


@every_algorithm
def test_cancelled_requests_give_their_places_back(algorithm: str) -> None:
    policy, costs = Policy.create(algorithm, "1/s", 3), [3, 1, 2, 3, 1, 2]

    async def main(cancelled: tuple[int, ...]) -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(policy, clock)
        first = await finish(clock, [limiter.wait("alice", costs[0])])
        ended: dict[int, int] = {}

        async def note(number: int) -> None:
            await limiter.wait("alice", costs[number])
            ended[number] = clock.now

        tasks = {number: asyncio.ensure_future(note(number)) for number in range(1, len(costs))}
        await settle()
        for number in cancelled:
            tasks[number].cancel()
        await pass_time(clock, 60 * S)
        kept = [number for number in tasks if number not in cancelled]
        assert times(first) + [ended[number] for number in kept] == predict(
            policy, 0, [costs[0], *(costs[number] for number in kept)]
        )
        assert [*ended] == kept

    for cancelled in [(1,), (2,), (5,), (1, 2), (2, 4), (1, 2, 3, 4, 5)]:
        run(main(cancelled))
