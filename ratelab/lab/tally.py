"""Figures that add up: counts and exact sums, the same in whatever parts the requests come."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Self

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.decisions import Outcome
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Asked, Booleans

_LIMB = 21
"""Bits of a number of which the products of a million pairs add up to less than 2**63."""


@dataclass(eq=False)
class Tally:
    """What has been counted so far; counts are of requests."""

    offered: Integers
    """Each client's requests."""
    admitted: Integers
    """Each client's requests that were admitted."""
    allowed: int = 0
    delayed: int = 0
    delay: int = 0
    """Of all that were admitted, in nanoseconds."""
    longest_delay: int = 0
    over_admitted: int = 0
    over_denied: int = 0

    @classmethod
    def of(cls, traffic: Asked, decisions: Outcome, exact: Outcome | None) -> Self:
        """Count what became of `traffic`, and where `exact` decided otherwise."""
        clients = len(traffic.names)
        tally = cls(np.zeros(clients, np.int64), np.zeros(clients, np.int64))
        for part in traffic.parts():
            who, allowed, delays = (traffic.part(part).clients, decisions["allowed"][part], decisions["delay_ns"][part])
            tally._add(who, allowed, delays[allowed])
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
        np.add.at(self.offered, clients, 1)
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
