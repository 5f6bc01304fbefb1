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
from ratelab.lab.traffic import Integers, Traffic
from ratelab.lab.windows import Booleans, Trailing, Window, fullest_window
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
    traffic: Traffic,
    decisions: Outcome,
    exact: Outcome | None,
    trailing: Trailing,
) -> Accuracy:
    """Hold `decisions` against those of the `exact` log; `trailing` is the quota's window of this traffic."""
    allowed = decisions["allowed"]
    departures = traffic.times[allowed] + decisions["delay_ns"][allowed]
    earned = trailing.cost(allowed) + traffic.costs <= quota.burst

    def by_client(chosen: Booleans) -> Integers:
        return np.bincount(traffic.clients[chosen], minlength=len(traffic.names))

    return Accuracy(
        at_most=promised(type(algorithm), quota, traffic),
        worst=fullest_window(departures, traffic.costs[allowed], traffic.request_keys[allowed], quota.window),
        unearned=int(np.count_nonzero(allowed & ~earned)),
        withheld=int(np.count_nonzero(~allowed & earned)),
        client_over_admitted=None if exact is None else by_client(allowed & ~exact["allowed"]),
        client_over_denied=None if exact is None else by_client(~allowed & exact["allowed"]),
    )


def promised(algorithm: type[Algorithm], quota: Quota, traffic: Traffic) -> int | None:
    """Return what `Algorithm.at_most` comes to here; a whole request is the dearest that could be admitted."""
    at_most: tuple[int, int] | None = getattr(algorithm, "at_most", None)
    if at_most is None:
        return None
    factor, extra = at_most
    dearest = int(traffic.costs[traffic.costs <= quota.burst].max(initial=1)) if extra > 0 else 1
    return factor * quota.burst + extra * dearest
