"""Mutants of the clock and the store of tests, each caught by a check of its promise."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import Any

import pytest
import test_embedded_store as stores
import test_limiter_clock as clocks
from mutate import Mutant, mutate

from ratelab.testing import LimiterClock, store
from ratelab.testing.store import EmbeddedStore

pytest_plugins = ["clock_fixtures"]

pytestmark = pytest.mark.slow

MUTANTS: dict[str, tuple[Mutant, Callable[..., Any], dict[str, Any]]] = {
    "lets time run on": (
        mutate(LimiterClock, "__call__", "else self._stopped_at", "else self._stopped_at + read_machine() % 10**6"),
        clocks.test_time_stands_still,
        {"name": "gcra"},
    ),
    "lets the time of old limiters go back": (
        mutate(LimiterClock, "_create_aligned_clock", " + ahead[stops]", ""),
        clocks.test_no_time_goes_back_from_test_to_test,
        {"name": "fixed-window"},
    ),
    "lets windows of old limiters begin at any time": (
        mutate(LimiterClock, "stop", "-(-one // day) * day", "one + 1"),
        clocks.test_windows_of_old_limiters_begin_with_each_test,
        {},
    ),
    "begins at any time of the day": (
        mutate(LimiterClock, "stop", "// day + 1) * day", "+ 1)"),
        clocks.test_windows_begin_with_the_test,
        {},
    ),
    "lets keys of the store expire": (
        Mutant(store, "_STOPPED_TIME", store._STOPPED_TIME.partition("\n")[0]),
        stores.test_time_stands_still_and_no_key_expires,
        {},
    ),
    "leaves the time of the store as it is": (
        mutate(EmbeddedStore, "rewrite", "self._utc_ns()", "None"),
        stores.test_a_client_is_admitted_after_the_promised_wait_and_not_before,
        {"policies": stores.POLICIES["gcra"]},
    ),
}


@pytest.mark.parametrize(("mutant", "check", "given"), MUTANTS.values(), ids=MUTANTS.keys())
def test_a_mutant_is_caught(
    mutant: Mutant,
    check: Callable[..., None],
    given: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setattr(*mutant)
    fixtures = {name: request.getfixturevalue(name) for name in signature(check).parameters if name not in given}
    with pytest.raises(AssertionError):
        check(**given, **fixtures)
