"""Trace reader: opens files, merges them into one trace and sorts it by time."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError, install_hint
from ratelab.lab.spill import Integers, RequestSorter, map_column
from ratelab.lab.traces.batches import (
    MAX_REJECTS,
    Batch,
    BatchReader,
    ClientNumbers,
    LineError,
    LineParser,
    Reject,
    RequestColumns,
    defer_lines,
)
from ratelab.lab.traces.files import (
    format_path,
    format_paths,
    is_arrow_installed,
    is_parquet,
    make_printable,
    read_blocks,
)
from ratelab.lab.traces.formats import TraceOptions, choose_format
from ratelab.lab.traces.jsonl import create_object_parser
from ratelab.lab.traffic import Traffic, split_batches
from ratelab.quota import LARGEST, NS_PER_S, UNITS


@dataclass(frozen=True, eq=False)
class Trace:
    """Recorded traffic, and counts of the lines it was read from."""

    traffic: Traffic
    """Starts with the first request, whose nanoseconds since 1970 are its origin.

    Clients are numbered in the order in which the files first name them. Control characters in names are escaped.
    """
    format: str
    """log, jsonl, csv or parquet; all formats, if several files have several."""
    lines: int
    """Lines that are not blank and not a CSV header: the requests, and the repeated and unparsed lines."""
    repeated: int
    """Rows of an `--events` file that repeat a request for another algorithm than the first."""
    unparsed: int
    """Lines that could not be parsed."""
    reordered: int
    """Requests with an earlier time than a previous one in their file."""
    whole_seconds: bool
    """Whether no time has a fraction of a second."""
    rejects: tuple[Reject, ...]
    """The first three lines that could not be parsed."""


_DEFAULT_OPTIONS = TraceOptions()


def read_trace(
    path: str, options: TraceOptions = _DEFAULT_OPTIONS, progress: Callable[[int], None] | None = None
) -> Trace:
    """Read one file, as `read_traces` does."""
    return read_traces((path,), options, progress)


def read_traces(
    paths: Sequence[str],
    options: TraceOptions = _DEFAULT_OPTIONS,
    progress: Callable[[int], None] | None = None,
    columnar: bool | None = None,
) -> Trace:
    """Read files as one trace: text formats, plain or compressed with gzip or zstd, and Parquet; `-` is standard input.

    Lines that cannot be parsed are counted, blank lines are skipped. Requests are sorted by time; those of the same
    time keep their order. Too many requests for memory are kept on disk. `progress` is called now and then with
    the number of bytes read since the last call, before decompression. If `columnar`, Arrow parses a block of lines at
    a time, with the same results; by default it does so for large files if it is installed (extra `logs`).

    If no time has a fraction of a second, the n requests of each second are spread evenly over it in the order of the
    files: request k, from 0, is at k/n of the second. With `within_second="start"`, all are at its start. In both
    cases the duration includes the whole last second. Otherwise it ends with the last request, but is at least 1 ns.

    Raises `InputError` for a file that cannot be read to its end or has no valid line, for a missing field, for times
    more than 146 years apart and, if strict, for any line that cannot be parsed.
    """
    collector = _RequestCollector()
    reports = [_read_file(path, options, collector, progress, columnar) for path in paths]
    if len(reports) > 1:
        reports = [
            report._replace(rejects=[replace(reject, file=report.name) for reject in report.rejects])
            for report in reports
        ]
    try:
        return _build_trace(reports, collector, options.within_second)
    except InputError as error:
        raise InputError(f"{format_paths(paths)}: {error}") from None


# --- one file


class _RequestCollector:
    """Collects the requests of all files, and facts about them."""

    def __init__(self) -> None:
        self.clients = ClientNumbers()
        self.requests = RequestSorter()
        self.reordered = 0
        self.whole_seconds = True
        self.cost = 0.0
        self._latest_time: int | None = None

    def begin_file(self) -> None:
        """Count out-of-order requests within the next file only."""
        self._latest_time = None

    def add(self, columns: RequestColumns) -> None:
        """Add requests of the current file."""
        times, clients, costs = columns
        if not len(times):
            return
        previous = times[0] if self._latest_time is None else self._latest_time
        latest = np.maximum.accumulate(np.append(previous, times))
        self.reordered += int(np.count_nonzero(times < latest[:-1]))
        self._latest_time = int(latest[-1])
        self.whole_seconds = self.whole_seconds and not (times % NS_PER_S).any()
        self.cost += float(costs.sum(dtype=np.float64))
        self.requests.add(times, clients, costs)


class _FileReport(NamedTuple):
    """The lines of a file that are not requests."""

    name: str
    format: str
    repeated: int
    unparsed: int
    rejects: list[Reject]


def _read_file(
    path: str,
    options: TraceOptions,
    collector: _RequestCollector,
    progress: Callable[[int], None] | None,
    columnar: bool | None,
) -> _FileReport:
    """Read a file into the collector."""
    name, count_before = format_path(path), len(collector.requests)
    reader = BatchReader(options.strict, collector.clients)
    collector.begin_file()
    try:
        source = open_source(path, options, progress, columnar)
        with closing(source.batches) as batches:  # ends their threads here, not at garbage collection
            for batch in batches:
                collector.add(reader.read(batch, source.parse_line))
        if len(collector.requests) == count_before:
            raise InputError(_explain_no_requests(reader, source.format))
    except LineError as error:
        raise InputError(f"{name}:{error}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return _FileReport(name, source.format, reader.repeated, reader.unparsed, reader.rejects)


def _explain_no_requests(reader: BatchReader, format_: str) -> str:
    if not reader.unparsed:
        return f"it has no requests, only the {format_} header: name a file with rows"
    count, first = reader.unparsed, reader.rejects[0]
    return f"none of its {count} lines can be parsed as {format_}: check --format; line {first}"


class Source(NamedTuple):
    """An open file."""

    format: str
    parse_line: LineParser
    """Parses the lines that a batch defers."""
    batches: Generator[Batch, None, None]


def open_source(
    path: str, options: TraceOptions, progress: Callable[[int], None] | None, columnar: bool | None
) -> Source:
    """Open a file, or standard input for `-`.

    Raises `InputError`, at once or during iteration, if it cannot be read.
    """
    if is_parquet(path):
        return _open_parquet(path, options, progress)
    blocks = read_blocks(path, progress)
    first_blocks = list(islice(blocks, 2))
    format_, blocks = choose_format(chain(first_blocks, blocks), options)
    if columnar is None:
        columnar = len(first_blocks) > 1 and is_arrow_installed()
    if columnar and format_.column_spec is not None:
        from ratelab.lab.traces.columnar import read_batches

        return Source(format_.name, format_.parse_line, read_batches(blocks, format_.column_spec))
    return Source(format_.name, format_.parse_line, (defer_lines(list(block.lines())) for block in blocks))


def _open_parquet(path: str, options: TraceOptions, progress: Callable[[int], None] | None) -> Source:
    if not is_arrow_installed():
        raise InputError(f"reading Parquet needs pyarrow: {install_hint('logs')}, or convert the file to CSV")
    if options.format not in ("auto", "parquet"):
        raise InputError(f"it is a Parquet file, not {options.format}: leave out --format")
    from ratelab.lab.traces.columnar import find_parquet_fields, read_parquet_batches

    fields = find_parquet_fields(path, options.fields)
    return Source("parquet", create_object_parser(fields), read_parquet_batches(path, fields, progress))


# --- one trace


def _build_trace(reports: Sequence[_FileReport], collector: _RequestCollector, within_second: str) -> Trace:
    """Sort the requests by time, and count time from the first."""
    rows = collector.requests.sort()
    start, end = int(rows[0]["time"]), int(rows[-1]["time"])
    _check_limits(end - start, collector.cost)
    times, clients, costs = _split_columns(rows, start, collector.requests.on_disk)
    if collector.whole_seconds and within_second == "spread":
        spread_within_seconds(times)
    traffic = Traffic(
        times=times,
        clients=clients,
        costs=costs,
        names=tuple(map(make_printable, collector.clients)),
        keys=np.arange(len(collector.clients)),
        duration=max(end - start + NS_PER_S * collector.whole_seconds, 1),
        origin=start,
        on_disk=collector.requests.on_disk,
    )
    repeated = sum(report.repeated for report in reports)
    unparsed = sum(report.unparsed for report in reports)
    return Trace(
        traffic=traffic,
        format=", ".join(dict.fromkeys(report.format for report in reports)),
        lines=len(traffic) + repeated + unparsed,
        repeated=repeated,
        unparsed=unparsed,
        reordered=collector.reordered,
        whole_seconds=collector.whole_seconds,
        rejects=tuple(reject for report in reports for reject in report.rejects)[:MAX_REJECTS],
    )


def _check_limits(length: int, cost: float) -> None:
    """Reject times and costs that would overflow a column."""
    if length > LARGEST:
        years = length // UNITS["day"] // 365
        raise InputError(f"its times must be within 146 years of each other, got {years} years: check --time-unit")
    if cost > LARGEST:
        raise InputError(f"its costs must add up to at most 2**62, got {cost:.3g}: check --cost")


def _split_columns(rows: NDArray[Any], start: int, on_disk: bool) -> list[Integers]:
    """Return the times since `start`, the clients and the costs of requests as columns."""
    columns: list[Integers] = [
        map_column(np.int64, len(rows)) if on_disk else np.empty(len(rows), np.int64) for _ in range(3)
    ]
    times, clients, costs = columns
    for part in split_batches(len(rows)):
        times[part] = rows["time"][part] - start
        clients[part], costs[part] = rows["owner"][part], rows["cost"][part]
    return columns


def spread_within_seconds(times: Integers) -> None:
    """Spread the requests of each second evenly over it, in place: request k of n, from 0, is at k/n of the second."""
    second, seen, total = None, 0, 0  # of the second that continues from batch to batch
    for part in split_batches(len(times)):
        batch = times[part]
        firsts = np.flatnonzero(np.diff(batch, prepend=batch[0] - 1))
        counts = np.diff(firsts, append=len(batch))
        totals, ranks = counts.copy(), np.arange(len(batch)) - np.repeat(firsts, counts)
        if batch[0] == second:
            ranks[: counts[0]] += seen
            totals[0] = total
        if batch[-1] != second:
            totals[-1] += _count_same_time(times[part.stop :], int(batch[-1]))
        second, seen, total = int(batch[-1]), int(ranks[-1]) + 1, int(totals[-1])
        batch += ranks * NS_PER_S // np.repeat(totals, counts)


def _count_same_time(times: Integers, time: int) -> int:
    """Count the leading times that equal `time`."""
    count = 0
    for part in split_batches(len(times)):
        batch = times[part]
        count += int(np.searchsorted(batch, time, "right"))
        if batch[-1] != time:
            break
    return count
