"""What to measure of a replay: each figure's definition, and where it comes from.

Sums of floats are taken with `math.fsum`, whose result does not depend on the order or on the processor, so that the
same run prints the same bytes everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Outcome
from ratelab.lab.traffic import Integers, Traffic
from ratelab.lab.windows import fullest_window
from ratelab.limiter import Algorithm
from ratelab.quota import Quota


@dataclass(frozen=True, eq=False)
class Result:
    """What one algorithm did to some traffic; counts are of requests, times are in seconds."""

    algorithm: str
    offered: int
    admitted: int
    denied: int
    delayed: int
    """Admitted requests that had to queue."""
    admit_ratio: float
    """`admitted` over `offered`; 0 if nothing was offered."""
    peak_in_window: int
    """The most cost of one key that left within any window: see `windows.fullest_window`."""
    overshoot: float
    """`peak_in_window` over the quota's burst: above 1, some window let out more than the quota says."""
    mean_delay: float
    """Over all admitted requests; 0 if there are none."""
    max_delay: float
    burstiness: float | None
    """See `burstiness`."""
    fairness: float | None
    """See `fairness`."""
    over_admitted: int | None
    """Requests admitted that the exact sliding log, fed the same, denies; None if it cannot hold the burst."""
    over_denied: int | None
    """The reverse."""
    state_bytes_per_key: int
    """Eight bytes for each number in a key's state."""
    clients: int
    """Clients that sent anything."""
    clients_denied: int
    """Clients that were denied at least once."""
    clients_denied_ratio: float
    """`clients_denied` over `clients`; 0 if there are none."""
    client_offered: Integers
    """Each client's requests, by its index in `Traffic.names`."""
    client_admitted: Integers


def measure(algorithm: Algorithm, quota: Quota, traffic: Traffic, decisions: Outcome, exact: Outcome | None) -> Result:
    """Measure what `algorithm` decided; `exact` is what the sliding log of the same quota decided."""
    allowed = decisions["allowed"]
    delays = decisions["delay_ns"][allowed]
    departures = traffic.times[allowed] + delays
    worst = fullest_window(departures, traffic.costs[allowed], traffic.request_keys[allowed], quota.window)
    peak = worst.cost if worst else 0
    offered = np.bincount(traffic.clients, minlength=len(traffic.names))
    admitted = np.bincount(traffic.clients[allowed], minlength=len(traffic.names))
    clients, clients_denied = int(np.count_nonzero(offered)), int(np.count_nonzero(admitted < offered))
    return Result(
        algorithm=algorithm.name,
        offered=len(traffic),
        admitted=len(delays),
        denied=len(traffic) - len(delays),
        delayed=int(np.count_nonzero(delays)),
        admit_ratio=round(len(delays) / max(1, len(traffic)), 4),
        peak_in_window=peak,
        overshoot=round(peak / quota.burst, 4),
        mean_delay=round(math.fsum(delays.tolist()) / max(1, len(delays)) / 1e9, 6),
        max_delay=round(int(delays.max(initial=0)) / 1e9, 6),
        burstiness=burstiness(departures),
        fairness=fairness(offered, admitted),
        over_admitted=None if exact is None else int(np.count_nonzero(allowed & ~exact["allowed"])),
        over_denied=None if exact is None else int(np.count_nonzero(~allowed & exact["allowed"])),
        state_bytes_per_key=8 * len(algorithm.start(0)),
        clients=clients,
        clients_denied=clients_denied,
        clients_denied_ratio=round(clients_denied / max(1, clients), 4),
        client_offered=offered,
        client_admitted=admitted,
    )


def burstiness(departures: Integers) -> float | None:
    """Return the coefficient of variation of the gaps between departures, all keys together; None below two gaps.

    0 is a metronome, 1 a Poisson process, above 1 comes in bursts. Cox and Lewis, "The Statistical Analysis of
    Series of Events" (1966), section 4.
    """
    gaps = np.diff(np.sort(departures)).astype(np.float64)
    mean = math.fsum(gaps.tolist()) / max(1, len(gaps))
    if len(gaps) < 2 or mean == 0:
        return None
    variance = math.fsum(np.square(gaps - mean).tolist()) / len(gaps)
    return round(math.sqrt(variance) / mean, 4)


def fairness(offered: Integers, admitted: Integers) -> float | None:
    """Return Jain's index of the clients' admitted shares of what they asked; None if nobody asked.

    (sum x)**2 / (n * sum x**2) over the shares x: 1 if all fare alike, 1/n if one gets everything. Jain, Chiu and
    Hawe, "A quantitative measure of fairness and discrimination" (DEC-TR-301, 1984).
    """
    asked = offered > 0
    shares: NDArray[np.float64] = admitted[asked] / offered[asked]
    if not len(shares):
        return None
    squares = math.fsum(np.square(shares).tolist())
    return 1.0 if squares == 0 else round(math.fsum(shares.tolist()) ** 2 / (len(shares) * squares), 4)
