"""An algorithm driven over traffic: compiled where that pays, else in plain Python, with the same decisions."""

from __future__ import annotations

import warnings

import numpy as np

from ratelab.errors import SlowWarning
from ratelab.lab import compiled, plain
from ratelab.lab.decisions import DECISION, Decisions, Outcome, Progress
from ratelab.lab.stored import Column
from ratelab.lab.traffic import Asked
from ratelab.limiter import Algorithm

WORTH_COMPILING = 250_000
"""Requests from which on loading a compiler takes less time than it saves."""


WORTH_TELLING = 2_000_000
"""Requests from which on a person may want to know how it would go faster."""


def replay(algorithm: Algorithm, traffic: Asked, progress: Progress = lambda _: None) -> Decisions:
    """Decide every request of `traffic`, each key's in turn from a state of its own; all is held in memory.

    Raises `InputError` if an algorithm from outside fails or does not return five numbers.
    """
    rows = np.empty(len(traffic), DECISION)
    for name, column in _decide(algorithm, traffic, True, progress).items():
        rows[name] = column[:]
    return rows


def outcome(algorithm: Algorithm, traffic: Asked, progress: Progress = lambda _: None) -> Outcome:
    """Do the same for who only asks what was admitted, and after what delay."""
    return _decide(algorithm, traffic, False, progress)


def _decide(algorithm: Algorithm, traffic: Asked, complete: bool, progress: Progress) -> dict[str, Column]:
    if len(traffic) >= WORTH_COMPILING and compiled.is_installed():
        try:
            return compiled.decide(algorithm, traffic, complete, progress)
        except compiled.UnfitError as error:
            _tell(f"{algorithm.name} is replayed in plain Python, a hundred times as slow: {error}")
    elif len(traffic) >= WORTH_TELLING:
        minutes = len(traffic) // 1_000_000 / 60
        _tell(
            f"plain Python takes some {minutes:.1f} min for each algorithm to decide {len(traffic):,} requests, "
            "compiled code a fiftieth of that: pip install 'ratelab[fast]'"
        )
    return plain.decide(algorithm, traffic, complete, progress)


def _tell(message: str) -> None:
    warnings.warn(message, SlowWarning, stacklevel=4)
