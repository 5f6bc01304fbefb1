"""Errors cross process boundaries unchanged."""

from __future__ import annotations

import pickle
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_all_start_methods, get_context

import pytest

from ratelab import InputError
from ratelab.documents import DocumentError
from ratelab.errors import ConfigurationWarning, SlowWarning, StoreError
from ratelab.http.identity import AmbiguousClientError
from ratelab.stores.valkey import ValkeyLimiter

ERRORS = [
    StoreError("full", "OOM command not allowed", 7),
    InputError("burst must be a whole number >= 1, got 0"),
    DocumentError("burst.yaml:9: size", 9),
    AmbiguousClientError("the header is sent twice"),
    ConfigurationWarning("set a secret"),
    SlowWarning("plain Python replays it"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_a_pickled_error_keeps_its_type_text_and_attributes(error: Exception) -> None:
    error.add_note("in the worker")
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        copy = pickle.loads(pickle.dumps(error, protocol))  # noqa: S301  (pickled here)
        assert (type(copy), str(copy), copy.args, vars(copy)) == (type(error), str(error), error.args, vars(error))


def hit_unreachable_store() -> bool:
    return ValkeyLimiter("valkey://127.0.0.1:1", "token-bucket", "5/s").hit("alice").allowed


@pytest.mark.slow
@pytest.mark.parametrize("method", get_all_start_methods())
def test_a_process_pool_returns_the_error_of_a_store_and_keeps_working(method: str) -> None:
    with ProcessPoolExecutor(1, mp_context=get_context(method)) as pool:
        for _ in range(2):
            with pytest.raises(StoreError) as caught:
                pool.submit(hit_unreachable_store).result(timeout=60)
            assert (caught.value.kind, caught.value.retry_after_ns) == ("unreachable", 10**9)
            assert "refused" in str(caught.value)
