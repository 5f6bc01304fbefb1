"""The clock of tests: every limiter in memory decides by it, and its time never goes back."""

from __future__ import annotations

import asyncio
import io
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import freezegun
import pytest
import time_machine
from waiting_runs import settle, wait_until

from ratelab import Decision, ManualClock, MemoryLimiter, Policy, RateLimitExceeded, create
from ratelab.algorithms import ALGORITHMS
from ratelab.clock import default_clocks, wall_clock
from ratelab.errors import InputError
from ratelab.http.headers import HeaderWriter
from ratelab.pacing import Pacer
from ratelab.stores.arguments import default_clock
from ratelab.stores.recording import RecordingLimiter
from ratelab.testing import LimiterClock

pytest_plugins = ["clock_fixtures"]

SECOND = 10**9
HOUR = 3600 * SECOND


def exhaust(limiter: MemoryLimiter | RecordingLimiter, key: str = "alice") -> int:
    """Hit a limiter until it denies, and return `retry_after_ns`."""
    while (decision := limiter.hit(key)).allowed:
        pass
    return decision.retry_after_ns


def check_promised_wait(limiter: MemoryLimiter | RecordingLimiter, clock: LimiterClock) -> None:
    """Check that a client is admitted after the promised wait, and no nanosecond earlier."""
    wait = exhaust(limiter)
    clock.advance(f"{wait - 1}ns")
    assert not limiter.hit("alice").allowed
    clock.advance("1ns")
    assert limiter.hit("alice").allowed


LIMITERS = {
    **{name: [create(name, "5/min")] for name in ALGORITHMS},
    "calendar": [Policy.create("fixed-window", "5/day", timezone="Europe/Berlin")],
    "month": [create("fixed-window", "5/month")],
    "two policies": [Policy.create("gcra", "5/min", name="a"), Policy.create("fixed-window", "7/day", name="b")],
}


@pytest.mark.parametrize("policies", LIMITERS.values(), ids=LIMITERS.keys())
def test_limiters_created_before_and_after_decide_at_the_new_time(
    policies: list[Policy], process: LimiterClock
) -> None:
    old = MemoryLimiter(policies)
    exhaust(old)
    with process.stop():
        for limiter in (old, MemoryLimiter(policies), RecordingLimiter(policies, io.StringIO())):
            check_promised_wait(limiter, process)


def test_a_limiter_with_plans_follows_too(clock: LimiterClock) -> None:
    limiter = MemoryLimiter(Policy.create("gcra", "5/min", name="all"), plans={"gold": {"all": "9/min"}})
    check_promised_wait(limiter, clock)
    limiter.update(Policy.create("fixed-window", "3/min", name="all"))
    check_promised_wait(limiter, clock)


def test_a_limiter_with_a_clock_of_its_own_does_not_follow(clock: LimiterClock) -> None:
    limiter = MemoryLimiter(create("gcra", "5/min"), clock=ManualClock())
    wait = exhaust(limiter)
    clock.advance("1day")
    assert limiter.hit("alice").retry_after_ns == wait


@pytest.mark.parametrize("name", ALGORITHMS)
def test_time_stands_still(name: str, clock: LimiterClock) -> None:
    limiter = MemoryLimiter(create(name, "1000000000/s", burst=1))
    assert [limiter.hit("alice").allowed for _ in range(100)] == [True] + [False] * 99


def test_windows_begin_with_the_test(clock: LimiterClock) -> None:
    assert clock.now.timetz() == datetime.min.replace(tzinfo=UTC).timetz()
    assert timedelta(0) <= clock.now - datetime.now(UTC) <= timedelta(days=1)
    for rate, seconds in (("5/min", 60), ("5/h", 3600), ("5/day", 86_400)):
        assert exhaust(MemoryLimiter(create("fixed-window", rate))) == seconds * SECOND


