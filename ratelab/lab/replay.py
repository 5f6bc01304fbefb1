"""An algorithm driven over traffic: compiled where that pays, else in plain Python, with the same decisions."""

from __future__ import annotations

import ast
import warnings
from collections.abc import Sequence
from functools import cache
from inspect import getsource
from textwrap import dedent

import numpy as np

from ratelab.algorithms.plugins import is_ours
from ratelab.errors import SlowWarning, install_hint
from ratelab.lab import compiled, python_engine
from ratelab.lab.decisions import ADMITTED, DECISION, FIGURED, Columns, Decisions, Outcome, Progress, allocate_columns
from ratelab.lab.spill import Column
from ratelab.lab.traffic import Asked
from ratelab.limiter import Algorithm, Decision

MIN_COMPILED_REQUESTS = 250_000
"""Requests from which on loading a compiler takes less time than it saves."""

MIN_ADVISED_DECISIONS = 10_000_000
"""Decisions from which on a person may want to know how they would go faster."""


def replay(algorithm: Algorithm, traffic: Asked, progress: Progress = lambda _: None) -> Decisions:
    """Decide every request of `traffic`, each key's in turn from a state of its own; all is held in memory.

    Raises `InputError` if an algorithm from outside fails or does not return five numbers.
    """
    rows = np.empty(len(traffic), DECISION)
    for name, column in _decide(algorithm, traffic, Decision._fields, progress).items():
        rows[name] = column[:]
    return rows


def replay_columns(algorithm: Algorithm, traffic: Asked, progress: Progress = lambda _: None) -> Outcome:
    """Do the same for who only asks what was admitted, and after what delay."""
    if is_ours(algorithm) and _never_queues(type(algorithm)):
        return {**_decide(algorithm, traffic, ADMITTED, progress), "delay_ns": np.broadcast_to(_NO_DELAY, len(traffic))}
    return _decide(algorithm, traffic, FIGURED, progress)


def replay_allowed(algorithm: Algorithm, traffic: Asked) -> Column:
    """Do the same for who only asks what was admitted."""
    return _decide(algorithm, traffic, ADMITTED, lambda _: None)["allowed"]


def suggest_compiler(traffic: Asked, algorithms: int) -> None:
    """Tell whoever has no compiler, and will wait long for so many algorithms, what one would save."""
    decisions = algorithms * len(traffic)
    if decisions < MIN_ADVISED_DECISIONS or len(traffic) < MIN_COMPILED_REQUESTS or compiled.is_installed():
        return
    minutes = max(1, round(decisions / 1_000_000 / 60))
    _tell(
        f"plain Python takes some {minutes} min to make {decisions:,} decisions, "
        f"compiled code a hundredth of that: {install_hint('fast')}"
    )


_NO_DELAY = np.int64(0)


@cache
def _never_queues(kind: type[Algorithm]) -> bool:
    """Say whether the step's text gives 0 for every delay."""
    text = ast.parse(dedent(getsource(kind.step)))
    returned = [node.value for node in ast.walk(text) if isinstance(node, ast.Return)]
    return all(isinstance(row, ast.Tuple) and ast.unparse(row.elts[-1]) == "0" for row in returned)


def _decide(algorithm: Algorithm, traffic: Asked, fields: Sequence[str], progress: Progress) -> Columns:
    columns = allocate_columns(traffic, fields)
    if len(traffic) >= MIN_COMPILED_REQUESTS and compiled.is_installed():
        try:
            compiled.decide(algorithm, traffic, columns, progress)
        except compiled.UnfitError as error:
            _tell(f"{algorithm.name} is replayed in plain Python, a hundred times as slow: {error}")
        else:
            return columns
    python_engine.decide(algorithm, traffic, columns, progress)
    return columns


def _tell(message: str) -> None:
    warnings.warn(message, SlowWarning, stacklevel=4)
