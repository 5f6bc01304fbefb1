"""Waiting in memory: first come, first served, at the instants that a model predicts."""

from __future__ import annotations

import asyncio
import io
import json
import math
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from waiting_runs import Arrival, Outcome, finish, follow, note, pass_time, predict, run, schedule, settle

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


# --- arrivals, time-outs and cancellations at any time


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


MS = 10**6
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


# --- several policies, plans, and the calls of other clients


def test_keys_and_costs_may_be_mappings_and_each_combination_has_a_line() -> None:
    clock = ManualClock()
    policies = [Policy.create("gcra", "1/s", 2, name="user"), Policy.create("gcra", "1/min", 9, name="team")]
    limiter = MemoryLimiter(policies, clock)
    ann, bob = {"user": "ann", "team": "red"}, {"user": "bob", "team": "red"}

    async def main() -> list[Outcome]:
        calls = [limiter.wait(key, {"user": 2, "team": 1}) for key in (ann, ann, bob, bob, {"user": "cid"})]
        return await finish(clock, calls)

    assert times(run(main())) == [0, 2 * S, 0, 2 * S, 0]


def test_a_plan_gives_its_quota_to_those_that_wait() -> None:
    clock = ManualClock()
    limiter = MemoryLimiter(Policy.create("gcra", "1/s", 1), clock, plans={"pro": {"gcra": ("10/s", 10)}})

    async def main() -> list[Outcome]:
        ann = [limiter.wait("ann", 5, 0.5, plan="pro") for _ in range(4)]
        return await finish(clock, [*ann, limiter.wait("bob"), limiter.wait("bob")])

    outcomes = run(main())
    assert times([*outcomes[:3], *outcomes[4:]]) == [0, 0, S // 2, 0, S]
    assert refusal(outcomes[3]).retry_after_ns == S
    with pytest.raises(InputError, match="unknown plan"):
        limiter.wait("ann", plan="none")


def test_a_hit_between_takes_quota_and_the_first_waits_again() -> None:
    async def main() -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 2), clock)
        limiter.hit("alice", 2)
        task = asyncio.ensure_future(note(clock, limiter.wait("alice", 2, 3)))
        await pass_time(clock, S)
        assert limiter.hit("alice", 1).allowed
        await pass_time(clock, 2 * S)
        assert not task.done()
        await pass_time(clock, 3 * S)
        assert (await task).at == 3 * S

    run(main())


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


def test_a_request_asks_again_at_the_time_that_it_was_given() -> None:
    hits: list[int] = []

    class Counting(MemoryLimiter):
        def forecast(self, *arguments: Any) -> Any:
            hits.append(self._clock())
            return super().forecast(*arguments)

    async def main() -> None:
        clock = ManualClock()
        limiter = Counting(Policy.create("token-bucket", "1/s", 1), clock)
        limiter.hit("alice")
        task = asyncio.ensure_future(limiter.wait("alice"))
        await pass_time(clock, S - 1)
        await pass_time(clock, S)
        assert (await task).allowed

    run(main())
    assert hits == [0, S]


def test_waiting_is_not_counted_as_a_denial_by_a_penalty() -> None:
    clock = ManualClock()
    penalty = {"after": 2, "within": "1min", "for": "1h"}
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 1, penalty=penalty), clock)

    async def main() -> list[Outcome]:
        return await finish(clock, [limiter.wait("alice") for _ in range(6)])

    assert times(run(main())) == [number * S for number in range(6)]


def test_a_cancelled_delay_is_refunded_and_the_next_takes_the_place() -> None:
    async def main() -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(Policy.create("leaky-bucket", "1/s", 3), clock)
        tasks = [asyncio.ensure_future(note(clock, limiter.wait("alice"))) for _ in range(3)]
        await pass_time(clock, S // 2)
        tasks[1].cancel()
        await pass_time(clock, 3 * S)
        assert [(await task).at for task in tasks] == [0, S // 2, S]
        assert limiter.hit("alice", 3).allowed

    run(main())


def test_a_recording_of_requests_that_waited_has_their_admissions_alone() -> None:
    clock, file = ManualClock(), io.StringIO()
    limiter = RecordingLimiter(Policy.create("token-bucket", "1/s", 1), file, clock)

    async def main() -> None:
        await finish(clock, [limiter.wait("alice", 1, 2) for _ in range(5)])

    run(main())
    lines = [json.loads(line) for line in file.getvalue().splitlines()[1:]]
    assert [(line["at_ns"], line["allowed"]) for line in lines] == [(0, True), (S, True), (2 * S, True)]


def test_a_request_without_cost_does_not_wait() -> None:
    async def main() -> None:
        clock = ManualClock()
        limiter = MemoryLimiter(Policy.create("leaky-bucket", "1/s", 2), clock)
        waiting = [asyncio.ensure_future(limiter.wait("alice")) for _ in range(3)]
        await settle()
        assert (await limiter.wait("alice", 0)).allowed
        for one in waiting:
            one.cancel()

    run(main())


def test_waiting_for_a_limiter_with_another_clock_takes_real_time() -> None:
    limiter = MemoryLimiter(Policy.create("token-bucket", "500/s", 1), time.time_ns)
    assert [limiter.wait("alice").allowed for _ in range(3)] == [True] * 3


def test_a_clock_may_jump_to_the_time_that_a_thread_waits_for() -> None:
    class Jumping(ManualClock):
        def call_at(self, when: int, wake: Callable[[], object]) -> Callable[[], object]:
            self.now = max(self.now, when)
            return super().call_at(when, wake)

    clock = Jumping()
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/min", 1), clock)
    assert [(limiter.wait("alice").allowed, clock.now) for _ in range(3)] == [(True, n * 60 * S) for n in range(3)]


def test_the_result_has_one_type_in_threads_and_in_tasks() -> None:
    limiter = MemoryLimiter(Policy.create("token-bucket", "1/s", 3), ManualClock())
    in_thread: Decision = limiter.wait("alice")  # mypy checks these lines, too

    async def main() -> tuple[Decision, Decision]:
        return await limiter.wait("alice"), await in_thread_again

    in_thread_again = limiter.wait("alice")
    in_task, awaited = run(main())
    assert [in_thread.remaining, in_thread_again.remaining, in_task.remaining] == [2, 1, 0]
    assert awaited == in_thread_again
    assert type(in_task) is Decision
