"""Contracts of algorithms: functions that raise `AssertionError` if one is broken, and timelines to check them on."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product

from hypothesis import reject
from hypothesis import strategies as st
from reference_models import MODELS, decide

from ratelab import ALGORITHMS, Algorithm, InputError, Quota, traits_of
from ratelab.lab import conformance
from ratelab.lab.conformance import MOVES, ORIGINS, QUOTAS, Timeline, decide_on_copy, run
from ratelab.limiter import charge_without_decision


def decides_as_its_model(algorithm: Algorithm, timeline: Timeline) -> None:
    if algorithm.name in MODELS:
        model = MODELS[algorithm.name](timeline.quota)
        for now, cost, made, _ in run(algorithm, timeline):
            assert made == decide(model, timeline.quota, now, cost)


def refunds_a_charge(algorithm: Algorithm, timeline: Timeline) -> None:
    """Take a charge from the remaining quota, and return it by a refund, if the algorithm declares `Traits.charges`."""
    if not traits_of(algorithm).charges:
        return
    for now, cost, decision, after in run(algorithm, timeline):
        state, charged = list(after), min(cost, decision.remaining)
        charge_without_decision(algorithm, state, now, charged, None)
        assert decide_on_copy(algorithm, state, now, 0).remaining == decision.remaining - charged
        charge_without_decision(algorithm, state, now, -charged, now)
        assert decide_on_copy(algorithm, state, now, 0) == decide_on_copy(algorithm, after, now, 0)


CHARGED = [name for name, kind in ALGORITHMS.items() if traits_of(kind).charges]
"""The built-in algorithms that can be charged without a decision."""

CONTRACTS = [*conformance.CONTRACTS, decides_as_its_model, refunds_a_charge]


def find_broken_contracts(
    algorithm: Algorithm, timeline: Timeline, contracts: Sequence[conformance.Contract] = CONTRACTS
) -> list[str]:
    """Return the names of the contracts that an algorithm breaks on a timeline."""
    broken = []
    for contract in contracts:
        try:
            contract(algorithm, timeline)
        except AssertionError:
            broken.append(contract.__name__)
    return broken


moves = st.binary(min_size=6, max_size=40).map(lambda drawn: [MOVES[byte % len(MOVES)] for byte in drawn])
"""A byte for each move: Hypothesis draws a string at once, but a list element by element."""

SMALL_QUOTAS = [Quota(*numbers) for numbers in product(range(1, 10), range(1, 31), range(1, 9))]

timelines = st.builds(
    Timeline,
    st.sampled_from(QUOTAS) | st.sampled_from(SMALL_QUOTAS),
    st.sampled_from(ORIGINS),
    moves,
)


def build_or_reject(kind: type[Algorithm], quota: Quota) -> Algorithm:
    """Build an algorithm; have Hypothesis draw another quota if the algorithm rejects this one."""
    try:
        return kind.from_quota(quota)
    except InputError:
        reject()
