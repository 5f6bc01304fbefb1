"""Calls of a failing store: timelines, requests in flight during an outage, and random orders of events."""

from __future__ import annotations

import pytest
from failing_stores import (
    MS,
    SECOND,
    Call,
    FlakyStore,
    Service,
    create_limiter,
    decide,
    limiter_with_store_down,
    probe,
    start_outage,
    start_service,
)
from hypothesis import given
from hypothesis import strategies as st

from ratelab import Decision, ManualClock

HOUR = 3600 * SECOND

OUTAGE = "0 ok, 1 fails, 2 fails, 3 fails, 4 skipped"
TIMELINES = {
    "three consecutive failures open the circuit": OUTAGE,
    "a success resets the count": f"0 fails, 0 fails, {OUTAGE}",
    "failures may be far apart": "0 fails, 9000 fails, 18000 fails, 18000 skipped",
    "the first probe comes after half a second": f"{OUTAGE}, 502 skipped, 503 fails, 504 skipped",
    "later probes come after a second": f"{OUTAGE}, 503 fails, 1502 skipped, 1503 fails, 2502 skipped, 2503 fails",
    "one success closes the circuit": f"{OUTAGE}, 503 ok, 504 ok, 504 ok",
    "a probe succeeds after one has failed": f"{OUTAGE}, 503 fails, 1503 ok, 1503 ok",
    "an hour without requests": f"{OUTAGE}, 3600000 fails, 3600999 skipped, 3601000 ok, 3601000 ok",
    "after a recovery it takes three failures again": f"{OUTAGE}, 503 ok, 600 fails, 600 fails, 601 fails, 602 skipped",
    "after a recovery the first probe is early": f"{OUTAGE}, 503 fails, 1503 ok, 1600 fails, 1600 fails, 1600 fails, "
    "2099 skipped, 2100 fails",
}
"""Requests at times in milliseconds: the call of the store succeeds, fails or is skipped."""


def check_timeline(timeline: str) -> None:
    """Check that the store is called exactly for the requests that are not skipped."""
    store, clock = FlakyStore(), ManualClock()
    limiter = create_limiter(store, "open", clock)
    for event in timeline.split(", "):
        at, outcome = event.split()
        clock.now = int(at) * MS
        store.calls.clear()
        store.recover() if outcome == "ok" else store.fail()
        assert decide(limiter, cost=0).allowed
        assert len(store.calls) == (outcome != "skipped"), event


@pytest.mark.usefixtures("both_forms")
@pytest.mark.parametrize("name", TIMELINES)
def test_a_failing_store_is_called_as_documented(name: str) -> None:
    check_timeline(TIMELINES[name])


# --- requests in flight


def test_requests_in_flight_when_the_store_dies_do_not_call_again() -> None:
    service = start_outage(in_flight=200)
    assert service.limiter.health == (False, {"timeout": 600}, 600)
    service.clock.advance(499 * MS)
    assert service.pending_calls(600) == []
    service.clock.advance(MS)
    assert len(service.pending_calls(600)) == 1


def test_requests_that_fail_together_are_one_failure() -> None:
    service = start_service()
    for _ in range(2):
        for call in service.pending_calls(600):
            call.fail()
    third = service.call()
    assert third.pending
    third.fail()
    assert not service.limiter.health.up


def test_one_request_at_a_time_probes_however_long_it_takes() -> None:
    service = start_outage()
    service.clock.advance(500 * MS)
    (call,) = service.pending_calls(10)
    service.clock.advance(HOUR)
    assert service.pending_calls(10) == []
    call.fail()
    service.clock.advance(SECOND)
    assert len(service.pending_calls(10)) == 1


def test_a_cancelled_probe_permits_another() -> None:
    service = start_outage()
    service.clock.advance(500 * MS)
    service.pending_calls(1)[0].cancel()
    assert service.pending_calls(10) == []
    service.clock.advance(500 * MS)
    assert len(service.pending_calls(10)) == 1


