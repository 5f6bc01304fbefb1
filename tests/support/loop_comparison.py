"""Comparison of the event loop with its slow model on random populations."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import fields
from typing import Any

import pytest
from loop_model import Model
from random_populations import draw_population

from ratelab.algorithms import Policy
from ratelab.lab.closed_loop import batches, outcome
from ratelab.lab.closed_loop.behavior import Population
from ratelab.lab.closed_loop.outcome import LoopOutcome, Requests, Tries, run_loop

Tables = tuple[list[tuple[Any, ...]], list[tuple[Any, ...]], int]
"""Rows of the tries and of the requests, and the number of local rejections."""

Run = Callable[[Policy | None, Population], LoopOutcome]

Draw = Callable[[int], tuple[Policy | None, Population]]

MAX_MODEL_EVENTS = 5_000
"""Events from which on the model gives up, since some populations never end."""


def list_rows(ended: LoopOutcome) -> Tables:
    """Return all that an outcome holds, as rows."""
    traffic, tries, requests = ended.traffic, ended.tries, ended.requests
    columns = [traffic.times, traffic.clients, traffic.costs, *ended.decisions.values()]
    columns += [getattr(tries, field.name) for field in fields(Tries)]
    request_columns = [getattr(requests, field.name) for field in fields(Requests)]
    return _zip(columns), _zip(request_columns), ended.locally_rejected


def _zip(columns: list[Any]) -> list[tuple[Any, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def list_model_rows(model: Model) -> Tables:
    """Return all that a model holds after its run, as rows."""
    numbers = {id(request): number for number, request in enumerate(model.requests)}
    tries = [
        (sent.arrived, sent.client.number, sent.request.cost, *sent.row, numbers[id(sent.request)], sent.number,
         sent.sent, sent.ended, sent.result, sent.served, sent.wasted)
        for sent in model.tries
    ]  # fmt: skip
    requests = [(each.client.number, each.started, each.ended, each.tries, each.result) for each in model.requests]
    return tries, requests, model.rejected


def compare_runs(seed: int, run: Run = run_loop, draw: Draw = draw_population) -> tuple[Tables, Tables] | None:
    """Return the rows of the model and of a run of the population drawn from `seed`; None if it has too many events."""
    policy, population = draw(seed)
    model = Model(policy, population, MAX_MODEL_EVENTS)
    if not model.run():
        return None
    return list_model_rows(model), list_rows(run(policy, population))


def find_differences(seeds: Iterable[int], run: Run = run_loop, draw: Draw = draw_population) -> list[int]:
    """Return the seeds whose populations the loop treats otherwise than the model."""
    compared = ((seed, compare_runs(seed, run, draw)) for seed in seeds)
    return [seed for seed, rows in compared if rows is not None and rows[0] != rows[1]]


def shrink_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let few clients, which know each result at once, run in as many batches as thousands of clients need."""
    monkeypatch.setattr(batches, "MIN_BATCH", 2)
    monkeypatch.setattr(batches, "MIN_SPAN", 5)
    monkeypatch.setattr(outcome, "FIRST_EVENTS", 7)
