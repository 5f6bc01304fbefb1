"""The comparison with the model catches each named bug of the event loop."""

from __future__ import annotations

from functools import cache

import pytest
from loop_comparison import MAX_MODEL_EVENTS, Draw, Tables, list_model_rows, list_rows, shrink_batches
from loop_model import Model
from loop_mutants import INSTANT_LOOPS, LOOPS
from random_populations import draw_instant_population, draw_population

from ratelab.lab.closed_loop import outcome

MAX_SEEDS = 1_500


@cache
def model_rows(draw: Draw, seed: int) -> Tables | None:
    model = Model(*draw(seed), MAX_MODEL_EVENTS)
    return list_model_rows(model) if model.run() else None


def is_caught(draw: Draw, seed: int) -> bool:
    rows = model_rows(draw, seed)
    if rows is None:
        return False
    try:
        return list_rows(outcome.run_loop(*draw(seed))) != rows
    except Exception:  # an error catches it, too
        return True


@pytest.mark.slow
@pytest.mark.parametrize("name", LOOPS)
def test_each_bug_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(*LOOPS[name])
    monkeypatch.setattr(outcome, "MAX_TRIES", 20_000)
    assert any(is_caught(draw_population, seed) for seed in range(MAX_SEEDS)), name


@pytest.mark.slow
@pytest.mark.parametrize("name", INSTANT_LOOPS)
def test_each_bug_in_batches_is_caught(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    shrink_batches(monkeypatch)
    monkeypatch.setattr(*INSTANT_LOOPS[name])
    monkeypatch.setattr(outcome, "MAX_TRIES", 20_000)
    assert any(is_caught(draw_instant_population, seed) for seed in range(MAX_SEEDS)), name
