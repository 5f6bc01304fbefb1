"""Limiters in this process keep the promises of the limiter suite; a new one is one factory here."""

from __future__ import annotations

import io
from contextlib import AbstractContextManager

import pytest
from contracts import build_or_reject, timelines
from failing_stores import BlockingStore, FlakyStore
from hypothesis import given
from limiter_subjects import Factory, Subject, call_in_tasks, call_in_threads
from limiter_suite import CLOCK_PROMISES, PROMISES, TimelinePromise
from slow_parameters import mark_slow

from ratelab import Algorithm, ManualClock, MemoryLimiter, Policy
from ratelab.lab.conformance import Timeline
from ratelab.stores.blocking_resilient import BlockingResilientLimiter
from ratelab.stores.recording import RecordingLimiter
from ratelab.stores.resilient import ResilientLimiter


def memory(policy: Policy, start: int) -> AbstractContextManager[Subject]:
    clock = ManualClock(start)
    return call_in_threads(MemoryLimiter(policy, clock), clock)


def recording(policy: Policy, start: int) -> AbstractContextManager[Subject]:
    clock = ManualClock(start)
    return call_in_threads(RecordingLimiter(policy, io.StringIO(), clock), clock)


def resilient_with_store(policy: Policy, start: int) -> AbstractContextManager[Subject]:
    clock = ManualClock(start)
    return call_in_tasks(ResilientLimiter(FlakyStore(policy, clock), clock=clock), clock)


def resilient_without_store(policy: Policy, start: int) -> AbstractContextManager[Subject]:
    clock = ManualClock(start)
    store = FlakyStore(policy, clock)
    store.fail()
    return call_in_tasks(ResilientLimiter(store, "local", clock), clock)


def blocking_with_store(policy: Policy, start: int) -> AbstractContextManager[Subject]:
    clock = ManualClock(start)
    store = BlockingStore(FlakyStore(policy, clock))
    return call_in_threads(BlockingResilientLimiter(store, clock=clock), clock)


def blocking_without_store(policy: Policy, start: int) -> AbstractContextManager[Subject]:
    clock = ManualClock(start)
    store = FlakyStore(policy, clock)
    store.fail()
    return call_in_threads(BlockingResilientLimiter(BlockingStore(store), "local", clock), clock)


IN_PROCESS: list[Factory] = [
    memory,
    recording,
    resilient_with_store,
    resilient_without_store,
    blocking_with_store,
    blocking_without_store,
]

FAST = [make for make in IN_PROCESS if not make.__name__.startswith("blocking")]  # whose core is that of resilient

every_limiter_in_process = pytest.mark.parametrize("make", mark_slow(IN_PROCESS, FAST), ids=lambda make: make.__name__)
every_clock_promise = pytest.mark.parametrize("promise", CLOCK_PROMISES, ids=lambda promise: promise.__name__)


@every_limiter_in_process
def test_a_limiter_in_process_keeps_every_promise(make: Factory, kind: type[Algorithm]) -> None:
    for promise in PROMISES:
        promise(make, kind)


@pytest.mark.slow
@given(timeline=timelines)
def test_no_clock_makes_the_memory_limiter_break_a_contract(kind: type[Algorithm], timeline: Timeline) -> None:
    for promise in CLOCK_PROMISES:
        promise(memory, build_or_reject(kind, timeline.quota), timeline)


@pytest.mark.slow
@every_clock_promise
@pytest.mark.parametrize("make", IN_PROCESS[1:], ids=lambda make: make.__name__)
@given(timeline=timelines)
def test_no_clock_makes_a_limiter_break_a_contract(
    make: Factory, promise: TimelinePromise, kind: type[Algorithm], timeline: Timeline
) -> None:
    promise(make, build_or_reject(kind, timeline.quota), timeline)
