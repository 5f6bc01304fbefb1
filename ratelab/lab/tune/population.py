"""Needs of a population of clients at one rate: percentiles, tolerance and the gap before the outliers."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from ratelab.lab.spill import Integers

GAP_PERCENTILE = Fraction(99, 100)
"""The gap is sought among the needs from this percentile on."""


class Gap(NamedTuple):
    """The largest ratio between neighbouring needs above the 99th percentile."""

    below: int
    """The largest need below the gap."""
    above: int
    """The smallest need above it."""
    clients_above: int
    requests_above_ratio: float
    """The share of all requests that the clients above the gap sent."""

    @property
    def ratio(self) -> float:
        """`above` divided by `below`."""
        return self.above / self.below


@dataclass(frozen=True, eq=False)
class Population:
    """The needs of clients in order, and the requests of each."""

    needs: Integers
    """Needs in whole units, at least 1, in order."""
    requests: Integers
    """The number of requests of the client with each need."""

    @classmethod
    def sort(cls, needs: Integers, requests: Integers) -> Population:
        """Sort the clients that sent requests by their needs."""
        order = np.argsort(needs, kind="stable")
        order = order[requests[order] > 0]
        return cls(needs[order], requests[order])

    def __len__(self) -> int:
        return len(self.needs)

    def percentile(self, share: Fraction) -> int:
        """Return the need at a percentile by nearest rank: that of client number ceil(share * clients) in order."""
        return int(self.needs[max(0, _ceil(share * len(self)) - 1)])

    def count_above(self, burst: int) -> int:
        """Count the clients that need more than `burst`."""
        return len(self) - int(np.searchsorted(self.needs, burst, "right"))

    def tolerated_burst(self, tolerate: Fraction) -> int | None:
        """Return the smallest burst with which a further client is denied with a probability of at most `tolerate`.

        That is the need of client number ceil((clients + 1) * (1 - tolerate)) in order, if clients are exchangeable:
        split conformal prediction, Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005). Return
        None if there are too few clients for that.
        """
        rank = _ceil((len(self) + 1) * (1 - tolerate))
        return int(self.needs[max(1, rank) - 1]) if rank <= len(self) else None

    def supported_tolerance(self) -> Fraction:
        """Return the smallest tolerance for which there are enough clients."""
        return Fraction(1, len(self) + 1)

    def find_gap(self) -> Gap | None:
        """Find the largest ratio between neighbouring needs of which the lower is at or above the 99th percentile.

        If several have that ratio, return the lowest. Return None if there are no two different needs.
        """
        first = max(0, _ceil(GAP_PERCENTILE * len(self)) - 1)
        values = np.unique(self.needs[first:])
        pairs = list(zip(values[:-1].tolist(), values[1:].tolist(), strict=True))
        if not pairs:
            return None
        below, above = max(pairs, key=lambda pair: Fraction(pair[1], pair[0]))
        place = int(np.searchsorted(self.needs, below, "right"))
        share = int(self.requests[place:].sum()) / int(self.requests.sum())
        return Gap(below, above, len(self) - place, share)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
