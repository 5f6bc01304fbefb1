"""Waiting in memory: keys, costs and plans, the calls of other clients, clocks and results."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from waiting_runs import (
    Outcome,
    finish,
    note,
    pass_time,
    refusal,
    run,
    settle,
    times,
)

from ratelab import (
    Decision,
    InputError,
    ManualClock,
    MemoryLimiter,
    Policy,
)
from ratelab.stores.recording import RecordingLimiter

S = 10**9


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
