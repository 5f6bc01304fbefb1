"""The event loop treats random populations exactly as a slow model of objects does."""

from __future__ import annotations

import pytest
from loop_comparison import find_differences


def test_every_try_and_every_request_are_those_of_the_model() -> None:
    assert find_differences(range(100)) == []


@pytest.mark.slow
def test_thousands_of_populations_are_those_of_the_model() -> None:
    assert find_differences(range(1_000, 3_000)) == []
