"""Replay of traffic through several policies together, and what would happen if they were not enforced together."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError, SlowWarning
from ratelab.lab.decisions import FIGURE_FIELDS, Columns, Progress
from ratelab.lab.policies import engine
from ratelab.lab.policies.engine import NOT_BOUND, PART_FIELDS, JointColumns, allocate_joint_columns
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.replay import replay, uses_compiler
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.limiter import NEVER, ROW_FIELDS


@dataclass(frozen=True, eq=False)
class PolicyOutcome:
    """The decisions of one policy on the requests that it was asked about."""

    asked: PolicyTraffic
    decisions: Columns
    """The `PART_FIELDS` of its own decisions."""
    let_through: Columns
    """The `PART_FIELDS` of the decision by all policies on these requests."""
    charged: Booleans
    """The requests that it charged."""

    @property
    def label(self) -> str:
        """The name of the policy, with its plan."""
        return self.asked.label

    @property
    def is_shadow(self) -> bool:
        """Whether the policy only counts."""
        return self.asked.policy.shadow


@dataclass(frozen=True, eq=False)
class JointOutcome:
    """The decisions of several policies on some traffic."""

    semantics: str
    """A key of `ratelab.lab.SEMANTICS`."""
    traffic: Traffic
    decisions: Columns
    """The decisions by all enforcing policies."""
    bound: NDArray[np.int8]
    """For each denied request, the number of the policy that denied it with the longest wait; else `NOT_BOUND`."""
    policies: tuple[PolicyOutcome, ...]
    """The outcome of each policy, also of those that do not enforce."""


def replay_together(
    parts: Sequence[PolicyTraffic],
    traffic: Traffic,
    semantics: str = "atomic",
    fields: Sequence[str] = FIGURE_FIELDS,
    progress: Progress = lambda _: None,
) -> JointOutcome:
    """Decide every request by all policies that apply to it; return the columns of `fields`.

    Shadow policies decide as if they were alone. Raises `InputError` if a third-party algorithm fails.
    """
    if semantics != "atomic" and any(part.settlement is not None for part in parts):
        raise InputError(f"costs that are settled later need atomic policies, got {semantics}: leave out semantics")
    enforcing = [number for number, part in enumerate(parts) if not part.policy.shadow]
    decide = {"atomic": _decide_atomic, "sequential": _decide_sequential, "independent": _decide_independent}
    way = decide[semantics] if enforcing else _decide_independent
    columns, asked = way([parts[number] for number in enforcing], traffic, fields, progress)
    bound = columns.bound
    if len(enforcing) < len(parts):
        bound = np.array([*enforcing, NOT_BOUND], np.int8)[bound]  # the last is that of -1
    whole = {name: columns.whole[name] for name in PART_FIELDS}
    outcomes = []
    decided = iter(zip(asked, columns.parts, strict=True))
    for part in parts:
        if part.policy.shadow:
            own = replay(part.policy, part.traffic, FIGURE_FIELDS, progress, len(parts)).decisions
        else:
            part, own = next(decided)
        through = whole if part.places is None else {name: column[part.places] for name, column in whole.items()}
        charges = through if semantics == "atomic" and not part.policy.shadow else own
        outcomes.append(PolicyOutcome(part, own, through, charges["allowed"]))
    return JointOutcome(semantics, traffic, columns.whole, bound, tuple(outcomes))


Decided = tuple[JointColumns, Sequence[PolicyTraffic]]
"""Decisions, those of each part for the requests that it was asked about only, and these requests."""


def _decide_atomic(
    parts: Sequence[PolicyTraffic], traffic: Traffic, fields: Sequence[str], progress: Progress
) -> Decided:
    columns = allocate_joint_columns(parts, traffic, fields)
    if not _decide_compiled(parts, traffic, columns, progress):
        engine.decide(parts, traffic, columns, progress)
    own = (
        {name: part.select(column) for name, column in decided.items()}
        for part, decided in zip(parts, columns.parts, strict=True)
    )
    return columns._replace(parts=tuple(own)), parts


def _decide_compiled(
    parts: Sequence[PolicyTraffic], traffic: Traffic, columns: JointColumns, progress: Progress
) -> bool:
    """Let compiled code fill `columns`; return whether it could and it is worth while."""
    if not uses_compiler(traffic, len(parts)) or any(part.settlement is not None for part in parts):
        return False
    from ratelab.lab.compiled import UnfitError, joint  # they need Numba, which is optional, and slow to import

    try:
        joint.decide(parts, traffic, columns, progress)
    except UnfitError as error:
        names = ", ".join(dict.fromkeys(part.policy.algorithm.name for part in parts))
        message = f"{names} together are replayed in plain Python, a hundred times slower: {error}"
        warnings.warn(message, SlowWarning, stacklevel=4)
        return False
    return True


def _decide_sequential(
    parts: Sequence[PolicyTraffic], traffic: Traffic, fields: Sequence[str], progress: Progress
) -> Decided:
    """Ask each policy about the requests that those before it have admitted."""
    columns = _start_columns(traffic, fields)
    decided, asked = [], []
    for number, part in enumerate(parts):
        reached = part.select(columns.whole["allowed"])
        asked.append(_restrict(part, reached))
        decided.append(_add(number, asked[-1], columns, progress, len(parts)))
    return columns._replace(parts=tuple(decided)), asked


def _decide_independent(
    parts: Sequence[PolicyTraffic], traffic: Traffic, fields: Sequence[str], progress: Progress
) -> Decided:
    """Ask each policy about all requests, as if it were alone."""
    columns = _start_columns(traffic, fields)
    decided = [_add(number, part, columns, progress, len(parts)) for number, part in enumerate(parts)]
    return columns._replace(parts=tuple(decided)), parts


def _start_columns(traffic: Traffic, fields: Sequence[str]) -> JointColumns:
    """Return the columns of a decision by no policy."""
    columns = allocate_joint_columns((), traffic, list(dict.fromkeys([*fields, "retry_after_ns"])))
    for name, column in columns.whole.items():
        column[:] = {"allowed": True, "remaining": NEVER}.get(name, 0)
    columns.bound[:] = NOT_BOUND
    return columns


def _restrict(part: PolicyTraffic, selected: Booleans) -> PolicyTraffic:
    """Return the selected ones of a policy's requests."""
    if selected.all():
        return part
    places, whole = np.flatnonzero(selected), part.traffic
    traffic = replace(whole, times=whole.times[places], clients=whole.clients[places], costs=whole.costs[places])
    return replace(part, traffic=traffic, places=places if part.places is None else part.places[places])


def _add(number: int, part: PolicyTraffic, columns: JointColumns, progress: Progress, replays: int) -> Columns:
    """Replay a policy alone and combine its decisions with those in `columns`; return its own decisions."""
    own = replay(part.policy, part.traffic, ROW_FIELDS, progress, replays).decisions
    places = slice(None) if part.places is None else part.places
    whole, denied = columns.whole, ~own["allowed"]
    binds = denied & (whole["allowed"][places] | (own["retry_after_ns"] > whole["retry_after_ns"][places]))
    columns.bound[places] = np.where(binds, number, columns.bound[places])
    for name, column in whole.items():
        combine = {"allowed": np.logical_and, "remaining": np.minimum}.get(name, np.maximum)
        column[places] = combine(column[places], own[name])
    whole["delay_ns"][places] *= whole["allowed"][places]
    return {name: own[name] for name in PART_FIELDS}
