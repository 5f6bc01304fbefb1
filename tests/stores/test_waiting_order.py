"""Order of waiting in memory: first come, first served, at the instants that a model predicts."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting_runs import (
    Arrival,
    Outcome,
    every_algorithm,
    every_limiter,
    finish,
    follow,
    pass_time,
    predict,
    run,
    schedule,
    settle,
    times,
)

from ratelab import (
    ALGORITHMS,
    ManualClock,
    MemoryLimiter,
    Policy,
    RateLimitExceeded,
)

S = 10**9
MS = 10**6


@every_limiter
@every_algorithm
def test_each_request_goes_at_the_instant_of_the_model(algorithm: str, create: Any) -> None:
    policy, clock = Policy.create(algorithm, "3/s", 4), ManualClock(7 * S + 1)
    costs = [1, 3, 2, 1, 4, 1, 2]

    async def main() -> list[Outcome]:
        limiter = create(policy, clock)
        return await finish(clock, [limiter.wait("alice", cost) for cost in costs])

    assert times(run(main())) == predict(policy, 7 * S + 1, costs)


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
        assert times(first) + [ended.get(number) for number in kept] == predict(
            policy, 0, [costs[0], *(costs[number] for number in kept)]
        )
        assert [*ended] == kept

    for cancelled in [(1,), (2,), (5,), (1, 2), (2, 4), (1, 2, 3, 4, 5)]:
        run(main(cancelled))


def find_refused(policies: list[Policy], arrivals: list[Arrival]) -> set[int]:
    """Return the numbers of the requests whose time-out is too short, as far as that is known when they arrive."""
    refused: set[int] = set()
    for number, arrival in enumerate(arrivals):
        if arrival.timeout is not None:
            known = [
                replace(one, cancelled_at=None if (one.cancelled_at or 0) >= arrival.at else one.cancelled_at)
                for n, one in enumerate(arrivals[: number + 1])
                if n not in refused
            ]
            known[-1].cancelled_at = None
            if schedule(policies, 0, known)[-1] > arrival.at + arrival.timeout:
                refused.add(number)
    return refused


def draw_arrivals(rows: list[tuple[int, int, int | None, int | None]]) -> list[Arrival]:
    arrivals, at = [], 0
    for gap, cost, timeout, patience in rows:
        at += gap
        arrivals.append(Arrival(at, cost, timeout, None if patience is None else at + patience))
    return arrivals


rows_of_arrivals = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 100 * MS, 333 * MS, 2_500 * MS]),
        st.integers(1, 3),
        st.one_of(st.none(), st.integers(0, 6 * S)),
        st.one_of(st.none(), st.none(), st.integers(0, 3 * S)),
    ),
    min_size=1,
    max_size=9,
)
POLICIES = {name: [(name, "2/s", 3)] for name in ALGORITHMS} | {
    "two": [("token-bucket", "2/s", 3), ("sliding-log", "9/3s", 9)],
    "queue and window": [("leaky-bucket", "2/s", 4), ("fixed-window", "5/s", 5)],
}


@settings(max_examples=25)
@given(rows=rows_of_arrivals)
@pytest.mark.parametrize("names", POLICIES.values(), ids=POLICIES)
def test_arrivals_timeouts_and_cancellations_are_those_of_the_model(
    names: list[tuple[str, str, int]], rows: list[tuple[int, int, int | None, int | None]]
) -> None:
    policies = [Policy.create(algorithm, rate, burst) for algorithm, rate, burst in names]
    arrivals = draw_arrivals(rows)
    clock = ManualClock()
    limiter = MemoryLimiter(policies, clock)
    outcomes = run(follow(limiter, clock, arrivals))
    refused = find_refused(policies, arrivals)
    kept = [number for number in range(len(arrivals)) if number not in refused]
    expected = dict(zip(kept, schedule(policies, 0, [arrivals[number] for number in kept]), strict=True))
    for number, (arrival, outcome) in enumerate(zip(arrivals, outcomes, strict=True)):
        if number in refused:
            assert isinstance(outcome.result, RateLimitExceeded)
            assert outcome.at == arrival.at
            continue
        assert outcome.at == expected[number]
        if isinstance(outcome.result, asyncio.CancelledError):
            assert expected[number] == arrival.cancelled_at
        else:
            assert outcome.result.allowed
    assert limiter.waiting.count == 0
