"""When a store that fails is asked: timelines, requests in flight when it dies, and every other order of events."""

from __future__ import annotations

import pytest
from failing_stores import MS, SECOND, Call, Flaky, Shared, broken, decided, looked, outage, shared
from hypothesis import given
from hypothesis import strategies as st

from ratelab import ManualClock
from ratelab.stores.resilient import ResilientLimiter

HOUR = 3600 * SECOND

DIES = "0 ok, 1 fails, 2 fails, 3 fails, 4 spared"
TIMELINES = {
    "three failures in a row, and it is asked no more": DIES,
    "a success begins the count anew": f"0 fails, 0 fails, {DIES}",
    "failures need not be close together": "0 fails, 9000 fails, 18000 fails, 18000 spared",
    "the first probe comes after half a second": f"{DIES}, 502 spared, 503 fails, 504 spared",
    "the others come after one": f"{DIES}, 503 fails, 1502 spared, 1503 fails, 2502 spared, 2503 fails",
    "one success, and every request asks": f"{DIES}, 503 ok, 504 ok, 504 ok",
    "back after a failed probe": f"{DIES}, 503 fails, 1503 ok, 1503 ok",
    "an hour without a request": f"{DIES}, 3600000 fails, 3600999 spared, 3601000 ok, 3601000 ok",
    "after a recovery it takes three again": f"{DIES}, 503 ok, 600 fails, 600 fails, 601 fails, 602 spared",
    "after a recovery the first probe is early": f"{DIES}, 503 fails, 1503 ok, 1600 fails, 1600 fails, 1600 fails, "
    "2099 spared, 2100 fails",
}
"""Requests at so many milliseconds, and whether the store is asked, and fails then, or is spared."""


def holds(timeline: str) -> None:
    """Check that the store is asked when a timeline says so."""
    store, clock = Flaky(), ManualClock()
    limiter = ResilientLimiter(store, "open", clock)
    for event in timeline.split(", "):
        at, became = event.split()
        clock.now = int(at) * MS
        store.asked.clear()
        store.heal() if became == "ok" else store.fail()
        assert decided(limiter, cost=0).allowed
        assert len(store.asked) == (became != "spared"), event


@pytest.mark.parametrize("name", TIMELINES)
def test_a_store_that_fails_is_spared(name: str) -> None:
    holds(TIMELINES[name])


# --- requests in flight


def test_all_that_are_in_flight_when_the_store_dies_are_answered_and_none_asks_again() -> None:
    at = outage(in_flight=200)
    assert at.limiter.health == (False, {"timeout": 600}, 600)
    at.clock.advance(499 * MS)
    assert at.asking(600) == []
    at.clock.advance(MS)
    assert len(at.asking(600)) == 1


def test_one_stall_that_fails_all_in_flight_is_one_failure() -> None:
    at = shared()
    for _ in range(2):
        for call in at.asking(600):
            call.fail()
    third = at.call()
    assert third.asks
    third.fail()
    assert not at.limiter.health.up


def test_one_request_at_a_time_probes_however_long_it_takes() -> None:
    at = outage()
    at.clock.advance(500 * MS)
    (probe,) = at.asking(10)
    at.clock.advance(HOUR)
    assert at.asking(10) == []
    probe.fail()
    at.clock.advance(SECOND)
    assert len(at.asking(10)) == 1


def test_a_probe_that_is_cancelled_leaves_its_turn_to_another() -> None:
    at = outage()
    at.clock.advance(500 * MS)
    at.asking(1)[0].cancel()
    assert at.asking(10) == []
    at.clock.advance(500 * MS)
    assert len(at.asking(10)) == 1


def test_the_shared_state_is_back_within_two_seconds_however_the_store_died() -> None:
    at = outage()
    at.clock.advance(500 * MS)
    (probe,) = at.asking(1)
    back = at.clock.now + 1  # the store is back, too late for the probe that is under way
    at.clock.advance(100 * MS)
    probe.fail()
    while not at.limiter.health.up:
        at.clock.advance(MS)
        for call in at.asking(1):
            call.succeed()
    assert at.clock.now - back < 2 * SECOND


