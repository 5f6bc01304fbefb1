"""The same traffic and the same quota through several algorithms."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from ratelab.algorithms.plugins import attribute_errors
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import InputError
from ratelab.lab.accuracy import Accuracy, accuracy
from ratelab.lab.counter_estimate import Estimate, estimate
from ratelab.lab.decisions import Decisions, Outcome, Progress
from ratelab.lab.equal_protection import EqualProtection, equalize
from ratelab.lab.metrics import Result, measure
from ratelab.lab.replay import replay, replay_columns, suggest_compiler
from ratelab.lab.traffic import Asked
from ratelab.lab.windows import Trailing
from ratelab.limiter import Algorithm
from ratelab.quota import Quota

Decide = Callable[[Algorithm, Asked, Progress], Outcome]


@dataclass(frozen=True, eq=False)
class Comparison:
    """What each algorithm did, in the order asked for."""

    quota: Quota
    traffic: Asked
    results: tuple[Result, ...]
    decisions: dict[str, Decisions]
    """Every decision by algorithm; empty unless they were to be kept."""
    cards: tuple[Accuracy, ...] = ()
    """Each result's accuracy card; empty unless they were asked for."""
    estimate: Estimate | None = None
    """With the cards of a sliding counter, how good its estimate was of what was asked."""
    equalised: EqualProtection | None = None
    """The same at equal protection, if that was asked for."""
    algorithms: tuple[Algorithm, ...] = ()
    """What decided, as it was built for the quota."""


def compare(
    quota: Quota,
    traffic: Asked,
    algorithms: Sequence[type[Algorithm]],
    progress: Progress = lambda _: None,
    *,
    keep_decisions: bool = False,
    with_cards: bool = False,
    at_equal_protection: bool = False,
) -> Comparison:
    """Replay `traffic` through each of `algorithms`, and through the exact sliding log that they are held against.

    To keep decisions, all is held in memory; the figures alone are made part by part.

    Raises `InputError` if two algorithms have one name or one of them cannot grant `quota`.
    """
    check_names(algorithms)
    if keep_decisions:
        traffic = traffic.whole()
    built = [_built(algorithm, quota) for algorithm in algorithms]
    decide: Decide = replay if keep_decisions else replay_columns
    suggest_compiler(traffic, len(built) + (SlidingLog not in algorithms))
    exact = _exact(quota, traffic, decide, progress)
    trailing = Trailing(traffic, quota.window) if with_cards else None
    results, kept, cards = [], {}, []
    for algorithm in built:
        known = exact if type(algorithm) is SlidingLog else None
        decisions = decide(algorithm, traffic, progress) if known is None else known
        results.append(measure(algorithm, quota, traffic, decisions, exact))
        if keep_decisions:
            kept[algorithm.name] = cast(Decisions, decisions)
        if trailing is not None:
            cards.append(accuracy(algorithm, quota, traffic, decisions, exact, trailing))
    return Comparison(
        quota,
        traffic,
        tuple(results),
        kept,
        tuple(cards),
        estimate(quota, traffic, trailing) if trailing is not None and SlidingCounter in algorithms else None,
        equalize(quota, traffic, algorithms, exact, progress) if at_equal_protection else None,
        tuple(built),
    )


def check_names(algorithms: Sequence[type[Algorithm]]) -> None:
    """Raise `InputError` if two algorithms have one name."""
    names = [algorithm.name for algorithm in algorithms]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise InputError(f"two algorithms are called {twice!r}: give each a name of its own")


def _built(algorithm: type[Algorithm], quota: Quota) -> Algorithm:
    with attribute_errors(algorithm):
        return algorithm.from_quota(quota)


def _exact(quota: Quota, traffic: Asked, decide: Decide, progress: Progress) -> Outcome | None:
    """Return the sliding log's decisions, or None if its log could not be held."""
    try:
        return decide(SlidingLog.from_quota(quota), traffic, progress)
    except InputError:
        return None
