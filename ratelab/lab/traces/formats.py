"""Trace formats: how to read a trace, and how to detect its format by its first line."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.access_log import create_log_parser, create_log_pattern, is_log_line
from ratelab.lab.traces.batches import LineParser, RowPatterns
from ratelab.lab.traces.csv_rows import create_csv_parser, create_csv_patterns, is_csv_header
from ratelab.lab.traces.files import Block
from ratelab.lab.traces.jsonl import (
    DEFAULT_CLIENT_FIELDS,
    DEFAULT_TIME_FIELDS,
    FieldNames,
    create_json_parser,
    get_json_fields,
    is_json_object,
)
from ratelab.quota import UNITS


class TextFormat(NamedTuple):
    """A format with one request per line. Each function takes the first line of a file and the options."""

    detect: Callable[[str, TraceOptions], bool]
    """Return whether the file has this format."""
    create_parser: Callable[[str, TraceOptions], LineParser]
    """Create the function that parses a line; raise `InputError` for options that cannot be used."""
    has_header: bool = False
    """Whether the first line is a header instead of a request."""
    get_column_spec: Callable[[str, TraceOptions], RowPatterns | FieldNames | None] = lambda _line, _options: None
    """Optional: return how Arrow can parse many lines at once, to the same requests."""


FORMATS = {
    "log": TextFormat(is_log_line, create_log_parser, get_column_spec=create_log_pattern),
    "jsonl": TextFormat(is_json_object, create_json_parser, get_column_spec=get_json_fields),
    "csv": TextFormat(is_csv_header, create_csv_parser, has_header=True, get_column_spec=create_csv_patterns),
}
"""All text formats, tried in this order. A new format is one file next to this one, and one line here."""

TRACE_FORMATS = ("auto", *FORMATS, "parquet")
TIME_UNITS = ("s", "ms", "us", "ns")
WITHIN_SECOND = ("spread", "start")


@dataclass(frozen=True)
class TraceOptions:
    """How to read a trace. Raises `InputError` for an unknown format, unit or `within_second`."""

    format: str = "auto"
    """A name in `FORMATS`, `parquet`, or `auto`: detect the format by the first line that is not blank."""
    key: str = "ip"
    """The field that identifies the client; except in logs, `ip` stands for the first of `DEFAULT_CLIENT_FIELDS`."""
    time: str | None = None
    """The field that holds the time, except in logs; by default the first of `DEFAULT_TIME_FIELDS`."""
    cost: str | None = None
    """The field that holds the cost, except in logs; by default each request costs 1."""
    unit: str = "s"
    """The unit of times that are numbers: s, ms, us or ns; `at_ns` is always in ns."""
    within_second: str = "spread"
    """If all times are whole seconds: `spread` the requests over their second, or keep them at its `start`."""
    strict: bool = False
    """Whether a line that cannot be parsed is an error."""

    def __post_init__(self) -> None:
        _check_choice("format", self.format, TRACE_FORMATS)
        _check_choice("unit", self.unit, TIME_UNITS)
        _check_choice("within_second", self.within_second, WITHIN_SECOND)

    @property
    def fields(self) -> FieldNames:
        """The fields of records, as in JSON, CSV and Parquet."""
        clients = DEFAULT_CLIENT_FIELDS if self.key == "ip" else (self.key,)
        times = DEFAULT_TIME_FIELDS if self.time is None else (self.time,)
        return FieldNames(clients, times, self.cost, UNITS[self.unit])


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {short_repr(value)}")


class LineFormat(NamedTuple):
    """How to read the lines of one file."""

    name: str
    parse_line: LineParser
    column_spec: RowPatterns | FieldNames | None
    """How Arrow can parse many lines at once; None if it cannot."""


def choose_format(blocks: Iterator[Block], options: TraceOptions) -> tuple[LineFormat, Iterator[Block]]:
    """Return the format of a file and its blocks without the header, if it has one.

    Raises `InputError` if there are no lines, the format cannot be detected, or the options cannot be used with it.
    """
    block, place, first_line = _find_first_line(blocks)
    if options.format == "parquet":
        raise InputError("it is not a Parquet file: leave out --format")
    name = _detect_format(first_line, options) if options.format == "auto" else options.format
    format_ = FORMATS[name]
    parse_line = format_.create_parser(first_line, options)
    column_spec = format_.get_column_spec(first_line, options)
    if format_.has_header:
        rows = block.text.split(b"\n", place + 1)[place + 1 :]
        blocks = chain((Block(block.first_line + place + 1, text) for text in rows), blocks)
    else:
        blocks = chain((block,), blocks)
    return LineFormat(name, parse_line, column_spec), blocks


def _find_first_line(blocks: Iterator[Block]) -> tuple[Block, int, str]:
    """Return the first line that is not blank, its block and its place there; skip the blocks before."""
    for block in blocks:
        for place, (_, line) in enumerate(block.lines()):
            if line.strip():
                return block, place, line
    raise InputError("it has no lines: name a log, JSON lines or CSV file")


def _detect_format(first_line: str, options: TraceOptions) -> str:
    """Return the name of the first format that detects the line as its own."""
    if first_line.startswith('{"recording":'):
        raise InputError("it is a recording of `ratelab serve`: add --format recording")
    for name, format_ in FORMATS.items():
        if format_.detect(first_line, options):
            return name
    raise InputError(
        "its first line must be a log line, a JSON object or a CSV header with a time column, "
        f"got {short_repr(first_line[:40])}: name the format with --format, or the column with --time"
    )
