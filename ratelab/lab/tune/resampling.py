"""Dependence of a recommended burst on the days and hours of a log, and on the resolution of its times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ratelab.lab.decisions import Progress
from ratelab.lab.traces.merge import spread
from ratelab.lab.tune.blocks import BlockNeeds
from ratelab.lab.tune.population import ClientNeeds
from ratelab.lab.tune.tuning import PERCENTILES, Tuning, find_burst

MIN_BOOTSTRAP_DAYS = 7
"""Days from which on they are resampled."""

RESAMPLES = 200

BAND = (0.05, 0.95)
"""The quantiles of the bursts of all resamples that a band shows."""

_EPOCH_WEEKDAY = 3  # 1 January 1970 was a Thursday; Monday is 0
_HOURS = 7 * 24


@dataclass(frozen=True)
class HourNeeds:
    """The needs of clients within one hour of the week, over all weeks."""

    weekday: int
    """0 for Monday to 6 for Sunday, in UTC."""
    hour: int
    """0 to 23."""
    clients: int
    """Clients that sent a request in this hour; one counts once for each week."""
    p99: int
    max: int
    ordinary: int
    """The largest need of a client that the recommended burst covers."""


class NeedBand(NamedTuple):
    """The bursts that other samples of days would give, by a block bootstrap.

    Efron and Tibshirani, "An Introduction to the Bootstrap" (1993), section 8.6.
    """

    low: int
    high: int
    days: int


def measure_hours(tuning: Tuning, hours: BlockNeeds) -> tuple[HourNeeds, ...]:
    """Summarize the needs at the recommended rate within each hour since 1970 by the hour of the week."""
    rate = tuning.recommended.policy.quota
    is_covered = (tuning.frontier.find_needs(rate) <= rate.burst)[hours.keys]
    places = ((hours.blocks + _EPOCH_WEEKDAY * 24) % _HOURS).astype(np.uint8)
    order = np.argsort(places, kind="stable")
    rows = []
    for place, count in enumerate(np.bincount(places, minlength=_HOURS).tolist()):
        own, order = order[:count], order[count:]
        if count:
            population = ClientNeeds.sort(hours.needs[own], hours.needs[own])
            ordinary = int(hours.needs[own].max(initial=0, where=is_covered[own]))
            p99 = population.percentile(PERCENTILES["p99"])
            rows.append(HourNeeds(place // 24, place % 24, count, p99, int(population.needs[-1]), ordinary))
    return tuple(rows)


def measure_band(tuning: Tuning, days: BlockNeeds, seed: int = 0) -> NeedBand | None:
    """Resample days, given the needs at the recommended rate within each day since 1970.

    Return the band of the bursts, or None if there are too few days. The need of a client in a resample is the largest
    of its needs within the drawn days.
    """
    numbers = days.blocks - days.blocks.min()
    count = int(numbers.max()) + 1
    if count < MIN_BOOTSTRAP_DAYS:
        return None
    random = np.random.default_rng(seed)
    begins = np.flatnonzero(np.diff(days.keys, prepend=-1))
    is_good = tuning.good[days.keys[begins]]
    bursts = []
    for _ in range(RESAMPLES):
        is_drawn = np.zeros(count, np.int64)
        is_drawn[random.integers(0, count, count)] = 1
        largest = np.maximum.reduceat(is_drawn[numbers] * days.needs, begins)
        needs = np.sort(largest[largest > 0])
        required = int(largest.max(initial=0, where=is_good))
        bursts.append(ClientNeeds(needs, needs).recommend_burst(tuning.tolerate, required)[1])
    low, high = np.quantile(bursts, BAND, method="nearest").tolist()
    return NeedBand(int(low), int(high), count)


def compare_resolutions(
    tuning: Tuning, unit: int, is_spread: bool, progress: Progress = lambda _: None
) -> dict[str, int]:
    """Return the burst at the recommended rate if the requests of each whole `unit` are spread, or all at its start.

    `is_spread` is how the times of the traffic are.
    """
    traffic, rate = tuning.traffic, tuning.recommended.policy.quota
    times, origin = traffic.allocate(np.int64), traffic.origin - traffic.origin % unit
    for part, batch in traffic.batches():
        times[part] = (batch.clock_times - origin) // unit * unit
    if not is_spread:
        spread(times, unit)
    other = find_burst(replace(traffic, times=times, origin=origin), rate, tuning.tolerate, tuning.good, progress)
    return {"spread": rate.burst, "start": other} if is_spread else {"spread": other, "start": rate.burst}
