"""Dependence of a recommended burst on the days and hours of a log, and on the resolution of its times."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ratelab.lab.spill import Integers
from ratelab.lab.traces.merge import spread
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune.frontier import measure_frontier
from ratelab.lab.tune.population import Population
from ratelab.lab.tune.tuning import PERCENTILES, Tuning, find_burst
from ratelab.quota import UNITS, Quota

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


def measure_hours(tuning: Tuning) -> tuple[HourNeeds, ...]:
    """Measure the needs at the recommended rate within each hour of the week that has requests."""
    traffic, rate = tuning.traffic, tuning.recommended.policy.quota
    keys, hours, needs = _measure_blocks(traffic, rate, UNITS["h"])
    is_covered = (tuning.frontier.find_needs(rate) <= rate.burst)[keys]
    places = (hours + _EPOCH_WEEKDAY * 24) % _HOURS
    rows = []
    for place in np.unique(places).tolist():
        own = needs[places == place]
        population = Population.sort(own, np.ones(len(own), np.int64))
        p99 = population.percentile(PERCENTILES["p99"])
        ordinary = int(own.max(initial=0, where=is_covered[places == place]))
        rows.append(HourNeeds(place // 24, place % 24, len(own), p99, int(own.max()), ordinary))
    return tuple(rows)


def measure_band(tuning: Tuning, seed: int = 0) -> NeedBand | None:
    """Resample the days of the traffic; return the band of the bursts, or None if there are too few days.

    The need of a client in a resample is the largest of its needs within the drawn days.
    """
    traffic, quota = tuning.traffic, tuning.recommended.policy.quota
    keys, days, needs = _measure_blocks(traffic, quota, UNITS["day"])
    first, last = int(days.min()), int(days.max())
    count = last - first + 1
    if count < MIN_BOOTSTRAP_DAYS:
        return None
    random = np.random.default_rng(seed)
    begins = np.flatnonzero(np.diff(keys, prepend=-1))
    bursts = []
    for _ in range(RESAMPLES):
        is_drawn = np.zeros(count, np.bool_)
        is_drawn[random.integers(0, count, count)] = True
        largest = np.maximum.reduceat(np.where(is_drawn[days - first], needs, 0), begins)
        population = Population.sort(largest, largest)
        bursts.append(population.recommend_burst(tuning.tolerate)[1])
    low, high = np.quantile(bursts, BAND, method="nearest").tolist()
    return NeedBand(int(low), int(high), count)


def _measure_blocks(traffic: Traffic, rate: Quota, length: int) -> tuple[Integers, Integers, Integers]:
    """Return the keys with requests in each block of time, these blocks since 1970, and the needs within them."""
    first = traffic.origin // length
    count = (traffic.origin + traffic.duration) // length - first + 1
    pairs = [np.empty(0, np.int64)]
    for _, batch in traffic.batches():
        pairs.append(np.unique(batch.request_keys * count + batch.clock_times // length - first))
    distinct = np.unique(np.concatenate(pairs))
    owners = traffic.allocate(np.int64)
    for part, batch in traffic.batches():
        owners[part] = np.searchsorted(distinct, batch.request_keys * count + batch.clock_times // length - first)
    names = tuple("" for _ in distinct)
    split = replace(traffic, clients=owners, names=names, keys=np.arange(len(distinct)))
    return distinct // count, distinct % count + first, measure_frontier(split).find_needs(rate)


def compare_resolutions(tuning: Tuning, unit: int, is_spread: bool) -> dict[str, int]:
    """Return the burst at the recommended rate if the requests of each whole `unit` are spread, or all at its start.

    `is_spread` is how the times of the traffic are.
    """
    traffic, rate = tuning.traffic, tuning.recommended.policy.quota
    times, origin = traffic.allocate(np.int64), traffic.origin - traffic.origin % unit
    for part, batch in traffic.batches():
        times[part] = (batch.clock_times - origin) // unit * unit
    if not is_spread:
        spread(times, unit)
    other = find_burst(replace(traffic, times=times, origin=origin), rate, tuning.tolerate, tuning.good)
    return {"spread": rate.burst, "start": other} if is_spread else {"spread": other, "start": rate.burst}
