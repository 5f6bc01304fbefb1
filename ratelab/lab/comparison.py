"""Comparison of several policies that grant the same quota to the same traffic."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from ratelab.algorithms import Policy, build_policy
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.errors import InputError
from ratelab.lab.accuracy import Accuracy, measure_accuracy
from ratelab.lab.counter_estimate import Estimate, measure_estimate
from ratelab.lab.decisions import FIGURE_FIELDS, Outcome, Progress
from ratelab.lab.equal_protection import EqualProtection, equalize
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT, Result, measure
from ratelab.lab.replay import replay, suggest_compiler
from ratelab.lab.traffic import Traffic
from ratelab.lab.windows import Window
from ratelab.quota import Quota


@dataclass(frozen=True, eq=False)
class Comparison:
    """The outcomes of several policies, in the order given, with their figures."""

    traffic: Traffic
    """The requests offered to each policy."""
    outcomes: tuple[Outcome, ...]
    reference: Outcome | None
    """The outcome of the exact sliding log of the same quota; None if its log does not fit in memory."""
    results: tuple[Result, ...]
    """The figures of each outcome."""
    accuracy: tuple[Accuracy, ...] = ()
    """The accuracy of each outcome; empty unless `with_accuracy` computed it."""
    estimate: Estimate | None = None
    """The error of the sliding counter's estimate; None without accuracy or without a sliding counter."""
    equal_protection: EqualProtection | None = None
    """The policies at equal protection; None unless `with_equal_protection` computed them."""
    client_timeout: int = DEFAULT_CLIENT_TIMEOUT
    """Nanoseconds that a client waits for a response."""

    @property
    def quota(self) -> Quota:
        """The quota that all policies grant."""
        return self.outcomes[0].policy.quota

    @property
    def fullest(self) -> Window | None:
        """The fullest window of all outcomes, the first of several; None if no request was admitted."""
        windows = [result.fullest for result in self.results if result.fullest is not None]
        return max(windows, key=lambda window: window.cost, default=None)

    def outcome(self, name: str) -> Outcome:
        """Return the outcome of the policy called `name`."""
        return next(outcome for outcome in self.outcomes if outcome.policy.name == name)


def compare(
    policies: Sequence[Policy],
    traffic: Traffic,
    progress: Progress = lambda _: None,
    fields: Sequence[str] = FIGURE_FIELDS,
    client_timeout: int = DEFAULT_CLIENT_TIMEOUT,
) -> Comparison:
    """Replay `traffic` through each of `policies` and through the exact sliding log of their quota.

    `fields` are the fields of each decision to keep. A client waits `client_timeout` nanoseconds. Raises `InputError`
    if two policies have the same name.
    """
    check_names(policy.name for policy in policies)
    suggest_compiler(traffic, _count_replays(policies))
    outcomes, reference = decide(policies, traffic, progress, fields)
    results = tuple(measure(outcome, reference, client_timeout) for outcome in outcomes)
    return Comparison(traffic, outcomes, reference, results, client_timeout=client_timeout)


def decide(
    policies: Sequence[Policy],
    traffic: Traffic,
    progress: Progress = lambda _: None,
    fields: Sequence[str] = FIGURE_FIELDS,
) -> tuple[tuple[Outcome, ...], Outcome | None]:
    """Return the outcomes of policies and that of the exact sliding log of their quota, None if it does not fit."""
    replays = _count_replays(policies)
    reference = _replay_exact(policies[0].quota, traffic, progress, fields, replays)
    outcomes = tuple(
        reference
        if reference is not None and type(policy.algorithm) is SlidingLog
        else replay(policy, traffic, fields, progress, replays)
        for policy in policies
    )
    return outcomes, reference


def _count_replays(policies: Sequence[Policy]) -> int:
    """Return the number of replays of policies and of the exact log, which may be one of them."""
    return len(policies) + (not any(type(policy.algorithm) is SlidingLog for policy in policies))


def with_accuracy(comparison: Comparison) -> Comparison:
    """Add the accuracy of each outcome and, for a sliding counter, the error of its estimate."""
    has_counter = any(type(outcome.policy.algorithm) is SlidingCounter for outcome in comparison.outcomes)
    return replace(
        comparison,
        accuracy=tuple(measure_accuracy(outcome, comparison.reference) for outcome in comparison.outcomes),
        estimate=measure_estimate(comparison.quota, comparison.traffic) if has_counter else None,
    )


def with_equal_protection(comparison: Comparison, progress: Progress = lambda _: None) -> Comparison:
    """Add the policies at equal protection; raise `InputError` if the exact log does not fit in memory."""
    if comparison.reference is None:
        raise InputError(
            f"equal protection needs the exact sliding log, which cannot hold a burst of {comparison.quota.burst}: "
            "lower the burst"
        )
    outcomes, reference, timeout = comparison.outcomes, comparison.reference, comparison.client_timeout
    return replace(comparison, equal_protection=equalize(outcomes, reference, progress, timeout))


def check_names(names: Iterable[str]) -> None:
    """Raise `InputError` if two names are equal."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise InputError(f"two algorithms are called {name!r}: give each a different name")
        seen.add(name)


def _replay_exact(
    quota: Quota, traffic: Traffic, progress: Progress, fields: Sequence[str], replays: int
) -> Outcome | None:
    """Return the outcome of the sliding log; None if the log does not fit in memory."""
    policy = build_exact(quota)
    return None if policy is None else replay(policy, traffic, fields, progress, replays)


def build_exact(quota: Quota) -> Policy | None:
    """Build the exact sliding log of a quota; return None if the log does not fit in memory."""
    try:
        return build_policy(SlidingLog, Quota(quota.limit, quota.period, quota.burst))  # without a calendar
    except InputError:
        return None
