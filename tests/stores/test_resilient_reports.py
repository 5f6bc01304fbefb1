"""What the operator learns of a store that fails: counters, and one line for each change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from failing_stores import MS, SECOND, Call, Flaky, Held, decided

from ratelab import ManualClock
from ratelab.stores.resilient import ResilientLimiter


@contextmanager
def heard() -> Iterator[list[logging.LogRecord]]:
    """Listen to what is told meanwhile."""
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("ratelab")
    handler.emit = records.append  # type: ignore[assignment]
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


def test_failures_are_counted_by_kind_and_answers_without_the_store_one_by_one() -> None:
    store, clock = Flaky(), ManualClock()
    limiter = ResilientLimiter(store, "open", clock)
    for kind in ("timeout", "unreachable", "timeout", "full", "full"):
        store.fail(kind)
        decided(limiter)
    assert limiter.health == (False, {"timeout": 2, "unreachable": 1}, 5)
    clock.advance(SECOND)
    decided(limiter)
    assert limiter.health == (False, {"timeout": 2, "unreachable": 1, "full": 1}, 6)


@pytest.mark.parametrize(
    ("on_store_error", "meanwhile", "became"),
    [
        ("local", "each process enforces the quota by itself", "decided without it"),
        ("open", "every key is treated as new", "decided without it"),
        ("closed", "every request is denied", "rejected because the store was down"),
    ],
)
def test_the_operator_is_told_once_that_the_store_is_down_and_once_that_it_is_back(
    on_store_error: str, meanwhile: str, became: str
) -> None:
    clock = ManualClock()
    limiter = ResilientLimiter(Held(), on_store_error, clock)
    with heard() as records:
        for _ in range(20):
            for call in [Call(limiter, "canary") for _ in range(100)]:
                call.fail()
            clock.advance(100 * MS)
        clock.advance(SECOND)
        Call(limiter, "canary").succeed()
    assert [record.levelname for record in records] == ["WARNING"] * 2
    assert [record.getMessage() for record in records] == [
        f"the store is down (timeout: no answer in 100 ms); until it is back, {meanwhile}",
        f"the store is back after 2.8 s; requests {became}: 2000",
    ]


def test_an_errors_text_is_told_in_one_line() -> None:
    store = Flaky()
    limiter = ResilientLimiter(store, "open", ManualClock())
    store.fail("other", "ERR\r\nforged: line\n")
    with heard() as records:
        for _ in range(3):
            decided(limiter)
    (told,) = (record.getMessage() for record in records)
    assert told.startswith("the store is down (other: ERR forged: line); ")
