"""Figures of several policies together: those of the whole, and those of each policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ratelab.lab.decisions import ADMISSION_FIELDS, FIGURE_FIELDS, Outcome, Progress
from ratelab.lab.metrics import DEFAULT_CLIENT_TIMEOUT, Result, figure, measure, sum_exactly
from ratelab.lab.policies.outcome import JointOutcome, PolicyOutcome, replay_together
from ratelab.lab.policies.requests import PolicyTraffic
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Booleans, Traffic

WHOLE = "all together"
"""The name of the whole in tables, JSON and CSV."""


@dataclass(frozen=True, eq=False)
class PolicyResult:
    """Figures of one policy, or of the whole.

    Those of `result` count a policy's own decisions on the requests that it was asked about. Its windows hold what all
    policies let through. For the whole, they are those of the enforcing policy that was exceeded most.
    """

    policy: PolicyOutcome | None
    """None for the whole."""
    result: Result
    bound: int = field(
        metadata=figure("denied requests that had to wait longest for this policy", header="bound", part_of="denied")
    )
    denied_alone: int = field(metadata=figure("requests that no other policy denied", header="only this"))
    burned: int = field(
        metadata=figure("cost charged for requests that another policy denied", header="burned", better="lower")
    )
    differing: int | None = field(
        metadata=figure("decisions of a shadow policy that differ from those of the others", header="differing")
    )
    """None for an enforcing policy."""

    @property
    def label(self) -> str:
        """The name of the policy, with its plan, or that of the whole."""
        return WHOLE if self.policy is None else self.policy.label


@dataclass(frozen=True, eq=False)
class JointResult:
    """An outcome of several policies with its figures."""

    outcome: JointOutcome
    whole: PolicyResult
    policies: tuple[PolicyResult, ...]

    @property
    def rows(self) -> tuple[PolicyResult, ...]:
        """The figures of the whole, then those of each policy."""
        return self.whole, *self.policies


@dataclass(frozen=True, eq=False)
class PolicyComparison:
    """The outcomes of the same policies, enforced in different ways."""

    traffic: Traffic
    parts: tuple[PolicyTraffic, ...]
    results: tuple[JointResult, ...]
    """One for each semantics, in the order given."""
    client_timeout: int = DEFAULT_CLIENT_TIMEOUT
    """Nanoseconds that a client waits for a response."""


def compare_semantics(
    parts: Sequence[PolicyTraffic],
    traffic: Traffic,
    semantics: Sequence[str] = ("atomic",),
    fields: Sequence[str] = FIGURE_FIELDS,
    progress: Progress = lambda _: None,
    client_timeout: int = DEFAULT_CLIENT_TIMEOUT,
) -> PolicyComparison:
    """Replay `traffic` through all policies together, in each of the given ways, and compute the figures."""
    outcomes = (replay_together(parts, traffic, each, fields, progress) for each in semantics)
    results = tuple(measure_together(outcome, client_timeout) for outcome in outcomes)
    return PolicyComparison(traffic, tuple(parts), results, client_timeout)


def measure_together(outcome: JointOutcome, client_timeout: int = DEFAULT_CLIENT_TIMEOUT) -> JointResult:
    """Compute the figures of the whole and of each policy."""
    denials = np.zeros(len(outcome.traffic), np.int8)
    for policy in outcome.policies:
        if not policy.is_shadow:
            places = slice(None) if policy.asked.places is None else policy.asked.places
            denials[places] += ~policy.decisions["allowed"]
    policies = tuple(
        _measure_policy(outcome, number, denials == 1, client_timeout) for number in range(len(outcome.policies))
    )
    return JointResult(outcome, _measure_whole(outcome, policies, client_timeout), policies)


def _measure_policy(outcome: JointOutcome, number: int, single: Booleans, client_timeout: int) -> PolicyResult:
    """Compute the figures of a policy; `single` are the requests that exactly one policy denied."""
    policy = outcome.policies[number]
    asked, denied = policy.asked, ~policy.decisions["allowed"]
    own = Outcome(asked.policy, asked.charged, policy.decisions)
    result = measure(own, None, client_timeout, policy.let_through)
    admitted = policy.let_through["allowed"]
    others_denied = policy.charged & ~admitted
    return PolicyResult(
        policy=policy,
        result=replace(result, algorithm=policy.label),
        bound=int(np.count_nonzero(outcome.bound == number)),
        denied_alone=0 if policy.is_shadow else int(np.count_nonzero(denied & asked.select(single))),
        burned=0 if policy.is_shadow else sum_exactly(asked.traffic.costs[others_denied]),
        differing=int(np.count_nonzero(denied == admitted)) if policy.is_shadow else None,
    )


def _measure_whole(outcome: JointOutcome, policies: Sequence[PolicyResult], client_timeout: int) -> PolicyResult:
    enforcing = [each for each in policies if each.policy is not None and not each.policy.is_shadow]
    worst = max((each.result for each in enforcing or policies), key=lambda result: result.overshoot)
    first = outcome.policies[0].asked.policy
    result = measure(Outcome(first, outcome.traffic, outcome.decisions), None, client_timeout)
    return PolicyResult(
        policy=None,
        result=replace(
            result,
            algorithm=WHOLE,
            peak_in_window=worst.peak_in_window,
            overshoot=worst.overshoot,
            fullest=worst.fullest,
            state_bytes_per_key=sum(each.result.state_bytes_per_key for each in policies),
        ),
        bound=result.denied,
        denied_alone=sum(each.denied_alone for each in enforcing),
        burned=sum(each.burned for each in enforcing),
        differing=None,
    )


@dataclass(frozen=True, eq=False)
class PolicyCheck:
    """The denials of each policy, alone and together with the others."""

    result: JointResult
    """The figures of all policies together."""
    alone: tuple[tuple[int, int], ...]
    """For each policy, the requests that it would deny if it were the only one, and the clients concerned."""
    chosen: PolicyTraffic | None = None
    """The policy for which a quota is recommended."""


def check_parts(parts: Sequence[PolicyTraffic], traffic: Traffic, progress: Progress = lambda _: None) -> PolicyCheck:
    """Replay `traffic` through all policies together, and through each of them alone."""
    alone = []
    for part in parts:
        denied = ~replay(part.policy, part.traffic, ADMISSION_FIELDS, progress, 2 * len(parts)).decisions["allowed"]
        alone.append((int(np.count_nonzero(denied)), len(np.unique(part.traffic.clients[denied]))))
    result = measure_together(replay_together(parts, traffic, progress=progress))
    return PolicyCheck(result, tuple(alone))
