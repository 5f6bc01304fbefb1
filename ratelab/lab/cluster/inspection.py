"""Second look of a distributed run at its traces: each task reads a piece again."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.cluster.pieces import Piece, Summary, group_by_file
from ratelab.lab.cluster.reading import CHUNK_ROWS
from ratelab.lab.cluster.run import Advance, ReadFiles
from ratelab.lab.exchange import Exchange, name_file
from ratelab.lab.traces import TraceOptions, inspection, make_printable
from ratelab.lab.traces.inspection import Findings, Inspection, inspect_file, join_findings

Limits = Mapping[str, int]
"""The number of requests of each client that give its signals."""


@dataclass(frozen=True)
class CountTask:
    """Counts the requests of some clients in a piece, of which the number of requests is known."""

    exchange: Exchange
    partitions: int
    clients: frozenset[str]
    digest: str
    label = "count"

    def name(self, item: tuple[Piece, int]) -> str:
        """Return the name of the file of a piece."""
        return name_file(f"count-{self.digest}", item[0].number)

    def __call__(self, item: tuple[Piece, int]) -> Summary:
        """Return the count of each client, and write it."""
        (piece, requests), counts = item, Counter[str]()
        file, chunks = name_file("read", piece.number), range(-(-max(1, requests) // CHUNK_ROWS))
        names = self.exchange.read(name_file("read", piece.number, "names"))
        for partition, table in enumerate(names):
            printable = (make_printable(name.decode("utf-8", "surrogatepass")) for name in table["name"])
            pairs = zip(table["client"].tolist(), printable, strict=True)
            wanted = {client: name for client, name in pairs if name in self.clients}
            batches = [chunk * self.partitions + partition for chunk in chunks] if wanted else []
            for rows in self.exchange.read(file, batches):
                for client, name in wanted.items():
                    counts[name] += int(np.count_nonzero(rows["client"] == client))
        summary = {"counts": dict(counts)}
        self.exchange.write(self.name(item), [{"name": []}], summary)
        return summary


@dataclass(frozen=True)
class InspectTask:
    """Reads pieces again for the signals of clients."""

    exchange: Exchange
    options: TraceOptions
    digest: str
    label = "inspect"

    def name(self, item: tuple[Piece, Limits]) -> str:
        """Return the name of the file of a piece."""
        return name_file(f"inspect-{self.digest}", item[0].number)

    def __call__(self, item: tuple[Piece, Limits]) -> Summary:
        """Return the findings in a piece, or the error of its file, and write them."""
        piece, limits = item
        summary: Summary
        try:
            summary = inspect_file(piece.path, self.options, limits, section=piece.section)._asdict()
        except InputError as error:
            summary = {"error": str(error)}
        self.exchange.write(self.name(item), [{"name": []}], summary)
        return summary


def inspect_pieces(files: ReadFiles, clients: Sequence[tuple[str, int]], progress: Advance) -> Inspection:
    """Collect the signals of clients as `inspect_traces` does, given the number of all requests of each.

    `progress` is called with the number of further bytes read.
    """
    pieces, totals = files.pieces, Counter[str]()
    for name, count in clients:
        totals[name] += count
    digest = hashlib.sha256(repr((totals, inspection.MAX_INSPECTED_REQUESTS)).encode()).hexdigest()[:12]
    limits = _divide_limits(files, totals, digest)
    task = InspectTask(files.exchange, files.options, digest)
    items = [*zip(pieces.pieces, limits, strict=True)]
    summaries = files.run.complete(task, items, lambda place: progress(pieces.bytes[place]), lambda: sum(pieces.bytes))
    groups = [[summary for _, summary in group] for _, group in group_by_file(pieces, summaries)]
    readable = (group for group in groups if not any("error" in summary for summary in group))
    return join_findings(totals, ([Findings(**summary) for summary in group] for group in readable))


def _divide_limits(files: ReadFiles, totals: Counter[str], digest: str) -> list[Limits]:
    """Return the limits of each piece, so that the first requests of a client in a whole file give its signals."""
    most = inspection.MAX_INSPECTED_REQUESTS
    heavy = frozenset(name for name, count in totals.items() if count > most)
    parts = [
        (piece, summary.get("requests", 0))
        for piece, summary in zip(files.pieces.pieces, files.summaries, strict=True)
        if piece.section is not None and heavy
    ]
    counted = files.run.complete(CountTask(files.exchange, files.partitions, heavy, digest), parts) if parts else []
    counts = {piece.number: summary["counts"] for (piece, _), summary in zip(parts, counted, strict=True)}
    limits, rest, file = list[Limits](), dict[str, int](), None
    for piece in files.pieces.pieces:
        if piece.file != file:
            rest, file = dict.fromkeys(totals, most), piece.file
        limits.append(rest)
        rest = {name: max(0, count - counts.get(piece.number, {}).get(name, 0)) for name, count in rest.items()}
    return limits
