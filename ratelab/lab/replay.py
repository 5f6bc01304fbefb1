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

MIN_COMPILED_REQUESTS = 250_000
"""Requests from which on loading the compiler takes less time than it saves."""

MIN_ADVISED_DECISIONS = 10_000_000
"""Decisions from which on a user without the compiler is advised to install it."""

_NO_DELAY = np.int64(0)


def replay(
    policy: Policy, traffic: Traffic, fields: Sequence[str] = Decision._fields, progress: Progress = lambda _: None
) -> Outcome:
    """Decide every request of `traffic`, each key from a new state; return the columns of `fields`.

    Raises `InputError` if a third-party algorithm fails or does not return five integers.
    """
    traits = traits_of(policy.algorithm)
    if tuple(fields) == FIGURE_FIELDS and traits.bound is not None and not traits.queues:
        columns = _decide(policy.algorithm, traffic, ADMISSION_FIELDS, progress)
        return Outcome(policy, traffic, {**columns, "delay_ns": np.broadcast_to(_NO_DELAY, len(traffic))})
    return Outcome(policy, traffic, _decide(policy.algorithm, traffic, fields, progress))


def has_compiler() -> bool:
    """Return whether Numba, the compiler of the extra `fast`, is installed."""
    return find_spec("numba") is not None


def uses_compiler(traffic: Traffic) -> bool:
    """Return whether traffic is replayed by compiled code, if its algorithm can be compiled."""
    return len(traffic) >= MIN_COMPILED_REQUESTS and has_compiler()


def suggest_compiler(traffic: Traffic, policies: int) -> None:
    """Warn a user without the compiler if replaying traffic through `policies` policies takes long."""
    decisions = policies * len(traffic)
    if decisions < MIN_ADVISED_DECISIONS or len(traffic) < MIN_COMPILED_REQUESTS or has_compiler():
        return
    minutes = max(1, round(decisions / 1_000_000 / 60))
    _warn(
        f"plain Python takes about {minutes} min for {decisions:,} decisions, compiled code a hundredth of that: "
        f"{install_hint('fast')}"
    )


def allocate_columns(traffic: Traffic, fields: Sequence[str]) -> Columns:
    """Allocate a column for each of these fields of a decision, with a value for each request."""
    return {field: traffic.allocate(DECISION_DTYPE[field]) for field in fields}


def _decide(algorithm: Algorithm, traffic: Traffic, fields: Sequence[str], progress: Progress) -> Columns:
    columns = allocate_columns(traffic, fields)
    if uses_compiler(traffic):
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
