"""Fixtures: a clock that moves the limiters of one test alone, and a store that decides by it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from ratelab.clock import default_clocks
from ratelab.stores.valkey import script
from ratelab.testing import LimiterClock
from ratelab.testing.store import EmbeddedStore, run_store

CLOCK = LimiterClock()


@pytest.fixture
def process(monkeypatch: pytest.MonkeyPatch) -> Iterator[LimiterClock]:
    """Let the limiters of a test follow a clock that runs.

    Limiters in stores that the caches of frameworks keep from other tests are forgotten: the clock would warn of them.
    """
    monkeypatch.setattr(script, "_live", {})
    before = dict(vars(default_clocks))
    CLOCK.install()
    yield CLOCK
    vars(default_clocks).update(before)


@pytest.fixture
def clock(process: LimiterClock) -> Iterator[LimiterClock]:
    """Let the limiters of a test follow a clock that is stopped."""
    with process.stop():
        yield process


@pytest.fixture(scope="module")
def _embedded() -> Iterator[EmbeddedStore]:
    with run_store(lambda: CLOCK.utc_ns) as store:
        CLOCK.stores.add(store.path)
        yield store


@pytest.fixture
def embedded(_embedded: EmbeddedStore) -> EmbeddedStore:
    """Return a store that follows the clock."""
    _embedded.flush()
    return _embedded
