"""Comparison of the compiled engine with plain Python on random traffic."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ratelab import Algorithm, Quota
from ratelab.lab import compiled
from ratelab.lab.replay import allocate_columns, decide_in_python
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS

QUOTA = Quota.parse("7/13s", 10)


def draw_traffic(quota: Quota, origin: int = 0, requests: int = 3_000, clients: int = 40) -> Traffic:
    """Draw requests of a few popular and many rare clients, with costs around the burst and quiet times."""
    random = np.random.default_rng(requests)
    gaps = random.choice(
        [0, 1, quota.window // 50, quota.window // 7, 3 * quota.window], requests, p=[0.4, 0.1, 0.3, 0.19, 0.01]
    )
    times = np.cumsum(gaps)
    numbers = np.minimum(random.zipf(1.3, requests), clients) - 1
    costs = random.choice([0, 1, 2, quota.burst, quota.burst + 1], requests, p=[0.05, 0.6, 0.2, 0.1, 0.05])
    names = tuple(map(str, range(clients)))
    return Traffic(times, numbers, costs, names, np.arange(clients) // 2, int(times[-1]) + 1, origin)


def ignore_progress(_: int) -> None:
    """Do nothing with the number of decided requests."""


def assert_same(algorithm: Algorithm, traffic: Traffic, fields: Sequence[str] = ROW_FIELDS) -> None:
    """Check that compiled code fills the columns of `fields` as plain Python does."""
    expected, compiled_columns = allocate_columns(traffic, ROW_FIELDS), allocate_columns(traffic, fields)
    decide_in_python(algorithm, traffic, expected, ignore_progress)
    compiled.decide(algorithm, traffic, compiled_columns, ignore_progress)
    for field, column in compiled_columns.items():
        assert column.tolist() == expected[field].tolist(), field
