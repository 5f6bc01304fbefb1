"""Mutants of kernels, each caught by a named contract."""

from __future__ import annotations

import random
from collections.abc import Callable
from functools import cache

import pytest
from kernel_mutants import KERNELS, Mutant

from ratelab import Algorithm
from ratelab.lab.conformance import MOVES, ORIGINS, QUOTAS, Timeline

_draw = random.Random(20)
TIMELINES = [Timeline(_draw.choice(QUOTAS), _draw.choice(ORIGINS), _draw.choices(MOVES, k=20)) for _ in range(100)]
"""More than needed to catch each mutant; test_contracts.py checks the kernels on thousands."""


@cache  # each original is checked once, not once for each of its mutants
def keeps(promise: Callable[[Algorithm, Timeline], None], kind: type[Algorithm]) -> None:
    for timeline in TIMELINES:
        promise(kind.from_quota(timeline.quota), timeline)


@pytest.mark.parametrize("mutant", KERNELS.values(), ids=KERNELS.keys())
def test_a_mutant_of_a_kernel_breaks_its_contract(mutant: Mutant) -> None:
    keeps(mutant.breaks, mutant.original)
    with pytest.raises(AssertionError):
        keeps(mutant.breaks, mutant.made)
