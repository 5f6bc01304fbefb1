"""Traces: recorded traffic, read from access logs, JSON lines, CSV and Parquet."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.traces.columns import REJECTS_KEPT, Columns, Numbering, Reader, Reject
from ratelab.lab.traces.lines import LineError, printable
from ratelab.lab.traces.options import TraceOptions
from ratelab.lab.traces.paths import called, called_together
from ratelab.lab.traces.sources import opened
from ratelab.lab.traffic import Integers, Traffic
from ratelab.quota import LARGEST, UNITS

_SECOND = UNITS["s"]


@dataclass(frozen=True)
class Trace:
    """Recorded traffic, and how well it could be read."""

    traffic: Traffic
    """From the first request on, which is its origin, in nanoseconds since 1970.

    Clients are numbered in the order in which the file first names them; control characters in their names are escaped.
    """
    format: str
    """What it was read as: log, jsonl, csv or parquet; of several files, all that there are."""
    lines: int
    """Lines that are not blank, a CSV header aside: as many as requests and unparsed lines."""
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

    Lines that cannot be read are counted, blank ones skipped. Times are sorted, stably. `progress` is called now
    and then with how many more bytes have been read, as stored. Lines are read a block at a time by Arrow if
    `columnar`, or by default if a file is large and there is Arrow (extra `logs`), to the same results.

    If no time has a fraction of a second, the n requests of each second are spread evenly over it in the order of
    the files, the k-th (from 0) at k/n of it; with `within_second="start"` all stand at its start. The last second
    then counts whole in the duration, which otherwise ends with the last request and is at least 1 ns.

    Raises `InputError` for a file that cannot be read to its end, for one without a line that can be read, for a
    field that it does not have, for times over 146 years apart and, if strict, for any line that cannot be read.
    """
    index = Numbering()
    files = [_read(path, options, index, progress, columnar) for path in paths]
    if len(files) > 1:
        files = [file._replace(rejects=[replace(one, file=file.name) for one in file.rejects]) for file in files]
    try:
        return _trace(files, index, options.within_second)
    except InputError as error:
        raise InputError(f"{called_together(paths)}: {error}") from None


class _File(NamedTuple):
    """What a file holds."""

    name: str
    format: str
    columns: Columns
    unparsed: int
    rejects: list[Reject]


def _read(
    path: str, options: TraceOptions, index: Numbering, progress: Callable[[int], None] | None, columnar: bool | None
) -> _File:
    """Read a file; its clients are numbered by the index."""
    name = called(path)
    reader = Reader(options.strict, index)
    try:
        source = opened(path, options, progress, columnar)
        read = [reader.read(part, source.read_line) for part in source.parts]
        columns = Columns(*map(np.concatenate, zip(*read, strict=True))) if read else None
        if columns is None or not len(columns.times):
            raise InputError(_nothing_read(reader, source.format))
    except LineError as error:
        raise InputError(f"{name}:{error}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return _File(name, source.format, columns, reader.unparsed, reader.rejects)


def _nothing_read(reader: Reader, format_: str) -> str:
    """Say why a file gave no request at all."""
    if not reader.unparsed:
        return f"it must have requests, but has only the {format_} header: give a file with rows"
    return (
        f"none of its {reader.unparsed} lines can be read as {format_}: "
        f"check --format and what is said of line {reader.rejects[0]}"
    )


def _trace(files: Sequence[_File], index: Numbering, within_second: str) -> Trace:
    """Put the requests in the order of time and count it from the first."""
    reordered = sum(
        int(np.count_nonzero(file.columns.times < np.maximum.accumulate(file.columns.times))) for file in files
    )
    times, clients, costs = map(np.concatenate, zip(*(file.columns for file in files), strict=True))
    if (times[1:] < times[:-1]).any():
        order = np.argsort(times, kind="stable")
        times, clients, costs = times[order], clients[order], costs[order]
    start, length = int(times[0]), int(times[-1]) - int(times[0])
    _check_fits(length, costs)
    whole_seconds = not (times % _SECOND).any()
    times = times - start
    if whole_seconds and within_second == "spread":
        times += _within_second(times)
    duration = max(length + _SECOND * whole_seconds, 1)
    names = tuple(map(printable, index))
    traffic = Traffic(times, clients, costs, names, np.arange(len(names), dtype=np.int64), duration, start)
    unparsed = sum(file.unparsed for file in files)
    formats = ", ".join(dict.fromkeys(file.format for file in files))
    rejects = tuple(reject for file in files for reject in file.rejects)[:REJECTS_KEPT]
    return Trace(traffic, formats, len(times) + unparsed, unparsed, reordered, whole_seconds, rejects)


def _check_fits(length: int, costs: Integers) -> None:
    """Refuse what would overflow a column."""
    if length > LARGEST:
        years = length // UNITS["day"] // 365
        raise InputError(f"its times must lie within 146 years of each other, got {years} years: check --time-unit")
    if costs.sum(dtype=np.float64) > LARGEST:
        raise InputError(f"its costs must add up to at most 2**62, got {costs.sum(dtype=np.float64):.3g}: check --cost")


def _within_second(seconds: Integers) -> Integers:
    """How far into its second each request stands, if those of a second are spread evenly over it."""
    firsts = np.flatnonzero(np.diff(seconds, prepend=seconds[0] - 1))
    counts = np.diff(firsts, append=len(seconds))
    within = np.arange(len(seconds), dtype=np.int64)
    within -= np.repeat(firsts, counts)
    within *= _SECOND
    within //= np.repeat(counts, counts)
    return within
