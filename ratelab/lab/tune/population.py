"""Needs of a population of clients at one rate: percentiles, tolerance and the gap before the outliers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import NamedTuple

import numpy as np

from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans
from ratelab.quota import LARGEST

GAP_PERCENTILE = Fraction(99, 100)
"""The gap is sought among the needs from this percentile on."""


MIN_CLEAR_GAP = 2
"""A gap of at least this ratio separates outliers from ordinary clients."""

HEADROOM = Fraction(3, 2)
"""The ratio of a burst to the largest need that it is meant to cover, if the gap above that is wide enough."""


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
class ClientNeeds:
    """The needs of clients in order, and the requests of each."""

    needs: Integers
    """Needs in whole units, at least 1, in order."""
    requests: Integers
    """The number of requests of the client with each need."""

    @classmethod
    def sort(cls, needs: Integers, requests: Integers) -> ClientNeeds:
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

    def next_above(self, burst: int) -> int | None:
        """Return the smallest need above `burst`; None if there is none."""
        place = int(np.searchsorted(self.needs, burst, "right"))
        return int(self.needs[place]) if place < len(self) else None

    def tolerated_burst(self, tolerate: Fraction) -> int | None:
        """Return the smallest burst with which a further client is denied with a probability of at most `tolerate`.

        That is the need of client number ceil((clients + 1) * (1 - tolerate)) in order, if clients are exchangeable:
        split conformal prediction, Vovk, Gammerman and Shafer, "Algorithmic Learning in a Random World" (2005). Return
        None if there are too few clients for that.
        """
        rank = _ceil((len(self) + 1) * (1 - tolerate))
        return int(self.needs[max(1, rank) - 1]) if rank <= len(self) else None

    def find_gap(self, share: Fraction = GAP_PERCENTILE) -> Gap | None:
        """Find the largest ratio between neighbouring needs of which the lower is at or above a percentile.

        If several have that ratio, return the lowest. Return None if there are no two different needs.
        """
        first = max(0, _ceil(share * len(self)) - 1)
        values = np.unique(self.needs[first:])
        pairs = list(zip(values[:-1].tolist(), values[1:].tolist(), strict=True))
        if not pairs:
            return None
        below, above = max(pairs, key=lambda pair: Fraction(pair[1], pair[0]))
        place = int(np.searchsorted(self.needs, below, "right"))
        requests_above = int(self.requests[place:].sum()) / int(self.requests.sum())
        return Gap(below, above, len(self) - place, requests_above)

    def recommend_burst(self, tolerate: Fraction, required: int = 0) -> tuple[int, int]:
        """Return the largest need to cover, and a burst that covers it with some headroom.

        A clear gap decides which needs are covered, without one the tolerance; `required` is covered in any case.
        """
        gap = self.find_gap()
        ordinary = self.tolerated_burst(tolerate) or int(self.needs[-1])
        burst = add_headroom(ordinary)
        if gap is not None and gap.ratio >= MIN_CLEAR_GAP:
            ordinary, burst = gap.below, add_headroom(gap.below, gap.above)
        if required > ordinary:
            ordinary, burst = required, add_headroom(required, self.next_above(required))
        return ordinary, min(burst, LARGEST)


@dataclass(frozen=True, eq=False)
class NeedCounts:
    """The number of clients with each need; clients without requests do not count."""

    needs: Integers
    """Different needs, in order."""
    clients: Integers
    required: int
    """The largest need of the clients that no quota may deny; 0 without such clients."""

    @classmethod
    def count(cls, needs: Integers, good: Booleans) -> NeedCounts:
        """Count the needs of all clients, of which `good` must not be denied."""
        return cls(*np.unique(needs[needs > 0], return_counts=True), int(needs.max(initial=0, where=good)))

    @classmethod
    def join(cls, parts: Sequence[Sequence[Sequence[int]]]) -> NeedCounts:
        """Add the counts of several groups of clients, as `serialize` returns them."""
        values, counts = (np.concatenate([np.array(part[column], np.int64) for part in parts]) for column in (0, 1))
        needs, places = np.unique(values, return_inverse=True)
        clients = np.zeros(len(needs), np.int64)
        np.add.at(clients, places, counts)
        return cls(needs, clients, max(part[2][0] for part in parts))

    def serialize(self) -> list[list[int]]:
        """Return the columns as lists."""
        return [self.needs.tolist(), self.clients.tolist(), [self.required]]

    def sort(self) -> ClientNeeds:
        """Return the need of each client, in order."""
        needs = np.repeat(self.needs, self.clients)
        return ClientNeeds(needs, np.ones_like(needs))

    def recommend_burst(self, tolerate: Fraction) -> tuple[int, int]:
        """Return the largest need to cover, and a burst that covers it with some headroom."""
        return self.sort().recommend_burst(tolerate, self.required)


def limit_tolerance(tolerate: Fraction, clients: int) -> Fraction:
    """Return the tolerance, or the smallest for which there are enough clients if that is larger."""
    return max(tolerate, Fraction(1, clients + 1))


def add_headroom(need: int, above: int | None = None) -> int:
    """Return a burst with some headroom over a need, in the middle below the next need `above` if that is near."""
    roomy = _round_up(_ceil(need * HEADROOM))
    return roomy if above is None else max(need, min(roomy, isqrt(need * above)))


def _round_up(number: int) -> int:
    """Round up to two significant digits."""
    unit = 10 ** max(0, len(str(number)) - 2)
    return int(-(-number // unit) * unit)


def _ceil(value: Fraction) -> int:
    return -(-value.numerator // value.denominator)
