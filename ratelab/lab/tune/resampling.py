"""Dependence of a recommended burst on the days and hours of a log, and on the resolution of its times."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ratelab.lab.decisions import Progress
from ratelab.lab.traffic import Booleans
from ratelab.lab.tune.blocks import BlockNeeds, measure_blocks
from ratelab.lab.tune.population import NeedCounts
from ratelab.lab.tune.queries import WHOLE_TIME, CountAlignedNeeds, TunedRequests
from ratelab.lab.tune.tuning import PERCENTILES, Tuning
from ratelab.quota import UNITS, Quota

MIN_BOOTSTRAP_DAYS = 7
"""Days from which on they are resampled."""

RESAMPLES = 200

SEED = 0
"""The seed of the days that are drawn."""

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


def measure_hours_and_days(
    tuning: Tuning, progress: Progress = lambda _: None
) -> tuple[tuple[HourNeeds, ...], NeedBand | None]:
    """Return the needs at the recommended rate by hour of the week, and the band of the bursts by a bootstrap of days.

    There is no band if there are too few days.
    """
    origin = tuning.traffic.origin
    first, last = ((origin + time) // UNITS["day"] for time in tuning.demand.ends)
    query = CountBlockNeeds(tuning.recommended.policy.quota, first, last - first + 1)
    hours, resamples = tuning.demand.ask([query], progress)[0]
    rows = tuple(_summarize_hour(place, needs) for place, needs in enumerate(hours) if len(needs.needs))
    if not resamples:
        return rows, None
    bursts = [needs.recommend_burst(tuning.tolerate)[1] for needs in resamples]
    low, high = np.quantile(bursts, BAND, method="nearest").tolist()
    return rows, NeedBand(int(low), int(high), query.days)


def _summarize_hour(place: int, needs: NeedCounts) -> HourNeeds:
    population = needs.sort()
    p99 = population.percentile(PERCENTILES["p99"])
    return HourNeeds(place // 24, place % 24, len(population), p99, int(population.needs[-1]), needs.required)


@dataclass(frozen=True)
class CountBlockNeeds:
    """The needs at a rate within each hour of the week, and those in resamples of the days.

    The required need of an hour is the largest that the burst covers. The need of a client in a resample is the largest
    of its needs within the drawn days.
    """

    rate: Quota
    first: int
    """The first day, counted since 1970."""
    days: int

    def answer(self, tuned: TunedRequests) -> tuple[list[Any], list[Any]]:
        """Count the needs of each hour of the week and of each resample; there are none for too few days."""
        lengths = UNITS["h"], UNITS["day"]
        hours, days = measure_blocks(tuned.traffic, self.rate, lengths, tuned.progress)
        is_covered = tuned.find_needs(self.rate, WHOLE_TIME) <= self.rate.burst
        resamples = self._resample(days, tuned.good) if self.days >= MIN_BOOTSTRAP_DAYS else []
        return _serialize(_divide_by_hour(hours, is_covered)), _serialize(resamples)

    def _resample(self, days: BlockNeeds, good: Booleans) -> Iterator[NeedCounts]:
        """Yield the needs of the keys in each resample."""
        random = np.random.default_rng(SEED)
        numbers = days.blocks - self.first
        begins = np.flatnonzero(np.diff(days.keys, prepend=-1))
        is_good = good[days.keys[begins]]
        for _ in range(RESAMPLES):
            is_drawn = np.zeros(self.days, np.int64)
            is_drawn[random.integers(0, self.days, self.days)] = 1
            largest = is_drawn[numbers] * days.needs
            yield NeedCounts.count(np.maximum.reduceat(largest, begins) if len(begins) else largest, is_good)

    def join(self, answers: Sequence[tuple[list[Any], list[Any]]]) -> tuple[list[NeedCounts], list[NeedCounts]]:
        """Add the counts of each hour, and of each resample."""
        hours, resamples = zip(*answers, strict=True)
        return _join_rows(hours), _join_rows(resamples)


def _divide_by_hour(hours: BlockNeeds, is_covered: Booleans) -> Iterator[NeedCounts]:
    """Yield the needs within each hour of the week, given those within each hour since 1970."""
    places = ((hours.blocks + _EPOCH_WEEKDAY * 24) % _HOURS).astype(np.uint8)
    order = np.argsort(places, kind="stable")
    for count in np.bincount(places, minlength=_HOURS).tolist():
        own, order = order[:count], order[count:]
        yield NeedCounts.count(hours.needs[own], is_covered[hours.keys[own]])


def _join_rows(answers: Sequence[list[Any]]) -> list[NeedCounts]:
    return [NeedCounts.join(parts) for parts in zip(*answers, strict=True)]


def _serialize(counts: Iterable[NeedCounts]) -> list[Any]:
    return [needs.serialize() for needs in counts]


def compare_resolutions(
    tuning: Tuning, unit: int, is_spread: bool, progress: Progress = lambda _: None
) -> dict[str, int]:
    """Return the burst at the recommended rate if the requests of each whole `unit` are spread, or all at its start.

    `is_spread` is how the times of the traffic are.
    """
    demand, rate = tuning.demand, tuning.recommended.policy.quota
    if is_spread:
        (needs,) = demand.ask([CountAlignedNeeds(rate, unit)], progress)
    else:
        needs = demand.count_spread_needs(rate, unit, progress)
    other = needs.recommend_burst(tuning.tolerate)[1]
    return {"spread": rate.burst, "start": other} if is_spread else {"spread": other, "start": rate.burst}