@pytest.mark.parametrize(
    ("duration", "nanoseconds"),
    [
        (60, 60 * SECOND),
        (0, 0),
        (0.1, SECOND // 10),
        (1e-9, 1),
        ("1min", 60 * SECOND),
        ("1.5 days", 36 * HOUR),
        (timedelta(hours=1, microseconds=1), HOUR + 1000),
    ],
)
def test_a_duration_is_seconds_a_text_or_a_timedelta(
    duration: float | str | timedelta, nanoseconds: int, clock: LimiterClock
) -> None:
    utc, steady = clock.utc_ns, default_clocks.steady()
    assert utc is not None
    clock.advance(duration)
    assert clock.utc_ns == utc + nanoseconds
    assert default_clocks.steady() == steady + nanoseconds


@pytest.mark.parametrize("period", ["day", "30 days", "150 days", "3650 days"])
def test_the_seconds_of_any_wait_are_enough(period: str, clock: LimiterClock) -> None:
    limiter = MemoryLimiter(create("gcra", f"3/{period}"))
    clock.advance("123456789ns")
    exhaust(limiter)
    clock.advance(limiter.hit("alice").retry_after)
    assert limiter.hit("alice").allowed


@pytest.mark.parametrize(
    ("duration", "message"),
    [
        (-1, r"a duration must be a number of seconds >= 0, a timedelta, or a text such as 1min, got -1"),
        (float("inf"), "got inf"),
        (float("nan"), "got nan"),
        (None, "got None"),
        (timedelta(-1), r"got datetime.timedelta\(days=-1\)"),
        ("soon", "a duration must look like 10s, 0.5s or 2min, got 'soon'"),
    ],
)
def test_an_invalid_duration_moves_nothing(duration: float, message: str, clock: LimiterClock) -> None:
    before = clock.utc_ns
    with pytest.raises(InputError, match=message):
        clock.advance(duration)
    assert clock.utc_ns == before


def test_time_moves_to_a_date_but_never_back(clock: LimiterClock) -> None:
    limiter = MemoryLimiter(create("fixed-window", "1/month"))
    later = clock.now.replace(year=clock.now.year + 1, month=1, day=31, hour=23, minute=59)
    clock.move_to(later)
    assert clock.now == later
    assert exhaust(limiter) == 60 * SECOND
    with pytest.raises(InputError, match=r"the time of limiters never goes back"):
        clock.move_to(later - timedelta(seconds=1))
    with pytest.raises(InputError, match=r"must be a datetime with a time zone, got datetime.*: give tzinfo="):
        clock.move_to(later.replace(tzinfo=None))


def test_a_clock_that_runs_cannot_be_moved_or_read(process: LimiterClock) -> None:
    for use in (lambda: process.advance(1), lambda: process.move_to(datetime.now(UTC)), lambda: process.now):
        with pytest.raises(InputError, match="the time of limiters runs: use the fixture ratelab_clock in the test"):
            use()
    with process.stop(), pytest.raises(InputError, match="stopped already: use one ratelab_clock"), process.stop():
        pass


@pytest.mark.parametrize("name", ["gcra", "fixed-window"])
def test_no_time_goes_back_from_test_to_test(name: str, process: LimiterClock) -> None:
    policies = [create(name, "5/min")]
    clocks = [default_clock(policies)]
    readings: list[list[int]] = [[]]

    def read_all() -> None:
        for number, read in enumerate(clocks):
            readings[number].append(read())

    for days in (0, 3, 1):
        with process.stop():
            read_all()
            clocks.append(default_clock(policies))
            readings.append([])
            process.advance(days * 86_400)
            read_all()
        clocks.append(default_clock(policies))
        readings.append([])
        read_all()
    assert all(times == sorted(times) for times in readings)


def test_windows_of_old_limiters_begin_with_each_test(process: LimiterClock) -> None:
    limiter = MemoryLimiter(create("fixed-window", "5/day"))
    for _ in range(3):
        with process.stop():
            assert exhaust(limiter) == 86_400 * SECOND
            process.advance("10h")
            assert exhaust(limiter) == 14 * HOUR


def test_a_limiter_created_after_a_test_begins_at_the_time_of_the_machine(process: LimiterClock) -> None:
    with process.stop():
        process.advance("100 days")
    assert abs(default_clock([create("fixed-window", "5/min")])() - time.time_ns()) < HOUR
    with process.stop():
        assert process.now - datetime.now(UTC) <= timedelta(days=1)


def test_dates_in_responses_follow(clock: LimiterClock) -> None:
    policy = create("fixed-window", "5/min")
    clock.advance(15)
    decision = MemoryLimiter(policy).hit("alice")
    fields = dict(HeaderWriter(policy, "epoch").format_decision(decision))
    assert int(fields[b"x-ratelimit-reset"]) == int(clock.now.timestamp()) + 45


# --- waiting


def test_waiting_threads_continue_in_turn_when_time_moves(clock: LimiterClock) -> None:
    limiter = MemoryLimiter(create("gcra", "5/min"))
    exhaust(limiter)
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(limiter.wait, "alice") for _ in range(3)]
        for done in range(3):
            wait_until(lambda: clock.waiting == 1)
            assert sum(one.done() for one in waiting) == done
            clock.advance(12)
            wait_until(lambda done=done: sum(one.done() for one in waiting) > done)  # type: ignore[misc]
    assert all(one.result().allowed for one in waiting)


