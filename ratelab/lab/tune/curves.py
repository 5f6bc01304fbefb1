"""Curves of the burst against the rate, and a grid of quotas with the clients and requests that each denies."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ratelab.lab.decisions import Progress
from ratelab.lab.spill import Integers
from ratelab.lab.tune.queries import CountDeniedByBurst
from ratelab.lab.tune.tuning import Tuning
from ratelab.quota import LARGEST, UNITS, Quota

SHARES = (Fraction(0), Fraction(1, 10_000), Fraction(1, 1000), Fraction(1, 100))
"""The shares of clients that may be denied, each with a curve."""

CURVE_STEPS = 61
"""Rates of a curve by default."""

MAX_GRID_STEPS = 25
MIN_GRID_STEPS = 7

MAX_GRID_DECISIONS = 60_000_000
"""Decisions of all replays of a grid from which on it is made coarser."""


@dataclass(frozen=True, eq=False)
class Curves:
    """For each rate and each of `SHARES`, the smallest burst with which no larger share of clients is denied."""

    rates: tuple[Quota, ...]
    bursts: dict[Fraction, list[int]]


def measure_curves(tuning: Tuning, rates: Sequence[Quota] = ()) -> Curves:
    """Measure the curves at given rates, by default at rates around those of the tuning."""
    rates = tuple(rates or spread_rates(tuning, CURVE_STEPS))
    bursts: dict[Fraction, list[int]] = {share: [] for share in SHARES}
    for rate in rates:
        needs = np.sort(tuning.frontier.find_needs(rate))
        for share, column in bursts.items():
            column.append(int(needs[len(needs) - 1 - int(share * tuning.clients)]))
    return Curves(rates, bursts)


def spread_rates(tuning: Tuning, steps: int) -> tuple[Quota, ...]:
    """Return rates in equal ratios from below to above those of the tuning; one of them is the recommended one."""
    speeds = [row.rate.limit / row.rate.period for row in tuning.rates]
    best = tuning.recommended.policy.quota
    center, reach = best.limit / best.period, 4 if len(speeds) == 1 else 1.5
    low, high = min(speeds) / reach, max(speeds) * reach
    ratio = (high / low) ** (1 / (steps - 1))
    first, unit = round(np.log(low / center) / np.log(ratio)), choose_unit(best)
    speeds = [center * ratio ** (first + step) for step in range(steps)]
    rates = [best if place == -first else _build_rate(speed, unit) for place, speed in enumerate(speeds)]
    distinct = {rate.rate: rate for rate in rates if rate is best or rate.rate != best.rate}
    return tuple(rate for rate in distinct.values() if _is_possible(rate, best.burst))


def _is_possible(rate: Quota, burst: int) -> bool:
    """Return whether a quota can have this rate and burst."""
    return burst * rate.period <= LARGEST * rate.limit


def choose_unit(quota: Quota) -> str:
    """Return the unit in which all rates around that of a quota are shown: its own one."""
    unit = quota.rate.partition("/")[2]
    fitting = (name for name in ("s", "min", "h") if quota.limit * UNITS[name] >= quota.period)
    return unit if unit in UNITS else next(fitting, "day")


def _build_rate(speed: float, unit: str) -> Quota:
    """Return the rate of this many units of cost a nanosecond, if possible with three digits in a unit."""
    rate = Fraction(f"{speed * UNITS[unit]:.2e}") / UNITS[unit]
    if max(rate.numerator, rate.denominator) <= LARGEST:
        return Quota(rate.numerator, rate.denominator)
    return Quota(min(max(1, round(speed)), LARGEST), min(max(1, round(1 / speed)), LARGEST))


@dataclass(frozen=True, eq=False)
class Grid:
    """Quotas, and the denials of a token bucket with each; the first index of a matrix is that of the rate."""

    rates: tuple[Quota, ...]
    bursts: tuple[int, ...]
    clients_denied: Integers
    requests_denied: Integers


def measure_grid(tuning: Tuning, progress: Progress = lambda _: None) -> Grid:
    """Replay the clients that need more than each burst at each rate; `progress` counts quotas.

    For large traffic there are fewer rates and bursts.
    """
    steps = MAX_GRID_STEPS
    while True:
        rates = spread_rates(tuning, steps)
        needs = [tuning.frontier.find_needs(rate) for rate in rates]
        bursts = tuple(burst for burst in _spread_bursts(tuning, needs, steps) if _is_possible(rates[0], burst))
        requests = tuning.traffic.key_requests
        work = sum(int(requests[column > burst].sum()) for column in needs for burst in bursts)
        if work <= MAX_GRID_DECISIONS or steps <= MIN_GRID_STEPS:
            break
        steps = max(MIN_GRID_STEPS, steps // 2)
    counts = np.stack(tuning.demand.ask([CountDeniedByBurst(rate, bursts) for rate in rates], progress))
    return Grid(rates, bursts, counts[:, :, 0], counts[:, :, 1])


def _spread_bursts(tuning: Tuning, needs: Sequence[Integers], steps: int) -> tuple[int, ...]:
    """Return bursts in about equal ratios from 1 to the largest need; one of them is the recommended one."""
    largest, best = max(int(column.max()) for column in needs), tuning.recommended.policy.quota.burst
    spread = np.geomspace(1, max(largest, best, 2), steps).round().astype(np.int64).tolist()
    nearest = min(spread, key=lambda burst: abs(np.log(burst / best)))
    return tuple(sorted({best if burst == nearest else burst for burst in spread}))
