"""Trace formats by name, and how the format of a file is detected."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import chain, islice
from pathlib import Path
from shlex import quote
from typing import NamedTuple, Protocol

from ratelab.errors import InputError, short_repr
from ratelab.lab.traces.batches import LineError, OmittedError
from ratelab.lab.traces.clients import ClientRule
from ratelab.lab.traces.delimited import DELIMITED_FORMATS, DelimitedFormat, check_header
from ratelab.lab.traces.files import MAX_LINE_CHARS, Block
from ratelab.lab.traces.json_formats import JSON_FORMATS
from ratelab.lab.traces.jsonl import check_layout
from ratelab.lab.traces.logfmt import LogfmtFormat
from ratelab.lab.traces.patterns import create_format
from ratelab.lab.traces.prefixes import WRAPPINGS, Wrapping, create_unwrapper
from ratelab.lab.traces.proposals import propose_pattern
from ratelab.lab.traces.requests import Field, FieldReader, Filter
from ratelab.lab.traces.text_formats import TEXT_FORMATS
from ratelab.lab.traces.timestamps import TIME_UNITS, TimeRule, find_zone

MAX_SAMPLE_LINES = 100
"""Lines at the beginning of a file by which its format, client and time are chosen."""


_MAX_SAMPLE_BLOCKS = 16


class Format(Protocol):
    """A format with one request per line: how its fields are named, and how they are read."""

    @property
    def name(self) -> str:
        """The name for `--format`."""

    @property
    def title(self) -> str:
        """The programs that write it."""

    @property
    def default_key(self) -> str:
        """The field of the client if none is named."""

    @property
    def sample(self) -> str:
        """A line, for `ratelab sample`."""

    def matches(self, line: str) -> bool:
        """Return whether a line, or the header, looks like this format."""

    def resolve(self, name: str) -> tuple[str, ...]:
        """Return the fields that a name may stand for."""

    def bind(self, fields: Sequence[Field], lines: Sequence[str]) -> FieldReader:
        """Return the reader of these fields, given the first lines; raise `InputError` for a missing field."""


FORMATS: dict[str, Format] = {
    format_.name: format_ for format_ in (*TEXT_FORMATS, *JSON_FORMATS, LogfmtFormat(), *DELIMITED_FORMATS)
}
"""All text formats, tried in this order."""

TRACE_FORMATS = ("auto", *FORMATS, "parquet")
WITHIN_SECOND = ("spread", "start")


@dataclass(frozen=True)
class TraceOptions:
    """How to read a trace. Raises `InputError` for an unknown format, unit, zone, pattern or `within_second`."""

    format: str = "auto"
    """A name in `FORMATS`, `parquet`, or `auto`: detect the format by the first lines."""
    key: str | None = None
    """The field that identifies the client; by default its address. `forwarded` is the list of forwarded addresses."""
    time: str | None = None
    """The field that holds the time; by default the first common name of one whose values are times."""
    cost: str | None = None
    """The field that holds the cost; by default each request costs 1."""
    unit: str = "auto"
    """The unit of times that are numbers, one of `TIME_UNITS`; `at_ns` is always in ns."""
    within_second: str = "spread"
    """If times are whole seconds or minutes: `spread` the requests over them, or keep them at their `start`."""
    strict: bool = False
    """Whether a line that cannot be parsed is an error."""
    lenient: bool = False
    """Whether most lines may be left out because they cannot be parsed."""
    pattern: str | None = None
    """A pattern of the lines, in RE2 syntax, instead of a format."""
    time_format: str | None = None
    """The format of all times, as for `strptime`."""
    time_zone: str = "UTC"
    """The zone of times that name none."""
    clients: ClientRule = field(default_factory=ClientRule)
    """How addresses name clients."""
    filters: tuple[Filter, ...] = ()
    """Which requests to keep."""

    def __post_init__(self) -> None:
        check_format(self.format)
        _check_choice("unit", self.unit, TIME_UNITS)
        _check_choice("within_second", self.within_second, WITHIN_SECOND)
        if self.strict and self.lenient:
            raise InputError("strict rejects what lenient allows: leave out one of them")
        if self.pattern is not None and self.format != "auto":
            raise InputError(
                f"a pattern describes the lines instead of the format {self.format}: leave out one of them"
            )
        TimeRule(self.unit, self.time_format, find_zone(self.time_zone))
        if self.pattern is not None:
            create_format(self.pattern)


def check_format(name: str, *more: str) -> None:
    """Raise `InputError` for a name that is not in `TRACE_FORMATS` or `more`."""
    if name not in (*TRACE_FORMATS, *more):
        near = get_close_matches(name, (*TRACE_FORMATS, *more), 1)
        hint = f"did you mean {near[0]}?" if near else "choose one that `ratelab formats` lists"
        raise InputError(f"{short_repr(name)} is not one of the formats: {hint}")


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise InputError(f"{name} must be one of {', '.join(choices)}, got {short_repr(value)}")


class Detection(NamedTuple):
    """The format of a file, and its first lines."""

    format: Format
    wrappings: tuple[Wrapping, ...]
    """What must be removed from each line, in this order."""
    lines: list[str]
    """The first lines that are not blank, without what wraps them."""
    header_line: int
    """The number of the line that is a header instead of a record; 0 if there is none."""


def detect_format(path: str, blocks: Iterator[Block], options: TraceOptions) -> tuple[Detection, Iterator[Block]]:
    """Return the format of a file, and its blocks without its header and without what wraps its lines.

    Raises `InputError` if there are no lines or the format cannot be detected.
    """
    first_blocks, sample = _take_sample(blocks)
    if not sample:
        raise InputError("it has no lines: name a log, JSON lines or CSV file")
    detection = _detect([line for _, line in sample], path, options)
    if detection.header_line:
        detection = detection._replace(header_line=sample[0][0])
    return detection, prepare_blocks(chain(first_blocks, blocks), detection)


def _take_sample(blocks: Iterator[Block]) -> tuple[list[Block], list[tuple[int, str]]]:
    """Return the first blocks, and their lines that are not blank with their numbers; skip blank blocks before.

    Lines that are too long are left out unless there are no others.
    """
    taken: list[Block] = []
    sample: list[tuple[int, str]] = []
    too_long: list[tuple[int, str]] = []
    while len(sample) < MAX_SAMPLE_LINES and len(taken) < _MAX_SAMPLE_BLOCKS:
        block = next(blocks, None)
        if block is None:
            break
        lines = ((number, line) for number, line in block.lines() if line.strip())
        for number, line in islice(lines, MAX_SAMPLE_LINES - len(sample)):
            (sample if len(line) <= MAX_LINE_CHARS else too_long).append((number, line))
        if sample or too_long:
            taken.append(block)
    return taken, sample or too_long[:1]


def prepare_blocks(blocks: Iterator[Block], detection: Detection) -> Iterator[Block]:
    """Remove the header and what wraps the lines."""
    unwrap = create_unwrapper(detection.wrappings) if detection.wrappings else None
    for block in blocks:
        if block.first_line <= detection.header_line <= block.first_line + len(block.newlines):
            lines = block.text.split(b"\n")
            lines[detection.header_line - block.first_line] = b""
            block = Block(block.first_line, b"\n".join(lines))
        yield block if unwrap is None else _unwrap_block(block, unwrap)


def _unwrap_block(block: Block, unwrap: Callable[[str], str]) -> Block:
    lines = (unwrap(line).replace("\n", " ") for _, line in block.lines())
    return Block(block.first_line, "\n".join(lines).encode(errors="replace"))


def _detect(lines: list[str], path: str, options: TraceOptions) -> Detection:
    """Return the named format, or the one that most of the lines match, with or without wrappings."""
    if options.format == "parquet":
        raise InputError("it is not a Parquet file: leave out --format")
    if lines[0].startswith('{"recording":'):
        raise InputError("it is a recording of `ratelab serve`: add --format recording")
    if options.pattern is not None:
        return Detection(create_format(options.pattern), (), lines, 0)
    candidates = FORMATS if options.format == "auto" else {options.format: FORMATS[options.format]}
    found = _find_format(lines, candidates, options.time)
    if found is None or (found[0].name == "jsonl" and options.format == "auto"):
        inside = list(_find_inside(lines, candidates, options.time))
        if found is not None and not _has_client(found[0], lines, options.key):
            best = [detection for detection in inside if _has_client(detection.format, detection.lines, options.key)]
        else:
            best = [detection for detection in inside if detection.format.name != "jsonl"] or ([] if found else inside)
        if best:
            return best[0]
    if found is not None:
        format_, is_header = found
        _check_layout(format_, lines, path, is_known=True)
        return Detection(format_, (), lines, int(is_header))
    if options.format != "auto":
        _check_layout(FORMATS[options.format], lines, path, is_known=True)
        return Detection(FORMATS[options.format], (), lines, int(options.format == "csv"))
    raise InputError(_explain_unknown(lines, path))


def _has_client(format_: Format, lines: Sequence[str], key: str | None) -> bool:
    """Return whether most lines have the field of the client."""
    names = format_.resolve(key) if key is not None else (*format_.resolve("ip"), *format_.resolve("forwarded"))
    count = 0
    try:
        read = format_.bind([Field("key", names)], lines).read
    except InputError:
        return False
    for line in lines:
        with suppress(LineError, OmittedError):
            count += bool(read(line)[0])
    return 2 * count > len(lines)


def _find_inside(lines: Sequence[str], formats: dict[str, Format], time: str | None) -> Iterator[Detection]:
    """Yield the formats of the lines inside all wrappings that these lines may have."""
    for wrappings in _list_wrappings(lines):
        unwrapped = [line for line in map(create_unwrapper(wrappings), lines) if line.strip()]
        inner = _find_format(unwrapped, formats, time) if unwrapped else None
        if inner is not None:
            yield Detection(inner[0], wrappings, unwrapped, 0)


def _list_wrappings(lines: Sequence[str]) -> Iterator[tuple[Wrapping, ...]]:
    """Yield what may wrap these lines, once or twice."""
    for outer in WRAPPINGS:
        if outer.wraps(lines):
            yield (outer,)
            inside = [outer.unwrap(line) for line in lines]
            yield from ((outer, inner) for inner in WRAPPINGS if inner is not outer and inner.wraps(inside))


def _find_format(lines: Sequence[str], formats: dict[str, Format], time: str | None) -> tuple[Format, bool] | None:
    """Return the first format that the header or most of the lines match; True if the first line is its header."""
    best, most = None, 0
    for format_ in formats.values():
        if isinstance(format_, DelimitedFormat):
            if not best and any(map(format_.matches, lines if format_.marker else lines[:1])):
                return format_, not format_.marker
            if not best and time and format_.has_column(lines[0], time):
                return format_, True
            continue
        count = sum(map(format_.matches, lines))
        if count > most:
            best, most = format_, count
        if most == len(lines):  # which no other format exceeds
            break
    return (best, False) if best else None


def _check_layout(format_: Format, lines: Sequence[str], path: str, *, is_known: bool) -> None:
    """Raise `InputError` with a command that converts the file if its lines are not as the format requires."""
    program, file = _quote_path(path)
    if format_.name == "jsonl":
        jq = f"jq {{}} {file}" if program == "cat" else f"{program} {file} | jq {{}}"
        check_layout(lines, f"{jq} | ratelab replay -")
    if format_.name == "csv":
        check_header(lines[0], f"(echo '{{}}'; {program} {file}) | ratelab replay -", is_known)


def _quote_path(path: str) -> tuple[str, str]:
    """Return the program that prints a file, and the name of the file for a shell."""
    program = {".gz": "zcat", ".zst": "zstdcat"}.get(Path(path).suffix, "cat")
    return program, quote(path) if path != "-" else "FILE"


def _explain_unknown(lines: list[str], path: str) -> str:
    """Explain that no format matches, with a next step that works."""
    for name in ("jsonl", "csv"):
        _check_layout(FORMATS[name], lines, path, is_known=False)
    got = f"no known format matches its lines, such as {short_repr(lines[0][:60])}"
    pattern = propose_pattern(lines)
    if pattern is not None:
        return f"{got}: read it with --pattern '{pattern}'"
    return f"{got}: name the column of the time with --time, the format with --format, or write a --pattern"
