"""Demand: the requests of all keys as a tuning examines them, in this process or on workers."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from typing import Any, Protocol, TypeVar

import numpy as np

from ratelab.lab.decisions import Progress
from ratelab.lab.traces.merge import spread
from ratelab.lab.traffic import Booleans, Traffic, select_keys
from ratelab.lab.tune.blocks import measure_needs
from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.lab.tune.population import NeedCounts
from ratelab.lab.tune.queries import Query, TunedRequests, align
from ratelab.quota import Quota

Result = TypeVar("Result")

Steps = Generator[Query, Any, Result]
"""A search, which yields queries, is sent their answers, and returns its result."""


class Demand(Protocol):
    """The requests of all keys."""

    traffic: Traffic
    """The clients and their counts; the requests themselves may be on workers."""
    good: Booleans
    """The keys that no quota may deny."""

    @property
    def ends(self) -> tuple[int, int]:
        """The times of the first and the last request."""

    def measure_frontier(self, progress: Progress) -> Frontier:
        """Find the needs of every key, before any query; `progress` counts requests."""

    def ask(self, queries: Sequence[Query], progress: Progress = lambda _: None) -> list[Any]:
        """Return the answers to queries; `progress` is called with the amount of further work done."""

    def count_spread_needs(self, rate: Quota, unit: int, progress: Progress) -> NeedCounts:
        """Count the needs at a rate if the requests of each whole unit of time are spread evenly over it."""


class LocalDemand:
    """Requests in this process."""

    def __init__(self, traffic: Traffic, good: Booleans | None = None, ignored: Booleans | None = None) -> None:
        """Take the requests, without those of the keys to ignore."""
        self._all, self._ignored = traffic, ignored
        self.traffic = traffic if ignored is None else select_keys(traffic, ~ignored)
        self.good = np.zeros(traffic.key_count, np.bool_) if good is None else good
        self._tuned: TunedRequests | None = None

    @property
    def ends(self) -> tuple[int, int]:
        """The times of the first and the last request."""
        return int(self.traffic.times[0]), int(self.traffic.times[-1])

    def measure_frontier(self, progress: Progress) -> Frontier:
        """Find the needs of every key."""
        frontier = measure_frontier(self.traffic, progress)
        self._tuned = TunedRequests(self.traffic, frontier, self.good)
        return frontier

    def ask(self, queries: Sequence[Query], progress: Progress = lambda _: None) -> list[Any]:
        """Return the answers to queries."""
        tuned = self._tuned
        if tuned is None:
            raise ValueError("measure the frontier first")
        tuned.progress = progress
        return [query.join([query.answer(tuned)]) for query in queries]

    def count_spread_needs(self, rate: Quota, unit: int, progress: Progress) -> NeedCounts:
        """Count the needs at a rate if the requests of each whole unit of time are spread evenly over it."""
        traffic = align(self._all, unit)
        spread(traffic.times, unit)
        if self._ignored is not None:
            traffic = select_keys(traffic, ~self._ignored)
        return NeedCounts.count(measure_needs(traffic, rate, progress), self.good)


def run_steps(demand: Demand, searches: Sequence[Steps[Any]], progress: Progress = lambda _: None) -> list[Any]:
    """Run searches side by side, so that their queries are asked together; return their results."""
    results: list[Any] = [None] * len(searches)
    answers: dict[int, Any] = dict.fromkeys(range(len(searches)))
    while answers:
        asked: dict[int, Query] = {}
        for number, answer in answers.items():
            try:
                asked[number] = searches[number].send(answer)
            except StopIteration as end:
                results[number] = end.value
        answers = dict(zip(asked, demand.ask([*asked.values()], progress), strict=True)) if asked else {}
    return results
