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

from dataclasses import dataclass

import numpy as np

from ratelab.algorithms import traits_of
from ratelab.lab.decisions import Outcome
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic
from ratelab.lab.windows import Trailing, Window, departures, fullest_window
from ratelab.limiter import Policy
from ratelab.quota import Quota


@dataclass(frozen=True, eq=False)
class Accuracy:
    """Accuracy of one outcome; counts are of requests, and arrays have one for each client of `Traffic.names`."""

    at_most: int | None
    """The bound of any window that the algorithm declares; None without one."""
    worst: Window | None
    """The first window with the most departures; None if no request was admitted."""
    unearned: int
    withheld: int
    client_over_admitted: Integers | None
    """None if the exact log cannot hold the burst."""
    client_over_denied: Integers | None


def accuracy(outcome: Outcome, reference: Outcome | None) -> Accuracy:
    """Compare an outcome with its own past and with the `reference`, the exact sliding log of the same traffic."""
    quota, traffic, allowed = outcome.policy.quota, outcome.traffic, outcome.decisions["allowed"]
    unearned = withheld = 0
    for part, past in Trailing(traffic, quota.window).cost(allowed):
        earned = past + traffic[part].costs <= quota.burst
        unearned += int(np.count_nonzero(allowed[part] & ~earned))
        withheld += int(np.count_nonzero(~allowed[part] & earned))
    over_admitted, over_denied = (
        (None, None)
        if reference is None or reference.traffic is not traffic
        else _by_client(traffic, allowed, reference.decisions["allowed"])
    )
    return Accuracy(
        at_most=promised(outcome.policy, traffic),
        worst=fullest_window(departures(traffic, outcome.decisions), traffic.key_count, quota.window),
        unearned=unearned,
        withheld=withheld,
        client_over_admitted=over_admitted,
        client_over_denied=over_denied,
    )


def _by_client(traffic: Traffic, allowed: Booleans, exact: Booleans) -> tuple[Integers, Integers]:
    """Count, for each client, the requests admitted but denied by `exact`, and the reverse."""
    over_admitted, over_denied = (np.zeros(len(traffic.names), np.int64) for _ in range(2))
    for part, batch in traffic.batches():
        made, right = allowed[part], exact[part]
        np.add.at(over_admitted, batch.clients[made & ~right], 1)
        np.add.at(over_denied, batch.clients[~made & right], 1)
    return over_admitted, over_denied


def promised(policy: Policy, traffic: Traffic) -> int | None:
    """Return the bound of `Traits.at_most` for this traffic; a whole request has the largest cost that may pass."""
    at_most = traits_of(policy.algorithm).at_most
    if at_most is None:
        return None
    factor, extra = at_most
    largest = _largest_cost(policy.quota, traffic) if extra > 0 else 1
    return factor * policy.quota.burst + extra * largest


def _largest_cost(quota: Quota, traffic: Traffic) -> int:
    """Return the largest cost that the quota can grant; 1 if there is none."""
    costs = (batch.costs for _, batch in traffic.batches())
    return max((int(some[some <= quota.burst].max(initial=1)) for some in costs), default=1)
