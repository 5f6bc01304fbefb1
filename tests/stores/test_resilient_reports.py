"""Reports of a failing store: counters, and one log line for each change."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from failing_stores import MS, SECOND, Call, FlakyStore, PendingStore, create_limiter, decide, finish

from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.errors import StoreError
from ratelab.stores.resilient import ResilientLimiter


@contextmanager
def captured_log() -> Iterator[list[logging.LogRecord]]:
    """Collect the records that are logged during the block."""
    records: list[logging.LogRecord] = []
    handler, logger = logging.Handler(), logging.getLogger("ratelab")
    handler.emit = records.append  # type: ignore[assignment]
    logger.addHandler(handler)
    yield records
    logger.removeHandler(handler)


@pytest.mark.usefixtures("both_forms")
def test_failures_are_counted_by_kind_and_fallback_decisions_one_by_one() -> None:
    store, clock = FlakyStore(), ManualClock()
    limiter = create_limiter(store, "open", clock)
    for kind in ("timeout", "unreachable", "timeout", "full", "full"):
        store.fail(kind)
        decide(limiter)
    assert limiter.health == (False, {"timeout": 2, "unreachable": 1}, 5)
    clock.advance(SECOND)
    decide(limiter)
    assert limiter.health == (False, {"timeout": 2, "unreachable": 1, "full": 1}, 6)


@pytest.mark.parametrize(
    ("on_store_error", "meanwhile", "outcome"),
    [
        ("local", "each process enforces the quota by itself", "decided without it"),
        ("open", "every key is treated as new", "decided without it"),
        ("closed", "every request is denied", "rejected because the store was down"),
    ],
)
def test_an_outage_and_its_end_are_logged_once_each(on_store_error: str, meanwhile: str, outcome: str) -> None:
    clock = ManualClock()
    limiter = ResilientLimiter(PendingStore(), on_store_error, clock)
    with captured_log() as records:
        for _ in range(20):
            for call in [Call(limiter, "canary") for _ in range(100)]:
                call.fail()
            clock.advance(100 * MS)
        clock.advance(SECOND)
        Call(limiter, "canary").succeed()
    assert [record.levelname for record in records] == ["WARNING"] * 2
    assert [record.getMessage() for record in records] == [
        f"the store is down (timeout: no answer in 100 ms); meanwhile, {meanwhile}",
        f"the store is back after 2.8 s; requests {outcome}: 2000",
    ]


@pytest.mark.usefixtures("both_forms")
@pytest.mark.parametrize("on_store_error", ["open", "closed"])
def test_shadow_policies_alone_deny_nothing_during_an_outage(on_store_error: str) -> None:
    store = FlakyStore(Policy.create("gcra", "1/h", name="shadow", shadow=True))
    limiter = create_limiter(store, on_store_error, clock := ManualClock())
    store.fail()
    with captured_log() as records:
        assert all(decide(limiter).allowed for _ in range(3))
        store.recover()
        clock.advance(SECOND)
        assert decide(limiter).allowed
    down, back = (record.getMessage() for record in records)
    assert down.endswith("meanwhile, every key is treated as new")
    assert back.endswith("requests decided without it: 3")


@pytest.mark.usefixtures("both_forms")
@pytest.mark.parametrize("asked", ["shadow", "enforced"])
def test_with_closed_a_hit_of_shadow_policies_alone_is_admitted(asked: str) -> None:
    shadow = Policy.create("gcra", "1/h", name="shadow", shadow=True)
    store = FlakyStore()
    store.memory = MemoryLimiter([shadow, Policy.create("gcra", "1/h", name="enforced")], ManualClock())
    limiter = create_limiter(store, "closed", ManualClock())
    store.fail()
    if asked == "shadow":
        assert finish(limiter.hit({"shadow": "canary"})).allowed
    else:
        with pytest.raises(StoreError, match="no answer"):
            finish(limiter.hit({"shadow": "canary", "enforced": "canary"}))


@pytest.mark.usefixtures("both_forms")
def test_an_error_message_is_logged_in_one_line() -> None:
    store = FlakyStore()
    limiter = create_limiter(store, "open", ManualClock())
    store.fail("other", "ERR\r\nforged: line\n")
    with captured_log() as records:
        for _ in range(3):
            decide(limiter)
    (message,) = (record.getMessage() for record in records)
    assert message.startswith("the store is down (other: ERR forged: line); ")
