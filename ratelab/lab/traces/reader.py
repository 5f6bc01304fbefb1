"""Traces: recorded traffic, read from access logs, JSON lines, CSV and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import NamedTuple

import numpy as np

from ratelab.errors import InputError, install_hint
from ratelab.lab.spill import Column, DiskColumn, Gathering
from ratelab.lab.traces.access_log import ReadLine
from ratelab.lab.traces.batches import REJECTS_KEPT, Columns, Numbering, Part, Reader, Reject, unread
from ratelab.lab.traces.files import (
    LineError,
    arrow_installed,
    called,
    called_together,
    is_parquet,
    printable,
    read_blocks,
)
from ratelab.lab.traces.formats import TraceOptions, recognised
from ratelab.lab.traces.jsonl import json_reader
from ratelab.lab.traffic import Asked, LongTraffic, from_rows, parts_of
from ratelab.quota import LARGEST, UNITS

SECOND = UNITS["s"]


def count_from(table: Column, start: int) -> None:
    """Count the times of a table from `start`."""
    for part in parts_of(len(table)):
        rows = table[part]
        rows["time"] -= start
        table[part] = rows


def spread(table: Column) -> None:
    """Spread the requests of each second of an ordered table evenly over it: the k-th of n (from 0) at k/n of it."""
    second, seen, total = None, 0, 0  # of the second that goes on from part to part
    for part in parts_of(len(table)):
        rows = table[part]
        times = rows["time"]
        firsts = np.flatnonzero(np.diff(times, prepend=times[0] - 1))
        counts = np.diff(firsts, append=len(times))
        totals, ranks = counts.copy(), np.arange(len(times)) - np.repeat(firsts, counts)
        if times[0] == second:
            ranks[: counts[0]] += seen
            totals[0] = total
        if times[-1] != second:
            totals[-1] += _following(table, part.stop, int(times[-1]))
        second, seen, total = int(times[-1]), int(ranks[-1]) + 1, int(totals[-1])
        rows["time"] += ranks * SECOND // np.repeat(totals, counts)
        table[part] = rows


def _following(table: Column, begin: int, time: int) -> int:
    """Count the rows from `begin` on that are of the same time."""
    count = 0
    for part in parts_of(len(table) - begin):
        times = table[begin + part.start : begin + part.stop]["time"]
        count += int(np.searchsorted(times, time, "right"))
        if times[-1] != time:
            break
    return count


class Source(NamedTuple):
    """A file that has been opened."""

    format: str
    read_line: ReadLine
    """Reads what is left of a part."""
    parts: Generator[Part, None, None]


def opened(path: str, options: TraceOptions, progress: Callable[[int], None] | None, columnar: bool | None) -> Source:
    """Open a file, or standard input for `-`; lines are read together if `columnar`, or by default if they are many.

    Raises `InputError` for what cannot be read, then or while iterating.
    """
    if is_parquet(path):
        return _parquet(path, options, progress)
    blocks = read_blocks(path, progress)
    first = list(islice(blocks, 2))
    format_, blocks = recognised(chain(first, blocks), options)
    if columnar is None:
        columnar = len(first) > 1 and arrow_installed()
    if columnar and format_.columnar:
        from ratelab.lab.traces.columnar import parts_of

        return Source(format_.name, format_.read_line, parts_of(blocks, format_))
    return Source(format_.name, format_.read_line, (unread(list(block.lines())) for block in blocks))


def _parquet(path: str, options: TraceOptions, progress: Callable[[int], None] | None) -> Source:
    if not arrow_installed():
        raise InputError(f"reading Parquet needs pyarrow: {install_hint('logs')}, or convert it to CSV")
    if options.format not in ("auto", "parquet"):
        raise InputError(f"it is a Parquet file, not {options.format}: leave out --format")
    from ratelab.lab.traces.columnar import named_columns, parquet_parts

    fields = named_columns(path, options.fields)
    return Source("parquet", json_reader(fields), parquet_parts(path, fields, progress))


@dataclass(frozen=True, eq=False)
class Trace:
    """Recorded traffic, and how well it could be read."""

    traffic: Asked
    """From the first request on, which is its origin, in nanoseconds since 1970.

    Clients are numbered in the order in which the file first names them; control characters in their names are escaped.
    """
    format: str
    """What it was read as: log, jsonl, csv or parquet; of several files, all that there are."""
    lines: int
    """Lines that are not blank, a CSV header aside: as many as requests, repeated and unparsed lines."""
    repeated: int
    """Rows of what `--events` wrote that are the same requests as decided by other algorithms than the first."""
    unparsed: int
    """Lines that could not be read."""
    reordered: int
    """Requests that are earlier than one before them in their file."""
    whole_seconds: bool
    """Whether no time has a fraction of a second."""
    rejects: tuple[Reject, ...]
    """The first three lines that could not be read."""


_DEFAULT = TraceOptions()


def read_trace(path: str, options: TraceOptions = _DEFAULT, progress: Callable[[int], None] | None = None) -> Trace:
    """Read one file as `read_traces` does."""
    return read_traces((path,), options, progress)


def read_traces(
    paths: Sequence[str],
    options: TraceOptions = _DEFAULT,
    progress: Callable[[int], None] | None = None,
    columnar: bool | None = None,
) -> Trace:
    """Read logs, JSON lines and CSV, plain or packed by gzip or zstd, and Parquet, as one trace; `-` is standard input.

    Lines that cannot be read are counted, blank ones skipped. Times are sorted, stably; requests too many to be held in
    memory become a `LongTraffic`. `progress` is called now and then with how many more bytes have been read, as stored.
    Lines are read a block at a time by Arrow if `columnar`, or by default if a file is large and there is Arrow (extra
    `logs`), to the same results.

    If no time has a fraction of a second, the n requests of each second are spread evenly over it in the order of
    the files, the k-th (from 0) at k/n of it; with `within_second="start"` all stand at its start. The last second
    then counts whole in the duration, which otherwise ends with the last request and is at least 1 ns.

    Raises `InputError` for a file that cannot be read to its end, for one without a line that can be read, for a
    field that it does not have, for times over 146 years apart and, if strict, for any line that cannot be read.
    """
    gathered = _Gathered()
    files = [_read(path, options, gathered, progress, columnar) for path in paths]
    if len(files) > 1:
        files = [file._replace(rejects=[replace(one, file=file.name) for one in file.rejects]) for file in files]
    try:
        return _trace(files, gathered, options.within_second)
    except InputError as error:
        raise InputError(f"{called_together(paths)}: {error}") from None


class _File(NamedTuple):
    """What there is to know of a file."""

    name: str
    format: str
    repeated: int
    unparsed: int
    rejects: list[Reject]


class _Gathered:
    """The requests of all files, and what is found as they come."""

    def __init__(self) -> None:
        self.index = Numbering()
        self.requests = Gathering()
        self.reordered = 0
        self.whole_seconds = True
        self.dearest = 0
        self.cost = 0.0
        self._latest: int | None = None

    def begin(self) -> None:
        """Begin a file."""
        self._latest = None

    def add(self, columns: Columns) -> None:
        """Take the requests of some lines."""
        times, clients, costs = columns
        if not len(times):
            return
        before = times[0] if self._latest is None else self._latest
        latest = np.maximum.accumulate(np.append(before, times))
        self.reordered += int(np.count_nonzero(times < latest[:-1]))
        self._latest = int(latest[-1])
        self.whole_seconds = self.whole_seconds and not (times % SECOND).any()
        self.dearest = max(self.dearest, int(costs.max()))
        self.cost += float(costs.sum(dtype=np.float64))
        self.requests.add(times, clients, costs)


def _read(
    path: str, options: TraceOptions, gathered: _Gathered, progress: Callable[[int], None] | None, columnar: bool | None
) -> _File:
    """Read a file into what is gathered."""
    name, before = called(path), len(gathered.requests)
    reader = Reader(options.strict, gathered.index)
    gathered.begin()
    try:
        source = opened(path, options, progress, columnar)
        with closing(source.parts) as parts:  # its threads end here, not whenever it is collected
            for part in parts:
                gathered.add(reader.read(part, source.read_line))
        if len(gathered.requests) == before:
            raise InputError(_nothing_read(reader, source.format))
    except LineError as error:
        raise InputError(f"{name}:{error}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return _File(name, source.format, reader.repeated, reader.unparsed, reader.rejects)


def _nothing_read(reader: Reader, format_: str) -> str:
    """Say why a file gave no request at all."""
    if not reader.unparsed:
        return f"it must have requests, but has only the {format_} header: give a file with rows"
    return (
        f"none of its {reader.unparsed} lines can be read as {format_}: "
        f"check --format and what is said of line {reader.rejects[0]}"
    )


def _trace(files: Sequence[_File], gathered: _Gathered, within_second: str) -> Trace:
    """Put the requests in the order of time and count it from the first."""
    requests = gathered.requests.in_order()
    start, last = int(requests[:1]["time"][0]), int(requests[len(requests) - 1 :]["time"][0])
    _check_fits(last - start, gathered.cost)
    count_from(requests, start)
    if gathered.whole_seconds and within_second == "spread":
        spread(requests)
    duration = max(last - start + SECOND * gathered.whole_seconds, 1)
    names = tuple(map(printable, gathered.index))
    keys = np.arange(len(names), dtype=np.int64)
    traffic: Asked
    if isinstance(requests, DiskColumn):
        traffic = LongTraffic(requests, names, keys, duration, start, gathered.dearest)
    else:
        traffic = from_rows(requests, names, keys, duration, start)
    repeated, unparsed = (sum(counts) for counts in zip(*((one.repeated, one.unparsed) for one in files), strict=True))
    formats = ", ".join(dict.fromkeys(file.format for file in files))
    rejects = tuple(reject for file in files for reject in file.rejects)[:REJECTS_KEPT]
    lines, whole_seconds = len(requests) + repeated + unparsed, gathered.whole_seconds
    return Trace(traffic, formats, lines, repeated, unparsed, gathered.reordered, whole_seconds, rejects)


def _check_fits(length: int, cost: float) -> None:
    """Refuse what would overflow a column."""
    if length > LARGEST:
        years = length // UNITS["day"] // 365
        raise InputError(f"its times must lie within 146 years of each other, got {years} years: check --time-unit")
    if cost > LARGEST:
        raise InputError(f"its costs must add up to at most 2**62, got {cost:.3g}: check --cost")
