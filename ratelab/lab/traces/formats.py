"""Formats: how the lines of a trace are read, told by the first of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.access_log import ReadLine, is_log_line, log_pattern, log_reader
from ratelab.lab.traces.csv_rows import csv_delimiter, csv_header, csv_patterns, csv_reader, csv_unit
from ratelab.lab.traces.files import Block
from ratelab.lab.traces.jsonl import CLIENTS, TIMES, FieldNames, json_reader
from ratelab.quota import UNITS

TRACE_FORMATS = ("auto", "log", "jsonl", "csv", "parquet")
TIME_UNITS = ("s", "ms", "us", "ns")
WITHIN_SECOND = ("spread", "start")


def _check_one_of(name: str, value: str, known: tuple[str, ...]) -> None:
    """Refuse what is not known."""
    if value not in known:
        raise InputError(f"{name} must be one of {', '.join(known)}, got {short_repr(value)}")


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
        _check_one_of("format", self.format, TRACE_FORMATS)
        _check_one_of("unit", self.unit, TIME_UNITS)
        _check_one_of("within_second", self.within_second, WITHIN_SECOND)

    @property
    def fields(self) -> FieldNames:
        """The fields of a record that these options name."""
        clients = CLIENTS if self.key == "ip" else (self.key,)
        times = TIMES if self.time is None else (self.time,)
        return FieldNames(clients, times, self.cost, UNITS[self.unit])


Blocks = Iterator[Block]


@dataclass(frozen=True)
class Format:
    """How the lines of a file are read: one by one, and together where nearly all of them are alike."""

    name: str
    read_line: ReadLine
    patterns: tuple[str, ...] = ()
    """What matches one of these, `read_line` reads as the sum of the groups; see `log_pattern` and `csv_patterns`."""
    unit: int = UNITS["s"]
    """Nanoseconds that a time's number counts."""
    fields: FieldNames | None = None
    """Those of JSON objects."""

    @property
    def columnar(self) -> bool:
        """Whether the lines can be read together."""
        return bool(self.patterns or self.fields)


def recognised(blocks: Blocks, options: TraceOptions) -> tuple[Format, Blocks]:
    """Find the format and the lines to read; a CSV header is none of them.

    Raises `InputError` if there are no lines, if the first one does not tell the format, or if fields are missing.
    """
    for block in blocks:
        found = next(((place, line) for place, (_, line) in enumerate(block.lines()) if line.strip()), None)
        if found:
            break
    else:
        raise InputError("it holds no lines: give a log, JSON lines or CSV file")
    if options.format == "parquet":
        raise InputError("it is no Parquet file: leave out --format")
    place, first = found
    name = _detected(first, options.time) if options.format == "auto" else options.format
    if name == "csv":
        rows = block.text.split(b"\n", place + 1)[place + 1 :]
        blocks = chain((Block(block.number + place + 1, text) for text in rows), blocks)
        return _csv(first, options.fields), blocks
    return (_log(options) if name == "log" else _json(options.fields)), chain((block,), blocks)


def _log(options: TraceOptions) -> Format:
    if options.time or options.cost:
        raise InputError(
            "a log says itself which field is the time, and has none for the cost: leave out --time and --cost"
        )
    return Format("log", log_reader(options.key), (log_pattern(options.key),))


def _json(fields: FieldNames) -> Format:
    return Format("jsonl", json_reader(fields), fields=fields)


def _csv(header: str, fields: FieldNames) -> Format:
    return Format("csv", csv_reader(header, fields), csv_patterns(header, fields), csv_unit(header, fields))


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
        f"got {short_repr(line[:80])}: name the format with --format, or the column with --time"
    )
