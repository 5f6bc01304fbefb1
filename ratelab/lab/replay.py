"""Replay of traffic through a policy: compiled where that pays, otherwise in plain Python, with the same decisions."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from importlib.util import find_spec

import numpy as np

from ratelab.algorithms import traits_of
from ratelab.errors import SlowWarning, install_hint
from ratelab.lab import python_engine
from ratelab.lab.decisions import ADMISSION_FIELDS, DECISION_DTYPE, FIGURE_FIELDS, Columns, Outcome, Progress
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm, Decision, Policy

MIN_COMPILED_DECISIONS = 1_250_000
"""Decisions of a command from which on loading the compiler takes less time than it saves."""

MIN_ADVISED_DECISIONS = 10_000_000
"""Decisions from which on a user without the compiler is advised to install it."""

_NO_DELAY = np.int64(0)


def replay(
    policy: Policy,
    traffic: Traffic,
    fields: Sequence[str] = Decision._fields,
    progress: Progress = lambda _: None,
    replays: int = 1,
) -> Outcome:
    """Decide every request of `traffic`, each key from a new state; return the columns of `fields`.

    `replays` is how often the traffic is replayed in all, by which the engine is chosen.
    Raises `InputError` if a third-party algorithm fails or does not return five integers.
    """
    traits = traits_of(policy.algorithm)
    if tuple(fields) == FIGURE_FIELDS and traits.bound is not None and not traits.queues:
        columns = _decide(policy.algorithm, traffic, ADMISSION_FIELDS, progress, replays)
        return Outcome(policy, traffic, {**columns, "delay_ns": np.broadcast_to(_NO_DELAY, len(traffic))})
    return Outcome(policy, traffic, _decide(policy.algorithm, traffic, fields, progress, replays))


def has_compiler() -> bool:
    """Return whether Numba, the compiler of the extra `fast`, is installed."""
    return find_spec("numba") is not None


def uses_compiler(traffic: Traffic, replays: int) -> bool:
    """Return whether traffic that is replayed so often is replayed by compiled code, if the algorithm allows it."""
    return replays * len(traffic) >= MIN_COMPILED_DECISIONS and has_compiler()


def suggest_compiler(traffic: Traffic, replays: int) -> None:
    """Warn a user without the compiler if replaying traffic so often takes long."""
    decisions = replays * len(traffic)
    if decisions < MIN_ADVISED_DECISIONS or has_compiler():
        return
    minutes = max(1, round(decisions / 1_000_000 / 60))
    _warn(
        f"plain Python takes about {minutes} min for {decisions:,} decisions, compiled code a hundredth of that: "
        f"{install_hint('fast')}"
    )


def allocate_columns(traffic: Traffic, fields: Sequence[str]) -> Columns:
    """Allocate a column for each of these fields of a decision, with a value for each request."""
    return {field: traffic.allocate(DECISION_DTYPE[field]) for field in fields}


def _decide(algorithm: Algorithm, traffic: Traffic, fields: Sequence[str], progress: Progress, replays: int) -> Columns:
    columns = allocate_columns(traffic, fields)
    if uses_compiler(traffic, replays):
        from ratelab.lab import compiled  # it needs Numba, which is optional, and slow to import

        try:
            compiled.decide(algorithm, traffic, columns, progress)
        except compiled.UnfitError as error:
            _warn(f"{algorithm.name} is replayed in plain Python, a hundred times slower: {error}")
        else:
            return columns
    python_engine.decide(algorithm, traffic, columns, progress)
    return columns


def _warn(message: str) -> None:
    warnings.warn(message, SlowWarning, stacklevel=4)
