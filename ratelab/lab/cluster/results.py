"""Results of a distributed run: what the tasks of all partitions found, joined as one process finds it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from time import monotonic
from typing import Any

import numpy as np

from ratelab.algorithms import Policy, traits_of
from ratelab.errors import InputError
from ratelab.lab.cluster.deciding import DecideTask, DiffJob, GapTask, Job, ReplayJob, SweepJob
from ratelab.lab.cluster.pieces import Summary
from ratelab.lab.cluster.run import Advance, ReadFiles, Stage
from ratelab.lab.cluster.timeline import build_timeline
from ratelab.lab.comparison import Comparison, build_exact, check_names
from ratelab.lab.decisions import Outcome
from ratelab.lab.metrics import DecisionCounts, Gaps, Result, build_result
from ratelab.lab.spill import Integers
from ratelab.lab.sweep import SweepResult, build_row
from ratelab.lab.traces import Trace, format_paths, make_printable
from ratelab.lab.traces.merge import describe_trace
from ratelab.lab.traffic import Traffic
from ratelab.lab.tune.difference import PolicyDifference
from ratelab.lab.windows import Window


@dataclass(frozen=True, eq=False)
class RemoteTraffic(Traffic):
    """Traffic whose requests were decided by tasks; only its clients and counts are here."""

    size: int = 0
    offered: Integers = field(default_factory=lambda: np.empty(0, np.int64))
    costlier: int = 0
    """The requests that cost more than the burst."""

    def __len__(self) -> int:
        return self.size

    @cached_property
    def client_requests(self) -> Integers:
        """The number of requests of each client."""
        return self.offered

    def count_costlier(self, burst: int) -> int:  # noqa: ARG002  (tasks have counted for the burst of the run)
        """Count the requests that cost more than the burst."""
        return self.costlier


@dataclass(frozen=True, eq=False)
class Decided:
    """The columns of all clients in the order of their first appearance, and the summaries of all partitions."""

    task: DecideTask
    summaries: list[Summary]
    """Those of the partitions that have requests."""
    partitions: tuple[int, ...]
    names: tuple[str, ...]
    firsts: Integers
    columns: dict[str, Integers]
    order: Integers
    """The place of each client in the tables of the partitions, one after the other."""

    def create_traffic(self) -> RemoteTraffic:
        """Return the traffic without its requests."""
        empty, timeline = np.empty(0, np.int64), self.task.timeline
        return RemoteTraffic(
            times=empty,
            clients=empty,
            costs=empty,
            names=self.names,
            keys=np.arange(len(self.names)),
            duration=timeline.duration,
            origin=timeline.start,
            size=sum(summary["requests"] for summary in self.summaries),
            offered=self.columns["offered"],
            costlier=sum(summary.get("costlier", 0) for summary in self.summaries),
        )

    def create_trace(self, files: ReadFiles) -> Trace:
        """Return the trace without its requests."""
        return describe_trace(self.create_traffic(), [file for file, _ in files.files], files.notes, files.options)


def decide_partitions(files: ReadFiles, job: Job, progress: Advance, unit: int | None = None) -> Decided:
    """Decide all partitions by tasks; `progress` is called with the number of further partitions decided.

    With a `unit` of time, requests are spread over whole units of it, whatever the options are.
    """
    check_built_in(job.policies)
    run, exchange = files.run, files.exchange
    is_spread = files.options.within_second == "spread"
    try:
        timeline = build_timeline(files.files, is_spread, files.partitions, exchange, unit)
    except InputError as error:
        raise InputError(f"{format_paths(files.paths)}: {error}") from None
    digest = hashlib.sha256(repr((job, timeline)).encode()).hexdigest()[:12]
    task = DecideTask(exchange, timeline, files.partitions, job, digest)
    summaries = run.complete(task, range(files.partitions), lambda _: progress(1), exchange.sum_bytes)
    found = {number: summary for number, summary in enumerate(summaries) if summary["requests"]}
    return _join_clients(task, found)


def _join_clients(task: DecideTask, found: dict[int, Summary]) -> Decided:
    tables = [next(task.exchange.read(task.name(partition))) for partition in found]
    columns: dict[str, Any] = {
        name: np.concatenate([table[name] for table in tables]) for name in tables[0] if name != "name"
    }
    order = np.argsort(columns["first"])
    names = [name for table in tables for name in table["name"]]
    return Decided(
        task,
        [*found.values()],
        (*found,),
        tuple(make_printable(names[place].decode("utf-8", "surrogatepass")) for place in order.tolist()),
        columns["first"][order],
        {name: column[order] for name, column in columns.items()},
        order,
    )


def check_built_in(policies: Sequence[Policy]) -> None:
    """Raise `InputError` for a third-party algorithm, whose code workers may lack."""
    for policy in policies:
        if traits_of(policy.algorithm).bound is None:
            raise InputError(f"{policy.name} is not built in, and workers may lack its code: leave out --engine")


# --- replay


def compare(
    policies: Sequence[Policy], client_timeout: int, files: ReadFiles, progress: Advance
) -> tuple[Trace, Comparison]:
    """Replay policies on all partitions, and return the same figures as `comparison.compare`."""
    check_names(policy.name for policy in policies)
    decided = decide_partitions(files, ReplayJob(tuple(policies), client_timeout), progress)
    trace = decided.create_trace(files)
    traffic = trace.traffic
    exact = build_exact(policies[0].quota)
    gaps = _measure_gaps(files, decided, len(policies))
    quota = policies[0].quota if exact is None else exact.quota
    results = tuple(
        _build_result(policy, number, quota, traffic, decided, gaps[number]) for number, policy in enumerate(policies)
    )
    outcomes = tuple(Outcome(policy, traffic, {}) for policy in policies)
    reference = None if exact is None else Outcome(exact, traffic, {})
    return trace, Comparison(traffic, outcomes, reference, results, client_timeout=client_timeout)


def _build_result(policy: Policy, number: int, quota: Any, traffic: Traffic, decided: Decided, gaps: Gaps) -> Result:
    """Join the counts of all partitions: sums, and the largest delay and window."""
    counts = DecisionCounts(decided.columns[f"admitted{number}"])
    rows = [summary["counts"][number] for summary in decided.summaries]
    for name in ("admitted", "delayed", "total_delay", "timed_out"):
        setattr(counts, name, sum(row[name] for row in rows))
    counts.max_delay = max(row["max_delay"] for row in rows)
    if rows[0]["over_admitted"] is not None:
        counts.over_admitted = sum(row["over_admitted"] for row in rows)
        counts.over_denied = sum(row["over_denied"] for row in rows)
    windows = [summary["windows"][number] for summary in decided.summaries]
    best = max(
        (window for window in windows if window), key=lambda window: (window[0], -window[1], -window[2]), default=None
    )
    fullest = None if best is None else Window(best[0], best[1], int(np.searchsorted(decided.firsts, best[2])))
    return build_result(policy, quota, traffic, counts, fullest, gaps)


def _measure_gaps(files: ReadFiles, decided: Decided, policies: int) -> list[Gaps]:
    """Sum the gaps between departures of all partitions: those within each range of time, and between ranges."""
    started, run = monotonic(), files.run
    ranges = len(decided.task.timeline.bounds) + 1
    found: list[list[tuple[int, int, int, int]]] = [[] for _ in range(ranges)]
    for place, sums in run.engine.map(GapTask(decided.task, policies, decided.partitions), range(ranges)):
        found[place] = sums
    run.add_stage(Stage("gaps", ranges, 0, 0, monotonic() - started))
    return [_join_ranges([row[policy] for row in found if row[policy][0]]) for policy in range(policies)]


def _join_ranges(rows: Sequence[tuple[int, int, int, int]]) -> Gaps:
    if not rows:
        return Gaps(0, 0, 0)
    number = sum(row[0] for row in rows) - 1
    squares = sum(row[3] for row in rows)
    squares += sum((later[1] - row[2]) ** 2 for row, later in pairwise(rows))
    return Gaps(number, rows[-1][2] - rows[0][1], squares)


# --- sweep and diff


def sweep(policies: Sequence[Policy], files: ReadFiles, progress: Advance) -> tuple[Trace, SweepResult]:
    """Count what policies deny on all partitions, and return the same rows as `sweep.sweep`."""
    decided = decide_partitions(files, SweepJob(tuple(policies)), progress)
    trace = decided.create_trace(files)
    requests, clients = len(trace.traffic), int(np.count_nonzero(trace.traffic.client_requests))
    rows = []
    for number, policy in enumerate(policies):
        counts = [summary["denied"][number] for summary in decided.summaries]
        denied, clients_denied = (sum(column) for column in zip(*counts, strict=True))
        rows.append(build_row(policy, denied, clients_denied, requests, clients))
    return trace, SweepResult(requests, clients, tuple(rows))


def diff(old: Policy, new: Policy, files: ReadFiles, progress: Advance) -> tuple[Trace, PolicyDifference]:
    """Compare two policies on all partitions, as `tune.difference.compare_policies` does."""
    decided = decide_partitions(files, DiffJob((old, new)), progress)
    trace = decided.create_trace(files)
    denied_old, denied_new = (
        sum(summary[name] for summary in decided.summaries) for name in ("denied_old", "denied_new")
    )
    columns = decided.columns["newly_denied"], decided.columns["newly_admitted"]
    return trace, PolicyDifference(trace.traffic, old, new, denied_old, denied_new, *columns)