def late_and_down(on_store_error: str = "open") -> tuple[Call, Shared]:
    """Have a store go down while a request that has come before waits for it."""
    at = shared(on_store_error)
    late = at.call()
    for _ in range(3):
        at.call().fail()
    assert not at.limiter.health.up
    return late, at


def test_a_failure_from_before_the_recovery_is_no_failure_since() -> None:
    late, at = late_and_down()
    at.clock.advance(500 * MS)
    at.call().succeed()
    late.fail()
    at.call().fail()
    at.call().fail()
    assert at.limiter.health == (True, {"timeout": 6}, 6)


def test_a_failure_from_before_the_outage_does_not_put_off_the_next_probe() -> None:
    late, at = late_and_down()
    at.clock.advance(450 * MS)
    late.fail()
    at.clock.advance(50 * MS)
    assert len(at.asking(10)) == 1


def test_a_success_from_before_the_outage_is_told_but_does_not_end_it() -> None:
    late, at = late_and_down("local")
    late.succeed()
    assert late.outcome == (True, 4, 0, SECOND, 0)
    assert (at.limiter.health.up, decided(at.limiter, cost=0).remaining) == (False, 1)  # three and this one


# --- while nobody comes


def test_who_looks_after_a_store_finds_it_back_though_nobody_comes() -> None:
    store, clock = Flaky(), ManualClock()
    limiter = broken(store, "closed", clock)
    answered = limiter.health.fallback_decisions
    for _ in range(40):
        clock.advance(100 * MS)
        looked(limiter)
    assert (store.asked, limiter.health.fallback_decisions) == ([("", 0)] * 4, answered)
    store.heal()
    clock.advance(SECOND)
    for _ in range(2):
        looked(limiter)
    assert (limiter.health.up, len(store.asked)) == (True, 5)


# --- a clock that steps


@pytest.mark.parametrize("step", [-HOUR, -2 * SECOND, -SECOND // 2, 0, SECOND, HOUR])
def test_a_clock_that_steps_neither_stops_the_probes_nor_brings_a_storm_of_them(step: int) -> None:
    at = outage()
    at.clock.advance(step)
    probes = 0
    for _ in range(50):
        at.clock.advance(100 * MS)
        for call in at.asking(10):
            probes += 1
            call.fail()
    assert 4 <= probes <= 5


# --- any order of events

EVENTS = st.one_of(
    st.tuples(st.just("call"), st.just(0)),
    st.tuples(st.sampled_from(("fail", "fail", "succeed", "cancel")), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from((1, 100 * MS, 500 * MS - 1, 500 * MS, SECOND))),
)


@given(st.lists(EVENTS, max_size=60))
def test_in_any_order_of_events_probes_are_few_and_always_come(events: list[tuple[str, int]]) -> None:
    at = shared()
    in_flight: list[Call] = []
    probe, probed_at, failures = None, -HOUR, 0
    for event, number in events:
        up = at.limiter.health.up
        if event == "wait":
            at.clock.advance(number)
        elif event == "call":
            call = at.call()
            assert call.asks or not up
            in_flight += [call] if call.asks else []
            if call.asks and not up:
                assert probe not in in_flight
                assert at.clock.now >= probed_at + 500 * MS
                probe, probed_at = call, at.clock.now
        elif in_flight:
            call = in_flight.pop(number % len(in_flight))
            getattr(call, event)()
            failures += event == "fail"
            if at.limiter.health.up != up:
                assert event == "fail" if up else call is probe and event == "succeed"
    for call in in_flight:
        call.cancel()
    assert sum(at.limiter.health.errors.values()) == failures
    at.clock.advance(SECOND)
    assert at.call().asks
