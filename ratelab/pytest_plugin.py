"""Plugin of pytest, with fixtures for tests of applications that limit requests.

It imports only the standard library until a test uses a store.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

from ratelab.errors import InputError
from ratelab.testing.clock import LimiterClock, limiter_clock
from ratelab.testing.denials import assert_limited

if TYPE_CHECKING:
    from ratelab.testing.store import EmbeddedStore


def pytest_addoption() -> None:
    """Install the clock: pytest calls this first of all, before other plugins and conftest.py create limiters."""
    limiter_clock.install()


@pytest.fixture
def ratelab_clock() -> Iterator[LimiterClock]:
    """Stop the time of every limiter; `ratelab_clock.advance(60)` moves it by seconds, `advance("1min")` by a text."""
    with limiter_clock.stop():
        yield limiter_clock


@pytest.fixture(name="assert_limited")
def _assert_limited() -> Callable[..., Any]:
    """Call a function `after` times, each of which must be admitted, and once more, which must be denied."""
    return assert_limited


@pytest.fixture(scope="session")
def _ratelab_store() -> Iterator[EmbeddedStore]:
    from ratelab.testing.store import run_store

    try:
        with run_store(lambda: limiter_clock.utc_ns) as store:
            limiter_clock.stores.add(store.path)
            yield store
    except InputError as error:
        pytest.skip(f"ratelab_store: {error}")


@pytest.fixture
def ratelab_store(_ratelab_store: EmbeddedStore) -> EmbeddedStore:
    """Return an empty embedded store, whose time `ratelab_clock` moves; `ratelab_store.url` is its URL."""
    _ratelab_store.flush()
    return _ratelab_store
