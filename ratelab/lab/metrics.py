"""What to measure of a replay: each figure's definition, and where it comes from.

Sums are of whole numbers, or taken with `math.fsum`: they do not depend on the order, on the parts in which requests
are looked at or on the processor, so that the same run prints the same bytes everywhere.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Columns, Outcome
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic, split_batches
from ratelab.lab.windows import Rows, departures, fullest_window

_LIMB = 21
"""Bits of a number of which the products of a million pairs add up to less than 2**63."""


@dataclass(eq=False)
class MetricsBuilder:
    """What has been counted so far; counts are of requests."""

    offered: Integers
    """The requests of each client."""
    admitted: Integers
    """The admitted requests of each client."""
    allowed: int = 0
    delayed: int = 0
    delay: int = 0
    """Of all that were admitted, in nanoseconds."""
    longest_delay: int = 0
    over_admitted: int = 0
    over_denied: int = 0

    @classmethod
    def of(cls, traffic: Traffic, decisions: Columns, exact: Columns | None) -> Self:
        """Count what became of `traffic`, and where `exact` decided otherwise."""
        tally = cls(traffic.client_requests, np.zeros(len(traffic.names), np.int64))
        for part, batch in traffic.batches():
            allowed, delays = decisions["allowed"][part], decisions["delay_ns"][part]
            tally._add(batch.clients, allowed, delays[allowed])
            if exact is not None:
                differing = allowed != exact["allowed"][part]
                over = int(np.count_nonzero(differing & allowed))
                tally.over_admitted += over
                tally.over_denied += int(np.count_nonzero(differing)) - over
        return tally

    @property
    def denied(self) -> Integers:
        """Each client's requests that were denied."""
        return self.offered - self.admitted

    def _add(self, clients: Integers, allowed: Booleans, delays: Integers) -> None:
        np.add.at(self.admitted, clients[allowed], 1)
        self.allowed += len(delays)
        self.delayed += int(np.count_nonzero(delays))
        self.delay += exact_sum(delays)
        self.longest_delay = max(self.longest_delay, int(delays.max(initial=0)))


def exact_sum(values: Integers) -> int:
    """Add up at most 2**31 numbers, none below 0."""
    return (int((values >> 31).sum()) << 31) + int((values & (2**31 - 1)).sum())


def exact_squares(values: Integers) -> int:
    """Add up the squares of at most 2**20 numbers, none below 0."""
    limbs = [values >> shift & (2**_LIMB - 1) for shift in (0, _LIMB, 2 * _LIMB)]
    used = [(shift, limb) for shift, limb in enumerate(limbs) if limb.any()]
    return sum(int(one @ other) << _LIMB * (low + high) for low, one in used for high, other in used)


def exact_fraction(values: NDArray[np.float64]) -> Fraction:
    """Add up at most 2**31 floats, none below 0: their 53 digits, for each exponent."""
    mantissas, exponents = np.frexp(values)
    digits = (mantissas * 2.0**53).astype(np.int64)
    return sum(
        (exact_sum(digits[exponents == one]) * Fraction(2) ** (one - 53) for one in np.unique(exponents).tolist()),
        Fraction(0),
    )


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


def measure(outcome: Outcome, reference: Outcome | None) -> Result:
    """Compute the figures of an outcome; `reference` is that of the exact sliding log.

    The window and the burst are those of the reference's quota, if there is a reference. Figures that compare decision
    by decision are None unless both outcomes share their traffic.
    """
    policy, traffic, decisions = outcome.policy, outcome.traffic, outcome.decisions
    quota = policy.quota if reference is None else reference.policy.quota
    exact = reference.decisions if reference is not None and reference.traffic is traffic else None
    tally = MetricsBuilder.of(traffic, decisions, exact)
    left = departures(traffic, decisions)
    worst = fullest_window(left, traffic.key_count, quota.window)
    peak = worst.cost if worst else 0
    clients, clients_denied = (int(np.count_nonzero(some)) for some in (tally.offered, tally.denied))
    return Result(
        algorithm=policy.name,
        offered=len(traffic),
        admitted=tally.allowed,
        denied=len(traffic) - tally.allowed,
        delayed=tally.delayed,
        admit_ratio=round(tally.allowed / max(1, len(traffic)), 4),
        peak_in_window=peak,
        overshoot=round(peak / quota.burst, 4),
        mean_delay=round(float(tally.delay) / max(1, tally.allowed) / 1e9, 6),
        max_delay=round(tally.longest_delay / 1e9, 6),
        burstiness=burstiness(left),
        fairness=fairness(tally.offered, tally.admitted),
        over_admitted=None if exact is None else tally.over_admitted,
        over_denied=None if exact is None else tally.over_denied,
        state_bytes_per_key=8 * len(policy.algorithm.start(0)),
        clients=clients,
        clients_denied=clients_denied,
        clients_denied_ratio=round(clients_denied / max(1, clients), 6),
        client_offered=tally.offered,
        client_admitted=tally.admitted,
    )


def burstiness(left: Rows) -> float | None:
    """Return the coefficient of variation of the gaps between departures, all keys together; None below two gaps.

    0 is a metronome, 1 a Poisson process, above 1 comes in bursts. Cox and Lewis, "The Statistical Analysis of
    Series of Events" (1966), section 4.
    """
    gaps = total = squares = 0
    last = np.empty(0, np.int64)
    for part in split_batches(len(left)):
        times = np.append(last, left[part]["time"])
        last, some = times[-1:], np.diff(times)
        gaps, total, squares = gaps + len(some), total + exact_sum(some), squares + exact_squares(some)
    if gaps < 2 or total == 0:
        return None
    return round(math.sqrt(gaps * squares - total**2) / total, 4)


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
