"""Outliers: the clients that a quota would deny, with the signals by which a user can judge them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab.spill import Integers
from ratelab.lab.traces.inspection import Inspection, Signals
from ratelab.lab.traffic import select_keys
from ratelab.lab.tune.queries import WHOLE_TIME, TunedRequests, find_denied_keys
from ratelab.lab.tune.tuning import Tuning

MAX_OUTLIERS = 100
"""Outliers that are described."""

MIN_SHARED_AGENTS = 5
"""Agents from which on an address is likely a shared one, if there are few requests for each."""

MAX_REGULAR_VARIATION = 0.1
"""Gaps between requests are regular if their standard deviation is at most this part of their mean."""

MIN_REGULAR_REQUESTS = 10

MIN_CRAWLER_PATHS_RATIO = 0.9
"""Different paths for each request from which on a client looks like a crawler, which requests every page once."""

MIN_CRAWLER_REQUESTS = 100


@dataclass(frozen=True)
class Outlier:
    """A client that the recommended quota denies something."""

    client: str
    need: int
    """Its need at the recommended rate, by a token bucket."""
    requests: int
    requests_ratio: float
    """Its share of all requests."""
    gap_variation: float | None
    """The standard deviation of the gaps between its requests, divided by their mean; None for less than three."""
    signals: Signals | None = None
    """The signals from a second look at the log; None for a scenario."""

    @property
    def is_shared(self) -> bool:
        """Whether its address has many agents, so that many users are likely behind it."""
        return self.signals is not None and (self.signals.agent_count or 0) >= MIN_SHARED_AGENTS

    @property
    def is_regular(self) -> bool:
        """Whether it sends requests at equal intervals, as a script does."""
        variation = self.gap_variation
        return self.requests >= MIN_REGULAR_REQUESTS and variation is not None and variation <= MAX_REGULAR_VARIATION

    @property
    def is_crawler(self) -> bool:
        """Whether nearly every request has another path."""
        ratio = None if self.signals is None else self.signals.paths_ratio
        return self.requests >= MIN_CRAWLER_REQUESTS and ratio is not None and ratio >= MIN_CRAWLER_PATHS_RATIO


def find_outliers(tuning: Tuning) -> tuple[int, list[Outlier]]:
    """Return how many clients the recommended quota denies something, and those that need most, in order."""
    ((count, rows),) = tuning.demand.ask([FindOutliers(tuning.recommended.policy)])
    outliers = [
        Outlier(row.client, row.need, row.requests, round(row.requests / tuning.offered, 6), row.gap_variation)
        for row in rows
    ]
    return count, outliers


class OutlierRow(NamedTuple):
    """The figures of an outlier that its requests alone give."""

    need: int
    place: int
    """The place of its key among all keys."""
    client: str
    requests: int
    gap_variation: float | None


@dataclass(frozen=True)
class FindOutliers:
    """The number of keys that a policy denies something, and those of them that need most."""

    policy: Policy

    def answer(self, tuned: TunedRequests) -> tuple[int, list[OutlierRow]]:
        """Return the number and the rows, in order."""
        traffic, needs = tuned.traffic, tuned.find_needs(self.policy.quota, WHOLE_TIME)
        above = np.flatnonzero(find_denied_keys(self.policy, tuned))
        keys = above[np.argsort(-needs[above], kind="stable")][:MAX_OUTLIERS]
        selected = np.zeros(len(needs), np.bool_)
        selected[keys] = True
        requests = select_keys(traffic, selected)
        owners = requests.request_keys
        rows = []
        for key in keys.tolist():
            times = requests.times[owners == key]
            name, place = traffic.name_key(key), int(tuned.places[key])
            rows.append(OutlierRow(int(needs[key]), place, name, len(times), _measure_variation(times)))
        return len(above), rows

    def join(self, answers: Sequence[tuple[int, Sequence[Any]]]) -> tuple[int, list[OutlierRow]]:
        """Add the numbers, and keep those that need most; of equal needs, the first keys."""
        rows = [OutlierRow(*row) for _, found in answers for row in found]
        rows.sort(key=lambda row: (-row.need, row.place))
        return sum(count for count, _ in answers), rows[:MAX_OUTLIERS]


def _measure_variation(times: Integers) -> float | None:
    gaps = np.diff(times)
    if len(gaps) < 2 or not gaps.any():
        return None
    return round(float(gaps.std() / gaps.mean()), 4)


Inspect = Callable[[Sequence[Outlier]], Inspection]
"""Reads a log a second time for the signals of outliers."""


def look_again(outliers: Sequence[Outlier], inspect: Inspect) -> tuple[list[Outlier], Inspection]:
    """Add the signals of outliers from a second look at the log, which also counts requests that were denied."""
    inspection = inspect(outliers)
    return [replace(outlier, signals=inspection.clients[outlier.client]) for outlier in outliers], inspection