@pytest.mark.parametrize("name", ["gcra", "fixed-window", "leaky-bucket"])
def test_waiting_tasks_continue_when_time_moves(name: str, clock: LimiterClock) -> None:
    async def check() -> None:
        limiter = MemoryLimiter(create(name, "5/min"))
        exhaust(limiter)
        waiting = asyncio.ensure_future(limiter.wait("alice", timeout=3600))
        await settle()
        clock.advance("1s")
        await settle()
        assert not waiting.done()
        clock.advance("2min")
        assert (await waiting).allowed

    asyncio.run(check())


def test_a_wait_in_the_thread_of_the_test_moves_the_time(clock: LimiterClock) -> None:
    limiter, before = MemoryLimiter(create("gcra", "5/h")), clock.now
    exhaust(limiter)
    assert limiter.wait("alice").allowed
    assert clock.now - before == timedelta(minutes=12)
    with pytest.raises(RateLimitExceeded):
        limiter.wait("alice", timeout=719)
    assert clock.now - before == timedelta(minutes=12)


def test_no_wait_lasts_without_end(clock: LimiterClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ratelab.testing.clock.PATIENCE_S", 0.01)
    limiter, before = MemoryLimiter(create("gcra", "5/h")), clock.now
    exhaust(limiter)
    assert asyncio.run(wait_for_quota(limiter)).allowed
    assert clock.now - before == timedelta(minutes=12)


async def wait_for_quota(limiter: MemoryLimiter) -> Decision:
    return await limiter.wait("alice")


def check_paced_request(pacer: Pacer, clock: LimiterClock) -> None:
    """Check that a request waits in the time of the clock until the date that a denied one was given."""
    before = clock.now
    with pacer.request() as permit:
        permit.observe(429, {"Retry-After": "30"})
    with pacer.request() as permit:
        permit.observe(200)
    assert timedelta(seconds=30) <= clock.now - before <= timedelta(seconds=40)


def test_a_paced_request_waits_by_the_clock(clock: LimiterClock) -> None:
    check_paced_request(Pacer(timeout=None), clock)


def test_a_wait_that_outlasts_the_test_ends_in_real_time(process: LimiterClock) -> None:
    limiter = MemoryLimiter(create("gcra", "100/s", burst=1))
    with ThreadPoolExecutor(1) as pool:
        with process.stop():
            exhaust(limiter)
            waiting = pool.submit(limiter.wait, "alice")
            wait_until(lambda: process.waiting == 1)
        assert waiting.result().allowed
    assert process.waiting == 0


# --- freezegun and time-machine

PAST, FUTURE = datetime(2012, 1, 14, tzinfo=UTC), datetime(2100, 1, 14, tzinfo=UTC)


@pytest.mark.parametrize("date", [PAST, FUTURE])
@pytest.mark.parametrize("name", ["gcra", "fixed-window"])
def test_other_libraries_do_not_move_the_time(name: str, date: datetime, process: LimiterClock) -> None:
    limiter, today = MemoryLimiter(create(name, "1000/day")), datetime.now(UTC)
    for frozen in (freezegun.freeze_time(date), time_machine.travel(date)):
        with frozen, process.stop():
            assert timedelta(0) <= process.now - today <= timedelta(days=1)
            check_promised_wait(limiter, process)
            check_promised_wait(MemoryLimiter(create(name, "1000/day")), process)
        with process.stop():
            check_promised_wait(limiter, process)


def test_the_wall_clock_follows_other_libraries_and_not_this_one(clock: LimiterClock) -> None:
    limiter = MemoryLimiter(create("gcra", "1/day"), clock=wall_clock)
    with time_machine.travel(FUTURE, tick=False) as traveller:
        assert limiter.hit("alice").allowed
        clock.advance("1day")
        assert not limiter.hit("alice").allowed
        traveller.shift(86_400)
        assert limiter.hit("alice").allowed
