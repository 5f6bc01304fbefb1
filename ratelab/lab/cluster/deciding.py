"""Task that decides the requests of a partition of the clients, and writes columns of clients and departures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab.cluster.pieces import Summary
from ratelab.lab.cluster.reading import CHUNK_ROWS
from ratelab.lab.cluster.timeline import TrafficTimeline, UnitGroup, spread_times
from ratelab.lab.comparison import decide
from ratelab.lab.decisions import FIGURE_FIELDS
from ratelab.lab.exchange import Exchange, Table, name_file
from ratelab.lab.metrics import count_decisions, sum_squares_exactly
from ratelab.lab.spill import Integers
from ratelab.lab.sweep import count_denied
from ratelab.lab.traces import make_printable
from ratelab.lab.traces.merge import split_columns
from ratelab.lab.traffic import RequestSorter, Traffic, split_batches
from ratelab.lab.tune.difference import compare_policies
from ratelab.lab.windows import Rows, departures, fullest_window


@dataclass(eq=False)
class Found:
    """The findings of a job for the clients of a partition."""

    summary: Summary
    columns: Mapping[str, Integers]
    """Values by client."""
    files: Mapping[str, Iterable[Table]] = field(default_factory=dict)
    """Further files, by their kind."""


class Job(Protocol):
    """Decisions on the requests of a partition, which can be pickled."""

    @property
    def name(self) -> str:
        """The name of its files."""

    @property
    def policies(self) -> Sequence[Policy]:
        """All policies."""

    def decide(self, traffic: Traffic, timeline: TrafficTimeline) -> Found:
        """Decide all requests."""


@dataclass(frozen=True)
class ReplayJob:
    """Replays policies that grant the same quota, and the exact log."""

    policies: tuple[Policy, ...]
    client_timeout: int
    name = "replay"

    def decide(self, traffic: Traffic, timeline: TrafficTimeline) -> Found:
        """Count the decisions of each policy, and find its fullest window."""
        outcomes, reference = decide(self.policies, traffic, fields=FIGURE_FIELDS)
        exact = None if reference is None else reference.decisions
        quota = (outcomes[0] if reference is None else reference).policy.quota
        departed = [departures(traffic, outcome.decisions) for outcome in outcomes]
        counts = [count_decisions(traffic, outcome.decisions, exact, self.client_timeout) for outcome in outcomes]
        windows = [fullest_window(rows, traffic.key_count, quota.window) for rows in departed]
        rows = [{name: value for name, value in vars(each).items() if name != "client_admitted"} for each in counts]
        return Found(
            {"counts": rows, "windows": windows, "costlier": traffic.count_costlier(self.policies[0].quota.burst)},
            {f"admitted{number}": each.client_admitted for number, each in enumerate(counts)},
            {"departures": _divide_departures(departed, timeline.bounds)},
        )


def _divide_departures(departed: Sequence[Rows], bounds: Sequence[int]) -> Iterator[Table]:
    """Yield the times of departure of each policy in each range of time."""
    for rows in departed:
        parts: list[list[Integers]] = [[] for _ in range(len(bounds) + 1)]
        for part in split_batches(len(rows)):
            times = rows[part]["time"].copy()
            for found, piece in zip(parts, np.split(times, np.searchsorted(times, bounds)), strict=True):
                found.append(piece)
        for found in parts:
            yield {"time": np.concatenate([np.empty(0, np.int64), *found])}


@dataclass(frozen=True)
class SweepJob:
    """Counts what each of many policies denies."""

    policies: tuple[Policy, ...]
    name = "sweep"

    def decide(self, traffic: Traffic, _: TrafficTimeline) -> Found:
        """Count the denied requests and clients of each policy."""
        denied = [count_denied(policy, traffic, len(self.policies)) for policy in self.policies]
        return Found({"denied": denied}, {})


@dataclass(frozen=True)
class DiffJob:
    """Compares the decisions of two policies."""

    policies: tuple[Policy, Policy]
    name = "diff"

    def decide(self, traffic: Traffic, _: TrafficTimeline) -> Found:
        """Count the requests that only one of the policies denies."""
        found = compare_policies(*self.policies, traffic)
        summary = {"denied_old": found.denied_old, "denied_new": found.denied_new}
        return Found(summary, {"newly_denied": found.newly_denied, "newly_admitted": found.newly_admitted})


@dataclass(frozen=True)
class DecideTask:
    """Decides partitions."""

    exchange: Exchange
    timeline: TrafficTimeline
    partitions: int
    job: Job
    digest: str
    """The same for the same job."""
    label: str = field(default="decide")

    def name(self, partition: int, kind: str = "") -> str:
        """Return the name of a file of a partition."""
        return name_file(f"{self.job.name}-{self.digest}", partition, kind)

    def __call__(self, partition: int) -> Summary:
        """Write the columns of the clients and the departures of a partition; return its summary."""
        traffic, names, firsts = self._load(partition)
        if not len(traffic):
            summary: Summary = {"requests": 0}
            self.exchange.write(self.name(partition), [{"name": []}], summary)
            return summary
        found = self.job.decide(traffic, self.timeline)
        for kind, tables in found.files.items():
            self.exchange.write(self.name(partition, kind), tables)
        if "windows" in found.summary:
            found.summary["windows"] = [
                window and (window.cost, window.begin, int(firsts[window.key])) for window in found.summary["windows"]
            ]
        summary = {"requests": len(traffic), **found.summary}
        table = {"name": names, "first": firsts, "offered": traffic.client_requests, **found.columns}
        self.exchange.write(self.name(partition), [table], summary)
        return summary

    # --- the requests of a partition

    def _load(self, partition: int) -> tuple[Traffic, list[bytes], Integers]:
        """Return the requests of a partition, and the names and the first appearances of its clients."""
        numbers, names, firsts = self._number_clients(partition)
        spread_file = self.timeline.spread_file
        offsets = [] if spread_file is None else list(self.exchange.read(spread_file))
        sorter = RequestSorter()
        for group in self.timeline.groups:
            pieces = self._read_group(group, partition, numbers, offsets)
            if self.timeline.keeps_order:
                for _, *columns in pieces:
                    sorter.add(*columns)
                continue
            raw, *columns = map(np.concatenate, zip(*pieces, strict=True))
            order = np.argsort(raw, kind="stable")
            sorter.add(*(column[order] for column in columns))
        rows, on_disk = sorter.sort(), sorter.on_disk
        columns = split_columns(rows, self.timeline.start, on_disk)
        return create_traffic(self.timeline, names, columns, on_disk), names, firsts

    def _number_clients(self, partition: int) -> tuple[list[Integers], list[bytes], Integers]:
        """Return the clients of a partition, numbered by first appearance.

        These are the number of each client of each piece, the names, and first appearances. The latter can be compared
        across partitions: the place of the piece, and the number of the client in it.
        """
        known: dict[bytes, int] = {}
        firsts: list[int] = []
        numbers = []
        for place, (number, _) in enumerate(self.timeline.pieces):
            table = next(self.exchange.read(name_file("read", number, "names"), [partition]))
            clients = table["client"]
            found = np.zeros(int(clients.max(initial=-1)) + 1, np.int64)
            for client, name in zip(clients.tolist(), table["name"], strict=True):
                if name not in known:
                    known[name] = len(known)
                    firsts.append(place << 32 | client)
                found[client] = known[name]
            numbers.append(found)
        return numbers, list(known), np.array(firsts, np.int64)

    def _read_group(
        self, group: UnitGroup, partition: int, numbers: Sequence[Integers], offsets: Sequence[dict[str, Any]]
    ) -> Iterator[tuple[Integers, Integers, Integers, Integers]]:
        """Yield the times in the files, the final times, the clients and the costs of the requests of each piece."""
        for place in group.places:
            number, requests = self.timeline.pieces[place]
            chunks = range(-(-max(1, requests) // CHUNK_ROWS))
            places = [chunk * self.partitions + partition for chunk in chunks]
            for table in self.exchange.read(name_file("read", number), places):
                raw = final = table["time"]
                if offsets and group.unit > 1:
                    final = spread_times(raw, table["position"], offsets[place], group.unit)
                costs = table["cost"] if "cost" in table else np.ones(len(raw), np.int64)
                yield raw, final, numbers[place][table["client"]], costs


def create_traffic(
    timeline: TrafficTimeline, names: Sequence[bytes], columns: Sequence[Integers], on_disk: bool
) -> Traffic:
    """Return the traffic of a partition, given the names of its clients, and the times, clients and costs."""
    times, clients, costs = columns
    return Traffic(
        times=times,
        clients=clients,
        costs=costs,
        names=tuple(make_printable(name.decode("utf-8", "surrogatepass")) for name in names),
        keys=np.arange(len(names)),
        duration=timeline.duration,
        origin=timeline.start,
        on_disk=on_disk,
    )


# --- gaps between departures


@dataclass(frozen=True)
class GapTask:
    """Sums the squares of the gaps between the departures of all partitions in a range of time."""

    task: DecideTask
    policies: int
    partitions: tuple[int, ...]
    """The partitions that have requests."""
    label = "gaps"

    def __call__(self, time_range: int) -> list[tuple[int, int, int, int]]:
        """Return, for each policy, the number of departures, the first, the last, and the sum of the squares."""
        found = []
        for policy in range(self.policies):
            number = policy * (len(self.task.timeline.bounds) + 1) + time_range
            files = [self.task.name(partition, "departures") for partition in self.partitions]
            times = np.concatenate([next(self.task.exchange.read(name, [number]))["time"] for name in files])
            times.sort()
            squares = 0
            for part in split_batches(len(times)):
                squares += sum_squares_exactly(np.diff(times[max(0, part.start - 1) : part.stop]))
            ends = (int(times[0]), int(times[-1])) if len(times) else (0, 0)
            found.append((len(times), *ends, squares))
        return found
