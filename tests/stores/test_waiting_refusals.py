"""Refusals of requests that wait in memory: as soon as they cannot be in time, and never earlier."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import pytest
from waiting_runs import (
    Outcome,
    every_algorithm,
    every_limiter,
    finish,
    note,
    pass_time,
    predict,
    refusal,
    run,
    settle,
    times,
)

from ratelab import (
    NEVER,
    InputError,
    ManualClock,
    MemoryLimiter,
    Policy,
    RateLimitExceeded,
)

S = 10**9


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

    (refused,) = run(finish_one(*spent(), wait - 1))
    assert refused.at == 0
    assert refusal(refused).retry_after_ns == wait
    assert refused.result.key == "alice"
    (outcome,) = run(finish_one(*spent(), wait))
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


def test_a_hit_between_refuses_those_who_can_no_longer_be_in_time() -> None:
    async def main() -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 3), clock)
        limiter.hit("alice", 3)
        first = asyncio.ensure_future(note(clock, limiter.wait("alice", 2)))
        second = asyncio.ensure_future(note(clock, limiter.wait("alice", 1, 3)))
        await pass_time(clock, S)
        assert limiter.hit("alice", 1).allowed
        await pass_time(clock, 2 * S)
        assert limiter.hit("alice", 1).allowed
        await pass_time(clock, 3 * S)
        assert limiter.hit("alice", 1).allowed
        await pass_time(clock, 3 * S + 1)
        assert (await second).at <= 3 * S
        assert refusal(await second).retry_after_ns > 0
        await pass_time(clock, 5 * S)
        assert (await first).at == 5 * S

    run(main())


def test_a_timeout_counts_the_delay_after_a_denial() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(Policy.create("leaky-bucket", "1/s", 2), clock)
    limiter.hit("alice", 2)

    async def main() -> list[Outcome]:
        return await finish(clock, [limiter.wait("alice", 1, 1.999999999), limiter.wait("alice", 1, 2)])

    refused, admitted = run(main())
    assert (refused.at, refusal(refused).retry_after_ns, admitted.at) == (0, 2 * S, 2 * S)


def test_a_forecast_is_not_trusted_if_the_first_has_been_admitted_meanwhile() -> None:
    class Racing(MemoryLimiter):
        races = False

        def forecast(self, *arguments: Any) -> Any:
            forecast = super().forecast(*arguments)
            if self.races:  # as if the thread of the first had woken up, and hit the limiter
                for line in self.waiting._lines._lines.values():
                    line.due = None
                charged = forecast.admit({"token-bucket": 1})
                assert charged is not None
                return replace(forecast, parts=charged.parts)
            return forecast

    async def main() -> None:
        clock = ManualClock()
        limiter = Racing(Policy.create("token-bucket", "1/s", 1), clock)
        limiter.hit("alice")
        first = asyncio.ensure_future(note(clock, limiter.wait("alice")))
        await settle()
        limiter.races = True
        second = asyncio.ensure_future(note(clock, limiter.wait("alice", 1, 2.5)))
        await settle()
        limiter.races = False
        await pass_time(clock, 2 * S)
        assert times([await first, await second]) == [S, 2 * S]

    run(main())


def test_a_timeout_counts_nobody_who_has_left() -> None:
    async def main() -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 5), clock)
        limiter.hit("alice", 5)
        first, second, third = (asyncio.ensure_future(limiter.wait("alice", cost, 99)) for cost in (1, 5, 1))
        await settle()
        second.cancel()
        await settle()
        (outcome,) = await finish(clock, [limiter.wait("alice", 1, 3)])
        assert times([outcome]) == [3 * S]
        assert (await first).allowed
        assert (await third).allowed

    run(main())
