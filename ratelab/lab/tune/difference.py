"""Difference between two policies, or policy files: the requests of some traffic that only one of them denies."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab.decisions import ADMISSION_FIELDS, Progress
from ratelab.lab.replay import replay
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic

if TYPE_CHECKING:
    from ratelab.policies.policy_file import PolicyFile


@dataclass(frozen=True, eq=False)
class PolicyDifference:
    """The decisions of two policies on the same traffic."""

    traffic: Traffic
    old: Policy | PolicyFile
    new: Policy | PolicyFile
    denied_old: int
    denied_new: int
    newly_denied: Integers
    """For each client, the requests that only the new policy denies."""
    newly_admitted: Integers
    """For each client, the requests that only the old policy denies."""

    @property
    def newly_denied_ratio(self) -> float:
        """The share of all requests that only the new policy denies."""
        return int(self.newly_denied.sum()) / max(1, len(self.traffic))


def compare_policies(
    old: Policy, new: Policy, traffic: Traffic, progress: Progress = lambda _: None
) -> PolicyDifference:
    """Replay `traffic` through both policies; `progress` is called with the number of further requests decided."""
    before, after = (
        replay(policy, traffic, ADMISSION_FIELDS, progress, 2).decisions["allowed"] for policy in (old, new)
    )
    return compare_decisions(old, new, before, after, traffic)


def compare_decisions(
    old: Policy | PolicyFile, new: Policy | PolicyFile, before: Booleans, after: Booleans, traffic: Traffic
) -> PolicyDifference:
    """Return the difference between the decisions of two policies, or of the policies of two files."""
    newly_denied, newly_admitted = (np.zeros(len(traffic.names), np.int64) for _ in range(2))
    denied_old = denied_new = 0
    for part, batch in traffic.batches():
        was, now = before[part], after[part]
        newly_denied += np.bincount(batch.clients[was & ~now], minlength=len(newly_denied))
        newly_admitted += np.bincount(batch.clients[now & ~was], minlength=len(newly_admitted))
        denied_old += int(np.count_nonzero(~was))
        denied_new += int(np.count_nonzero(~now))
    return PolicyDifference(traffic, old, new, denied_old, denied_new, newly_denied, newly_admitted)
