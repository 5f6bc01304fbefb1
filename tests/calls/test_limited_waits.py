"""Calls that `limited` lets wait, and their delays: in order, at the rate, refunded if they are cancelled."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import patch

import pytest
from mutate import mutate
from test_limited import Remote, create
from waiting_runs import finish, pass_time, run, settle, wait_until

from ratelab import InputError, ManualClock, MemoryLimiter, Policy, RateLimitExceeded, limited
from ratelab.calls import _Call
from ratelab.errors import StoreError
from ratelab.limiter import Costs, Keys
from ratelab.stores.waiting import Waiting

S = 10**9


def test_calls_that_wait_go_in_order_at_the_rate() -> None:
    limiter, clock = create("1/s", 2)

    @limited(limiter, "all", on_deny="wait", timeout=3)
    async def number_of(number: int) -> int:
        return number

    async def main() -> None:
        outcomes = await finish(clock, [number_of(number) for number in range(6)])
        assert [outcome.at for outcome in outcomes] == [0, 0, S, 2 * S, 3 * S, 0]
        assert [outcome.result for outcome in outcomes[:5]] == [0, 1, 2, 3, 4]
        assert isinstance(outcomes[5].result, RateLimitExceeded)

    run(main())


def test_a_function_on_deny_may_be_called_after_a_timeout() -> None:
    limiter, clock = create("1/s", 1)

    @limited(limiter, "all", on_deny=lambda decision, number: -number, timeout=1.5)
    async def double(number: int) -> int:
        return 2 * number

    async def main() -> None:
        outcomes = await finish(clock, [double(number) for number in (1, 2, 3)])
        assert [tuple(outcome) for outcome in outcomes] == [(0, 2), (S, 4), (0, -3)]

    run(main())


@pytest.mark.parametrize("options", [{}, {"on_deny": "wait"}, {"on_deny": lambda _: None}])
def test_the_delay_of_a_leaky_bucket_is_slept_before_the_function_runs(options: dict[str, Any]) -> None:
    limiter, clock = create("1/s", 3, "leaky-bucket")

    @limited(limiter, "all", **options)
    async def now() -> int:
        return clock.now

    async def main() -> None:
        outcomes = await finish(clock, [now() for _ in range(3)])
        assert [outcome.result for outcome in outcomes] == [0, S, 2 * S]

    run(main())


def test_a_synchronous_function_sleeps_through_a_delay_in_its_thread() -> None:
    limiter, clock = create("1/s", 3, "leaky-bucket")

    @limited(limiter)
    def now() -> int:
        return clock.now

    async def main() -> None:
        assert await asyncio.to_thread(now) == 0
        for second in (S, 2 * S):
            task = asyncio.ensure_future(asyncio.to_thread(now))
            await asyncio.to_thread(wait_until, lambda: clock.next_alarm == second)  # noqa: B023  (ends in this turn)
            clock.now = second
            assert await task == second

    run(main())


@pytest.mark.parametrize(("algorithm", "on_deny"), [("token-bucket", "wait"), ("leaky-bucket", "raise")])
def test_a_synchronous_function_that_would_sleep_in_an_event_loop_is_rejected(algorithm: str, on_deny: str) -> None:
    limiter, _ = create("1/s", 3, algorithm)

    @limited(limiter, "all", on_deny=on_deny)
    def function() -> None:
        pass

    async def main() -> None:
        with pytest.raises(InputError, match="would block the event loop"):
            function()

    run(main())
    assert limiter.stats.keys == 0


# --- calls that are cancelled


class Refunding(Remote):
    """A limiter whose decisions and refunds are awaited."""

    async def refund(self, key: Keys, cost: Costs = 1) -> None:
        await asyncio.sleep(0)
        self._local.refund(key, cost)


class Failing(Remote):
    """A limiter whose store fails before it refunds."""

    async def refund(self, key: Keys, cost: Costs = 1) -> None:
        raise StoreError("timeout", "no reply")


def left_after_cancel(policies: Policy | list[Policy], remote: Any = None) -> list[int]:
    """Return what remains for each policy after three calls, of which the last is cancelled in its delay."""
    clock = ManualClock()
    limiter = MemoryLimiter(policies, clock)

    async def main() -> None:
        @limited(limiter if remote is None else remote(limiter), "all")
        async def call() -> None:
            pass

        tasks = [asyncio.ensure_future(call()) for _ in range(3)]
        await settle()
        tasks[2].cancel()
        await settle()
        assert tasks[2].cancelled()
        await pass_time(clock, 10**9)  # by which the second call is done, and another place is free
        await asyncio.gather(*tasks[:2])

    run(main())
    return [decision.remaining for decision in limiter.look("all").values()]


@pytest.mark.parametrize(("remote", "left"), [(None, 4), (Refunding, 4), (Failing, 3), (Remote, 3)])
def test_a_call_that_is_cancelled_in_its_delay_is_refunded_if_it_can_be(remote: Any, left: int) -> None:
    assert left_after_cancel(Policy.create("leaky-bucket", "1/s", 5), remote) == [left]


def test_a_cancelled_call_is_refunded_by_the_policies_that_charged_it() -> None:
    queue = Policy.create("leaky-bucket", "1/s", 5, name="queue")
    shadow = Policy.create("token-bucket", "1/day", 2, name="shadow", shadow=True)
    assert left_after_cancel([queue, shadow]) == [4, 0]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, TimeoutError])
def test_a_call_whose_thread_is_interrupted_in_its_delay_is_refunded(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(waiting: Waiting, nanoseconds: int) -> None:
        raise error

    monkeypatch.setattr(Waiting, "pause", interrupt)
    limiter, _ = create("1/s", 3, "leaky-bucket")
    call = limited(limiter, "all", cost=lambda number: number)(abs)
    call(1)
    with pytest.raises(error):
        call(2)
    assert limiter.hit("all", 0).remaining == 2


def test_a_cancelled_call_that_stays_charged_is_found() -> None:
    mutant = mutate(_Call, "_refunding", "if refund is not None:", "if False:")
    with patch.object(mutant.owner, mutant.attribute, mutant.replacement), pytest.raises(AssertionError):
        test_a_call_that_is_cancelled_in_its_delay_is_refunded_if_it_can_be(None, 4)
