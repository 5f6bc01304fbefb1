"""How far an algorithm's decisions are from exact: its accuracy card.

Two comparisons, since the first decision that differs makes the two histories differ too:

* *Side by side*: the exact sliding log of the same quota is fed the same requests, and each lives with its own past.
  `over_admitted` are admitted here and denied there, `over_denied` the reverse. One difference may bring others about.
* *By its own past*: each decision is judged by what the algorithm itself had admitted in the window that ends with the
  request. `unearned` ones were admitted although the cost exceeds what was left of `burst`, `withheld` ones denied
  although it does not. The sliding log has none of either. A decision counts when it is made, whatever the delay.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ratelab.lab.decisions import Outcome
from ratelab.lab.spill import Column, Integers
from ratelab.lab.traffic import Asked, key_count
from ratelab.lab.windows import Trailing, Window, departures, fullest_window
from ratelab.limiter import Algorithm
from ratelab.quota import Quota


@dataclass(frozen=True, eq=False)
class Accuracy:
    """One algorithm's card; counts are of requests, and the arrays have one for each client of `Traffic.names`."""

    at_most: int | None
    """The most cost that the class promises to let out in any window; None if it promises nothing."""
    worst: Window | None
    """The window in which the most left, the first if several; None if nothing did."""
    unearned: int
    withheld: int
    client_over_admitted: Integers | None
    """None if the exact log cannot hold the burst."""
    client_over_denied: Integers | None


def accuracy(
    algorithm: Algorithm,
    quota: Quota,
    traffic: Asked,
    decisions: Outcome,
    exact: Outcome | None,
    trailing: Trailing,
) -> Accuracy:
    """Hold `decisions` against those of the `exact` log; `trailing` is the quota's window of this traffic."""
    allowed = decisions["allowed"]
    unearned = withheld = 0
    for part, past in trailing.cost(allowed):
        earned = past + traffic.part(part).costs <= quota.burst
        unearned += int(np.count_nonzero(allowed[part] & ~earned))
        withheld += int(np.count_nonzero(~allowed[part] & earned))
    keys = key_count(traffic)
    over_admitted, over_denied = (None, None) if exact is None else _by_client(traffic, allowed, exact["allowed"])
    return Accuracy(
        at_most=promised(type(algorithm), quota, traffic),
        worst=fullest_window(departures(traffic, decisions), keys, quota.window),
        unearned=unearned,
        withheld=withheld,
        client_over_admitted=over_admitted,
        client_over_denied=over_denied,
    )


def _by_client(traffic: Asked, allowed: Column, exact: Column) -> tuple[Integers, Integers]:
    """Count the requests of each client that were admitted and are not by `exact`, and the reverse."""
    over_admitted, over_denied = (np.zeros(len(traffic.names), np.int64) for _ in range(2))
    for part in traffic.parts():
        clients, made, right = traffic.part(part).clients, allowed[part], exact[part]
        np.add.at(over_admitted, clients[made & ~right], 1)
        np.add.at(over_denied, clients[~made & right], 1)
    return over_admitted, over_denied


def promised(algorithm: type[Algorithm], quota: Quota, traffic: Asked) -> int | None:
    """Return what `Algorithm.at_most` comes to here; a whole request is the dearest that could be admitted."""
    at_most: tuple[int, int] | None = getattr(algorithm, "at_most", None)
    if at_most is None:
        return None
    factor, extra = at_most
    dearest = _dearest(quota, traffic) if extra > 0 else 1
    return factor * quota.burst + extra * dearest


def _dearest(quota: Quota, traffic: Asked) -> int:
    """Return the largest cost that the quota could grant; 1 if there is none."""
    costs = (traffic.part(part).costs for part in traffic.parts())
    return max((int(some[some <= quota.burst].max(initial=1)) for some in costs), default=1)
