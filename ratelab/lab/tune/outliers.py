"""Outliers: the clients that a quota would deny, with the signals by which a user can judge them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ratelab.lab.spill import Integers
from ratelab.lab.traces import TraceOptions
from ratelab.lab.traces.inspection import Inspection, Signals, inspect_traces
from ratelab.lab.traffic import select_keys
from ratelab.lab.tune.candidates import find_denied_keys
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
    traffic, quota = tuning.traffic, tuning.recommended.policy.quota
    needs = tuning.frontier.find_needs(quota)
    above = np.flatnonzero(find_denied_keys(tuning.recommended.policy, traffic, tuning.frontier))
    keys = above[np.argsort(-needs[above], kind="stable")][:MAX_OUTLIERS]
    selected = np.zeros(len(needs), np.bool_)
    selected[keys] = True
    requests = select_keys(traffic, selected)
    owners = requests.request_keys
    outliers = []
    for key in keys.tolist():
        times = requests.times[owners == key]
        share = round(len(times) / len(traffic), 6)
        outliers.append(Outlier(traffic.name_key(key), int(needs[key]), len(times), share, _measure_variation(times)))
    return len(above), outliers


def _measure_variation(times: Integers) -> float | None:
    gaps = np.diff(times)
    if len(gaps) < 2 or not gaps.any():
        return None
    return round(float(gaps.std() / gaps.mean()), 4)


def look_again(
    outliers: Sequence[Outlier], paths: Sequence[str], options: TraceOptions, progress: Callable[[int], None]
) -> tuple[list[Outlier], Inspection]:
    """Read the log again for the signals of outliers, and for requests that were already denied.

    `progress` is called with the number of further bytes read.
    """
    inspection = inspect_traces(paths, options, [outlier.client for outlier in outliers], progress)
    found = inspection.clients
    return [replace(outlier, signals=found[outlier.client]) for outlier in outliers], inspection