def test_the_shared_state_is_back_within_two_seconds_of_the_store() -> None:
    service = start_outage()
    service.clock.advance(500 * MS)
    (call,) = service.pending_calls(1)
    back = service.clock.now + 1  # too late for the probe that is in flight
    service.clock.advance(100 * MS)
    call.fail()
    while not service.limiter.health.up:
        service.clock.advance(MS)
        for call in service.pending_calls(1):
            call.succeed()
    assert service.clock.now - back < 2 * SECOND


def start_outage_with_late_call(on_store_error: str = "open") -> tuple[Call, Service]:
    """Return a call that is still in flight when the store goes down."""
    service = start_service(on_store_error)
    late = service.call()
    for _ in range(3):
        service.call().fail()
    assert not service.limiter.health.up
    return late, service


def test_a_failure_from_before_the_recovery_does_not_count() -> None:
    late, service = start_outage_with_late_call()
    service.clock.advance(500 * MS)
    service.call().succeed()
    late.fail()
    service.call().fail()
    service.call().fail()
    assert service.limiter.health == (True, {"timeout": 6}, 6)


def test_a_failure_from_before_the_outage_does_not_delay_the_next_probe() -> None:
    late, service = start_outage_with_late_call()
    service.clock.advance(450 * MS)
    late.fail()
    service.clock.advance(50 * MS)
    assert len(service.pending_calls(10)) == 1


def test_a_success_from_before_the_outage_counts_but_does_not_end_it() -> None:
    late, service = start_outage_with_late_call("local")
    late.succeed()
    assert late.outcome == Decision(True, 4, 0, SECOND, 0)
    # three local decisions, and the charge for the late one
    assert (service.limiter.health.up, decide(service.limiter, cost=0).remaining) == (False, 1)


# --- without requests


@pytest.mark.usefixtures("both_forms")
def test_probe_detects_a_recovery_without_requests() -> None:
    store, clock = FlakyStore(), ManualClock()
    limiter = limiter_with_store_down(store, "closed", clock)
    before = limiter.health.fallback_decisions
    for _ in range(40):
        clock.advance(100 * MS)
        probe(limiter)
    assert (store.calls, limiter.health.fallback_decisions) == ([("", 0)] * 4, before)
    store.recover()
    clock.advance(SECOND)
    for _ in range(2):
        probe(limiter)
    assert (limiter.health.up, len(store.calls)) == (True, 5)


# --- clock steps


@pytest.mark.parametrize("step", [-HOUR, -2 * SECOND, -SECOND // 2, 0, SECOND, HOUR])
def test_a_clock_step_neither_stops_the_probes_nor_multiplies_them(step: int) -> None:
    service = start_outage()
    service.clock.advance(step)
    probes = 0
    for _ in range(50):
        service.clock.advance(100 * MS)
        for call in service.pending_calls(10):
            probes += 1
            call.fail()
    assert 4 <= probes <= 5


# --- random orders of events

EVENTS = st.one_of(
    st.tuples(st.just("call"), st.just(0)),
    st.tuples(st.sampled_from(("fail", "fail", "succeed", "cancel")), st.integers(0, 9)),
    st.tuples(st.just("wait"), st.sampled_from((1, 100 * MS, 500 * MS - 1, 500 * MS, SECOND))),
)


@given(st.lists(EVENTS, max_size=60))
def test_probes_are_few_and_never_cease_in_any_order_of_events(events: list[tuple[str, int]]) -> None:
    service = start_service()
    in_flight: list[Call] = []
    latest_probe, probed_at, failures = None, -HOUR, 0
    for event, number in events:
        up = service.limiter.health.up
        if event == "wait":
            service.clock.advance(number)
        elif event == "call":
            call = service.call()
            assert call.pending or not up
            in_flight += [call] if call.pending else []
            if call.pending and not up:
                assert latest_probe not in in_flight
                assert service.clock.now >= probed_at + 500 * MS
                latest_probe, probed_at = call, service.clock.now
        elif in_flight:
            call = in_flight.pop(number % len(in_flight))
            getattr(call, event)()
            failures += event == "fail"
            if service.limiter.health.up != up:
                assert event == "fail" if up else call is latest_probe and event == "succeed"
    for call in in_flight:
        call.cancel()
    assert sum(service.limiter.health.errors.values()) == failures
    service.clock.advance(SECOND)
    assert service.call().pending
