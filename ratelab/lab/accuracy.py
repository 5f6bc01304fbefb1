"""Accuracy of an algorithm's decisions, compared with an exact limit in two ways.

The first decision that differs makes two histories diverge, so there are two comparisons:

* *With the exact log*: the sliding log of the same quota receives the same requests, and each keeps its own history.
  `over_admitted` requests are admitted here and denied there, `over_denied` the reverse. One difference may cause
  others.
* *With its own history*: each decision is judged by the cost that the algorithm itself had admitted in the window that
  ends with the request. `unearned` requests were admitted although they exceeded the rest of `burst`, `withheld` ones
  denied although they did not. The sliding log has neither. A decision counts when it is made, whatever its delay.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ratelab.algorithms import Policy, traits_of
from ratelab.lab.decisions import Outcome
from ratelab.lab.metrics import figure
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.windows import compute_trailing_costs, departures, fullest_window
from ratelab.quota import Quota


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Accuracy of one outcome. To add a figure, add a field here, and compute it in `measure_accuracy`."""

    at_most: int | None = field(
        metadata=figure("the largest peak_in_window that the algorithm guarantees", header="at most")
    )
    """None if the algorithm declares no bound."""
    peak_at: float | None = field(
        metadata=figure("the start of the first fullest window, in seconds", "seconds", header="fullest at")
    )
    """None if no request was admitted, as is `peak_key`."""
    peak_key: str | None = field(
        metadata=figure("the key of that window", "name", header="fullest for", only_with="clients")
    )
    unearned: int = field(
        metadata=figure(
            "requests admitted although the algorithm's own admissions in the window before left no room",
            header="unearned",
        )
    )
    withheld: int = field(
        metadata=figure(
            "requests denied although the algorithm's own admissions in the window before left room",
            header="withheld",
        )
    )
    client_over_admitted: Integers | None
    """The `over_admitted` of each client, by its index in `Traffic.names`; None without the exact log."""
    client_over_denied: Integers | None
    """The `over_denied` of each client."""


def measure_accuracy(outcome: Outcome, reference: Outcome | None) -> Accuracy:
    """Compare an outcome with its own past and with the `reference`, the exact sliding log of the same traffic."""
    quota, traffic, allowed = outcome.policy.quota, outcome.traffic, outcome.decisions["allowed"]
    unearned = withheld = 0
    for part, past in compute_trailing_costs(traffic, quota.window, allowed):
        earned = past + traffic[part].costs <= quota.burst
        unearned += int(np.count_nonzero(allowed[part] & ~earned))
        withheld += int(np.count_nonzero(~allowed[part] & earned))
    over_admitted, over_denied = (
        (None, None)
        if reference is None or reference.traffic is not traffic
        else _count_by_client(traffic, allowed, reference.decisions["allowed"])
    )
    fullest = fullest_window(departures(traffic, outcome.decisions), traffic.key_count, quota.window)
    return Accuracy(
        at_most=_compute_bound(outcome.policy, traffic),
        peak_at=None if fullest is None else fullest.begin / 1e9,
        peak_key=None if fullest is None else traffic.name_key(fullest.key),
        unearned=unearned,
        withheld=withheld,
        client_over_admitted=over_admitted,
        client_over_denied=over_denied,
    )


def _count_by_client(traffic: Traffic, allowed: Booleans, exact: Booleans) -> tuple[Integers, Integers]:
    """Count, for each client, the requests admitted but denied by `exact`, and the reverse."""
    over_admitted, over_denied = (np.zeros(len(traffic.names), np.int64) for _ in range(2))
    for part, batch in traffic.batches():
        admitted, exactly_admitted = allowed[part], exact[part]
        np.add.at(over_admitted, batch.clients[admitted & ~exactly_admitted], 1)
        np.add.at(over_denied, batch.clients[~admitted & exactly_admitted], 1)
    return over_admitted, over_denied


def _compute_bound(policy: Policy, traffic: Traffic) -> int | None:
    """Return the bound of `Traits.at_most` for this traffic; its extra requests have the largest cost admissible."""
    at_most = traits_of(policy.algorithm).at_most
    if at_most is None:
        return None
    factor, extra = at_most
    cost = _find_largest_cost(policy.quota, traffic) if extra > 0 else 1
    return factor * policy.quota.burst + extra * cost


def _find_largest_cost(quota: Quota, traffic: Traffic) -> int:
    """Return the largest cost that the quota can grant; 1 if there is none."""
    costs = (batch.costs[batch.costs <= quota.burst] for _, batch in traffic.batches())
    return max((int(column.max(initial=1)) for column in costs), default=1)
