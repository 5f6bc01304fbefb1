"""Task that reads a piece of a trace, and writes its requests to the exchange by partition of the clients."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.cluster.pieces import Piece, Summary
from ratelab.lab.exchange import Exchange, Table, name_file
from ratelab.lab.spill import Integers
from ratelab.lab.traces import TraceOptions, format_path
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.files import Block, MissingFileError
from ratelab.lab.traces.merge import FileRequests
from ratelab.lab.traces.reader import BatchReader, open_source
from ratelab.quota import NS_PER_S

CHUNK_ROWS = 1 << 20
"""Requests that are divided among the partitions at a time."""

QUANTILES = 64
"""Parts of the requests of a piece, of the same size, whose times are reported."""

MISSING, INVALID_LINE, UNREADABLE = "missing", "line", "unreadable"
"""Kinds of errors of files."""


@dataclass(frozen=True)
class ReadTask:
    """Reads pieces."""

    exchange: Exchange
    options: TraceOptions
    partitions: int
    label = "read"

    def name(self, piece: Piece) -> str:
        """Return the name of the file of a piece."""
        return name_file("read", piece.number)

    def __call__(self, piece: Piece) -> Summary:
        """Write the requests of a piece; return its summary, or the error of its file."""
        try:
            return self._read(piece)
        except LineError as error:
            return {"error": str(error), "kind": INVALID_LINE}
        except MissingFileError as error:
            return {"error": str(error), "kind": MISSING}
        except InputError as error:
            return {"error": str(error), "kind": UNREADABLE}

    def _read(self, piece: Piece) -> Summary:
        lines = _LineCounter()
        source = open_source(piece.path, self.options, None, None, select=lines, section=piece.section)
        reader = BatchReader(self.options.strict)
        file = FileRequests(format_path(piece.path), source.format, *source.explanations, reader)
        in_order = _RunLengths()
        with closing(source.batches) as batches:
            for batch in batches:
                columns = reader.read(batch, source.parse_line)
                if piece.section is not None:
                    in_order.add(_select_in_order(columns.times, in_order.last))
                file.add(columns)
        rows = file.requests.sort()
        summary = {
            "format": file.format,
            "notes": list(file.notes),
            "late_notes": sorted(source.late_notes),
            "anonymous_reason": file.anonymous_reason,
            "lines": lines.count,
            "unparsed": reader.unparsed,
            "rejects": [[reject.line, reject.reason, reject.text] for reject in reader.rejects],
            "omitted": list(reader.omitted.items()),
            "requests": len(rows),
            "clients": len(reader.clients),
            "resolution": asdict(file.resolution),
            "reordered": file.reordered,
            "cost": file.cost,
            "times": rows["time"][np.linspace(0, len(rows) - 1, QUANTILES + 1).astype(np.int64)].tolist()
            if len(rows)
            else [],
            "first_in_order": in_order.first,
        }
        self._write(piece.number, file, rows, in_order, summary)
        return summary

    def _write(
        self, number: int, file: FileRequests, rows: NDArray[Any], in_order: _RunLengths, summary: Summary
    ) -> None:
        """Write the files of a piece; that of the requests comes last, and marks the piece as read."""
        names = [name.encode("utf-8", "surrogatepass") for name in file.reader.clients]
        owners = np.array([crc32(name) % self.partitions for name in names], np.uint32)
        self.exchange.write(name_file("read", number, "names"), self._divide_names(names, owners))
        if file.resolution.whole_seconds:
            self.exchange.write(name_file("read", number, "seconds"), [count_seconds(rows)])
        if in_order.values:
            self.exchange.write(name_file("read", number, "order"), [in_order.table()])
        self.exchange.write(name_file("read", number), self._divide_rows(rows, owners), summary)

    def _divide_names(self, names: list[bytes], owners: NDArray[np.uint32]) -> Iterator[Table]:
        """Yield the clients of each partition."""
        for partition in range(self.partitions):
            clients = np.flatnonzero(owners == partition)
            yield {"client": clients, "name": [names[client] for client in clients.tolist()]}

    def _divide_rows(self, rows: NDArray[Any], owners: NDArray[np.uint32]) -> Iterator[Table]:
        """Yield the requests of each partition, chunk by chunk; `position` is their place in the order of time."""
        has_costs = any(
            bool((rows["cost"][begin : begin + CHUNK_ROWS] != 1).any()) for begin in range(0, len(rows), CHUNK_ROWS)
        )
        for begin in range(0, max(1, len(rows)), CHUNK_ROWS):
            chunk = rows[begin : begin + CHUNK_ROWS]
            partitions = owners[chunk["owner"]]
            order = np.argsort(partitions.astype(np.uint16), kind="stable")
            ends = np.cumsum(np.bincount(partitions, minlength=self.partitions))
            for places in np.split(order, ends[:-1]):
                part = chunk[places]
                table = {"time": part["time"], "position": places + begin, "client": part["owner"].astype(np.uint32)}
                yield {**table, "cost": part["cost"]} if has_costs else table


class _LineCounter:
    """Counts the lines of blocks that pass."""

    count = 0

    def __call__(self, blocks: Iterable[Block]) -> Iterator[Block]:
        for block in blocks:
            self.count = block.first_line + len(block.newlines)
            yield block


def _select_in_order(times: Integers, latest: int | None) -> Integers:
    """Return the times that no earlier one exceeds."""
    if not len(times):
        return times
    before = np.maximum.accumulate(np.append(times[0] if latest is None else latest, times))
    return times[times >= before[:-1]]


class _RunLengths:
    """Rising times, as runs of equal ones."""

    def __init__(self) -> None:
        self.values: list[Integers] = []
        self._counts: list[Integers] = []
        self.first: int | None = None
        self.last: int | None = None

    def add(self, times: Integers) -> None:
        """Add times, none before those that were added."""
        if len(times):
            values, counts = np.unique(times, return_counts=True)
            self.values.append(values)
            self._counts.append(counts.astype(np.int64))
            self.first = int(times[0]) if self.first is None else self.first
            self.last = int(times[-1])

    def table(self) -> Table:
        """Return the times and their counts; a time may occur twice."""
        return {"time": np.concatenate(self.values), "count": np.concatenate(self._counts)}


def count_seconds(rows: NDArray[Any]) -> Table:
    """Return each whole second of sorted rows, with the position and the number of its requests."""
    seconds, firsts, counts = [], [], []
    for begin in range(0, len(rows), CHUNK_ROWS):
        times = rows["time"][begin : begin + CHUNK_ROWS]
        places = np.flatnonzero(times % NS_PER_S == 0)
        values, first, number = np.unique(times[places], return_index=True, return_counts=True)
        seconds.append(values)
        firsts.append(places[first] + begin)
        counts.append(number)
    second, first, count = map(np.concatenate, (seconds, firsts, counts))
    starts = np.flatnonzero(np.diff(second, prepend=second[0] - 1))  # a second may continue in the next chunk
    return {"second": second[starts], "first": first[starts], "count": np.add.reduceat(count, starts)}
