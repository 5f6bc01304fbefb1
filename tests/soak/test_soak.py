"""A short soak keeps its promises."""

from __future__ import annotations

import pytest
from soak import run_soak

SHORT_SEED = 123
"""A seed with which all faults are over after eight seconds of load."""


@pytest.mark.slow
def test_no_fault_loses_a_request_or_freezes_a_service() -> None:
    report = run_soak(seconds=9, seed=SHORT_SEED, max_frozen_s=20)
    assert report.broken == [], report.figures
