"""Traces: recorded traffic, read from access logs, JSON lines and CSV."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ratelab.errors import InputError, shown
from ratelab.lab.traces.columns import Columns, Lines, Reject
from ratelab.lab.traces.lines import LineError, printable, read_lines
from ratelab.lab.traces.logline import ReadLine, is_log_line, log_reader
from ratelab.lab.traces.records import CLIENTS, TIMES, Fields, csv_delimiter, csv_header, csv_reader, json_reader
from ratelab.lab.traffic import Integers, Traffic
from ratelab.quota import LARGEST, UNITS

FORMATS = ("auto", "log", "jsonl", "csv")
TIME_UNITS = ("s", "ms", "us", "ns")
WITHIN_SECOND = ("spread", "start")

_SECOND = UNITS["s"]


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse what is not known."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}, got {shown(value)}")


@dataclass(frozen=True)
class TraceOptions:
    """How to read a trace. Raises `InputError` for a format, unit or `within_second` that there is not."""

    format: str = "auto"
    """`log`, `jsonl`, `csv`, or `auto`: told by the first line that is not blank."""
    key: str = "ip"
    """The field that says who the client is; in JSON lines and CSV, `ip` is the first of `CLIENTS` there is."""
    time: str | None = None
    """JSON lines and CSV: the field that holds the time; by default the first of `TIMES` there is."""
    cost: str | None = None
    """JSON lines and CSV: the field that holds the cost; by default each request costs 1."""
    unit: str = "s"
    """The unit of times that are numbers: s, ms, us or ns; `at_ns` is always in ns."""
    within_second: str = "spread"
    """`spread` or `start`: where requests stand if only whole seconds are known; see `read_trace`."""
    strict: bool = False
    """Whether a line that cannot be read is an error."""

    def __post_init__(self) -> None:
        _check_one_of("format", self.format, FORMATS)
        _check_one_of("unit", self.unit, TIME_UNITS)
        _check_one_of("within_second", self.within_second, WITHIN_SECOND)

    @property
    def fields(self) -> Fields:
        """The fields of a record that these options name."""
        clients = CLIENTS if self.key == "ip" else (self.key,)
        times = TIMES if self.time is None else (self.time,)
        return Fields(clients, times, self.cost, UNITS[self.unit])


@dataclass(frozen=True)
class Trace:
    """Recorded traffic, and how well it could be read."""

    traffic: Traffic
    """From the first request on, which is its origin, in nanoseconds since 1970.

    Clients are numbered in the order in which the file first names them; control characters in their names are escaped.
    """
    format: str
    """What it was read as: log, jsonl or csv."""
    lines: int
    """Lines that are not blank, a CSV header aside: as many as requests and unparsed lines."""
    unparsed: int
    """Lines that could not be read."""
    reordered: int
    """Requests that are earlier than one before them in the file."""
    whole_seconds: bool
    """Whether no time has a fraction of a second."""
    rejects: tuple[Reject, ...]
    """The first three lines that could not be read."""


_DEFAULT = TraceOptions()


def read_trace(path: str, options: TraceOptions = _DEFAULT, progress: Callable[[int], None] | None = None) -> Trace:
    """Read a log, JSON lines or CSV file, plain or gzip; `-` is standard input.

    Lines that cannot be read are counted, blank ones skipped. Times are sorted, stably. `progress` is called now
    and then with how many more bytes have been read, as stored.

    If no time has a fraction of a second, the n requests of each second are spread evenly over it in the order of
    the file, the k-th (from 0) at k/n of it; with `within_second="start"` all stand at its start. The last second
    then counts whole in the duration, which otherwise ends with the last request and is at least 1 ns.

    Raises `InputError` for a file that cannot be read to its end, for one without a line that can be read, for a
    field that it does not have, for times over 146 years apart and, if strict, for any line that cannot be read.
    """
    file = "standard input" if path == "-" else printable(path)
    try:
        format_, read_line, lines = _recognised(enumerate(read_lines(path, progress), 1), options)
        columns = Columns()
        columns.gather(lines, read_line, options.strict)
        if not columns.times:
            raise InputError(_nothing_read(columns, format_))
        return _trace(columns, format_, options.within_second)
    except LineError as error:
        raise InputError(f"{file}:{error}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _recognised(lines: Lines, options: TraceOptions) -> tuple[str, ReadLine, Lines]:
    """Find the format, its reader and the lines to read; a CSV header is none of them."""
    number, first = next(((n, line) for n, line in lines if line and not line.isspace()), (0, ""))
    if not number:
        raise InputError("it holds no lines: give a log, JSON lines or CSV file")
    format_ = _detected(first, options.time) if options.format == "auto" else options.format
    if format_ == "csv":
        return format_, csv_reader(first, options.fields), lines
    if format_ == "log" and (options.time or options.cost):
        raise InputError(
            "a log says itself which field is the time, and has none for the cost: leave out --time and --cost"
        )
    read_line = log_reader(options.key) if format_ == "log" else json_reader(options.fields)
    return format_, read_line, chain(((number, first),), lines)


def _detected(line: str, time: str | None) -> str:
    """Tell the format by the first line."""
    if line.startswith('{"recording":'):
        raise InputError("it is a recording of `ratelab serve`: add --format recording")
    if line.lstrip().startswith("{"):
        return "jsonl"
    if is_log_line(line):
        return "log"
    times = TIMES if time is None else (time.lower(),)
    if csv_delimiter(line) in line and not {*times}.isdisjoint(csv_header(line)):
        return "csv"
    raise InputError(
        "its first line must be a log line, a JSON object or a CSV header that names a column for the time, "
        f"got {shown(line[:80])}: name the format with --format, or the column with --time"
    )


def _nothing_read(columns: Columns, format_: str) -> str:
    """Say why a file gave no request at all."""
    if not columns.rejects:
        return "it must have requests, but has only a CSV header: give a file with rows"
    return (
        f"none of its {columns.unparsed} lines can be read as {format_}: "
        f"check --format and what is said of line {columns.rejects[0]}"
    )


def _trace(columns: Columns, format_: str, within_second: str) -> Trace:
    """Put the requests in the order of time and count it from the first."""
    times, clients, costs = (
        np.frombuffer(column, np.int64) for column in (columns.times, columns.clients, columns.costs)
    )
    reordered = int(np.count_nonzero(times < np.maximum.accumulate(times)))
    if reordered:
        order = np.argsort(times, kind="stable")
        times, clients, costs = times[order], clients[order], costs[order]
    start, length = int(times[0]), int(times[-1]) - int(times[0])
    _check_fits(length, costs)
    whole_seconds = not (times % _SECOND).any()
    times = times - start
    if whole_seconds and within_second == "spread":
        times += _within_second(times)
    duration = max(length + _SECOND * whole_seconds, 1)
    names = tuple(map(printable, columns.index))
    traffic = Traffic(times, clients, costs, names, np.arange(len(names), dtype=np.int64), duration, start)
    lines = len(times) + columns.unparsed
    rejects = tuple(columns.rejects)
    return Trace(traffic, format_, lines, columns.unparsed, reordered, whole_seconds, rejects)


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
