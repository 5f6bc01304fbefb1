"""Tuning of a distributed run: frontiers of partitions, and queries that tasks answer from their requests."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab import spill
from ratelab.lab.cluster.deciding import DecideTask, Found, create_traffic
from ratelab.lab.cluster.pieces import Summary
from ratelab.lab.cluster.reading import CHUNK_ROWS
from ratelab.lab.cluster.results import decide_partitions
from ratelab.lab.cluster.run import Advance, ReadFiles
from ratelab.lab.cluster.timeline import TrafficTimeline
from ratelab.lab.decisions import Progress
from ratelab.lab.exchange import Exchange, Table, name_file
from ratelab.lab.spill import Integers, map_column
from ratelab.lab.traffic import Booleans, Traffic, select_keys
from ratelab.lab.tune.blocks import measure_needs
from ratelab.lab.tune.frontier import Frontier, measure_frontier
from ratelab.lab.tune.population import NeedCounts
from ratelab.lab.tune.queries import Query, TunedRequests
from ratelab.lab.tune.tuning import match_keys
from ratelab.quota import Quota

Names = tuple[str, ...]
"""Names, patterns and networks of clients."""


def _select(traffic: Traffic, ignored: Names) -> Traffic:
    """Return the requests of the clients that are not ignored."""
    return select_keys(traffic, ~match_keys(traffic, ignored)) if ignored else traffic


@dataclass(frozen=True)
class FrontierJob:
    """Finds the needs of all clients at every rate, and keeps their requests in order for queries."""

    ignored: Names
    policies: tuple[Policy, ...] = ()
    name = "tune"

    def decide(self, traffic: Traffic, _: TrafficTimeline) -> Found:
        """Return the frontier and the requests, without those of the ignored clients."""
        traffic = _select(traffic, self.ignored)
        frontier = measure_frontier(traffic)
        ends = [int(traffic.times[0]), int(traffic.times[-1])] if len(traffic) else []
        return Found(
            {"selected": len(traffic), "ends": ends},
            {"selected": traffic.client_requests, "corners": np.diff(frontier.begins)},
            {
                "corners": [{"span": frontier.spans, "amount": frontier.amounts}],
                "requests": _divide_requests(traffic),
            },
        )


def _divide_requests(traffic: Traffic) -> Iterator[Table]:
    """Yield the requests, chunk by chunk."""
    for begin in range(0, max(1, len(traffic)), CHUNK_ROWS):
        part = traffic[begin : begin + CHUNK_ROWS]
        table = {"time": part.times, "client": part.clients.astype(np.uint32)}
        yield table if traffic.has_unit_costs else {**table, "cost": part.costs}


@dataclass(frozen=True)
class SpreadNeedsJob:
    """Counts the needs at a rate, of requests that the timeline spreads."""

    rate: Quota
    good: Names
    ignored: Names
    policies: tuple[Policy, ...] = ()
    name = "spread"

    def decide(self, traffic: Traffic, _: TrafficTimeline) -> Found:
        """Count the needs."""
        traffic = _select(traffic, self.ignored)
        needs = NeedCounts.count(measure_needs(traffic, self.rate), _match(traffic, self.good))
        return Found({"needs": needs.serialize()}, {})


def _match(traffic: Traffic, names: Names) -> Booleans:
    return match_keys(traffic, names) if names else np.zeros(traffic.key_count, np.bool_)


@dataclass(frozen=True)
class AnswerTask:
    """Answers queries about the requests of a partition that a `FrontierJob` has kept."""

    decided: DecideTask
    queries: tuple[Query, ...]
    good: Names
    digest: str
    """The same for the same queries about the same requests."""
    label = "answer"

    @property
    def exchange(self) -> Exchange:
        """The exchange."""
        return self.decided.exchange

    def name(self, partition: int) -> str:
        """Return the name of the file of a partition."""
        return name_file(f"answer-{self.digest}", partition)

    def __call__(self, partition: int) -> Summary:
        """Return the answers, and write them."""
        tuned = self._load(partition)
        summary = {"answers": [query.answer(tuned) for query in self.queries]}
        self.exchange.write(self.name(partition), [{"name": []}], summary)
        return summary

    def _load(self, partition: int) -> TunedRequests:
        """Return the requests of a partition, and their frontier."""
        decided = self.decided
        (table,) = self.exchange.read(decided.name(partition))
        (corners,) = self.exchange.read(decided.name(partition, "corners"))
        size = int(table["selected"].sum())
        on_disk = size > spill.MAX_ROWS_IN_MEMORY
        columns = [map_column(np.int64, size) if on_disk else np.empty(size, np.int64) for _ in range(3)]
        end = 0
        for rows in self.exchange.read(decided.name(partition, "requests")):
            part = slice(end, end + len(rows["time"]))
            for column, values in zip(columns, (rows["time"], rows["client"], rows.get("cost", 1)), strict=True):
                column[part] = values
            end = part.stop
        traffic = create_traffic(decided.timeline, table["name"], columns, on_disk)
        frontier = Frontier(_begin(table["corners"]), corners["span"], corners["amount"])
        return TunedRequests(traffic, frontier, _match(traffic, self.good), table["first"])


def _begin(counts: Integers) -> Integers:
    """Return where each group of this many values begins, and the number of all values."""
    return np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)


class RemoteDemand:
    """Requests that tasks examine, partition by partition; here are the clients, their counts and their frontier."""

    def __init__(self, files: ReadFiles, good: Sequence[str], ignored: Sequence[str], progress: Advance) -> None:
        """Find the frontiers of all partitions; `progress` is called with the number of further partitions.

        `good` and `ignored` name clients that no quota may deny, and those that do not count.
        """
        self._files, self._good, self._ignored = files, tuple(good), tuple(ignored)
        self._decided = decided = decide_partitions(files, FrontierJob(self._ignored), progress)
        self.trace = decided.create_trace(files)
        """The trace, with the ignored requests."""
        size = sum(summary["selected"] for summary in decided.summaries)
        self.traffic: Traffic = replace(decided.create_traffic(), size=size, offered=decided.columns["selected"])
        self.good = _match(self.traffic, self._good)

    @property
    def ends(self) -> tuple[int, int]:
        """The times of the first and the last request."""
        ends = [summary["ends"] for summary in self._decided.summaries if summary["ends"]]
        return min(first for first, _ in ends), max(last for _, last in ends)

    def measure_frontier(self, progress: Progress) -> Frontier:  # noqa: ARG002  (tasks have measured it)
        """Return the frontiers of all partitions, joined in the order in which clients first appear."""
        decided, exchange = self._decided, self._files.exchange
        names = [decided.task.name(partition, "corners") for partition in decided.partitions]
        tables = [table for name in names for table in exchange.read(name)]
        spans, amounts = (np.concatenate([table[column] for table in tables]) for column in ("span", "amount"))
        counts = decided.columns["corners"]
        stored = np.empty_like(counts)
        stored[decided.order] = counts
        begins = _begin(counts)
        places = np.repeat(_begin(stored)[decided.order] - begins[:-1], counts) + np.arange(begins[-1])
        return Frontier(begins, spans[places], amounts[places])

    def ask(self, queries: Sequence[Query], progress: Progress = lambda _: None) -> list[Any]:  # noqa: ARG002
        """Return the answers to queries, which the tasks of one stage answer together."""
        task = self._decided.task
        digest = hashlib.sha256(repr((task.digest, *queries, self._good)).encode()).hexdigest()[:12]
        answer = AnswerTask(task, tuple(queries), self._good, digest)
        summaries = self._files.run.complete(answer, self._decided.partitions)
        columns = zip(*(summary["answers"] for summary in summaries), strict=True)
        return [query.join(answers) for query, answers in zip(queries, columns, strict=True)]

    def count_spread_needs(self, rate: Quota, unit: int, progress: Progress) -> NeedCounts:  # noqa: ARG002
        """Count the needs at a rate if the requests of each whole unit of time are spread evenly over it."""
        job = SpreadNeedsJob(rate, self._good, self._ignored)
        found = decide_partitions(self._files, job, lambda _: None, unit)
        return NeedCounts.join([summary["needs"] for summary in found.summaries])
