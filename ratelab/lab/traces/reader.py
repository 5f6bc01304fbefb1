"""Trace reader: opens files, merges them into one trace and sorts it by time."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain, islice
from typing import NamedTuple, TypeVar

import numpy as np

from ratelab.errors import InputError, install_hint, short_repr
from ratelab.lab.spill import Integers
from ratelab.lab.traces.batches import (
    MAX_REJECTS,
    Batch,
    LineError,
    LineParser,
    NumberedLines,
    OmittedError,
    Reject,
    RequestColumns,
)
from ratelab.lab.traces.choices import Plan, plan_reading
from ratelab.lab.traces.files import (
    MAX_LINE_CHARS,
    Block,
    MissingFileError,
    format_path,
    format_paths,
    identify_file,
    is_arrow_installed,
    is_parquet,
    read_blocks,
    read_section,
)
from ratelab.lab.traces.formats import Detection, Format, TraceOptions, detect_format, prepare_blocks
from ratelab.lab.traces.merge import ClientNumbers, FileRequests, Trace, build_trace

_DEFAULT_OPTIONS = TraceOptions()

Item = TypeVar("Item")
Found = TypeVar("Found")

Amend = Callable[[Format, Sequence[str], Plan], Plan]
"""Changes how the requests of a file are read, given its format and its first lines."""


def _keep_plan(_format: Format, _lines: Sequence[str], plan: Plan) -> Plan:
    return plan


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
    amend: Amend | None = None,
) -> Trace:
    """Read files as one trace: text formats, plain or compressed with gzip or zstd, and Parquet; `-` is standard input.

    Lines that cannot be parsed are counted, blank lines are skipped. Requests are sorted by time; those of the same
    time keep their order. Too many requests for memory are kept on disk. `progress` is called now and then with
    the number of bytes read since the last call, before decompression. If `columnar`, Arrow parses a block of lines at
    a time, with the same results; by default it does so for large files if it is installed (extra `logs`). `amend`
    changes how each file is read.

    If most times of a file are whole seconds, the n requests of each second are spread evenly over it in the order of
    the file: request k, from 0, is at k/n of the second. The same applies to minutes if all times are whole minutes.
    With `within_second="start"`, all are at its start. In both cases the duration includes the whole last second or
    minute. Otherwise it ends with the last request, but is at least 1 ns.

    Of several files, those that cannot be read are skipped, unless `strict`. Raises `InputError` if none can be read to
    its end with a valid line, for a missing file or field, for times more than 146 years apart, if most lines of a file
    cannot be parsed, unless `lenient`, and, if strict, for any line that cannot be parsed.
    """
    paths, notes = remove_repeated(paths)
    amend = amend or _keep_plan
    files, skipped = skip_unreadable(
        lambda path: _read_file(path, options, progress, columnar, amend), paths, options.strict
    )
    notes += skipped
    try:
        return build_trace(files, notes, options)
    except InputError as error:
        raise InputError(f"{format_paths(paths)}: {error}") from None


def skip_unreadable(
    read: Callable[[Item], Found], items: Sequence[Item], strict: bool
) -> tuple[list[Found], list[str]]:
    """Read several files, and return those that can be read and a note for each of the others.

    Raises `InputError` for a missing file, if none can be read, and, if strict, for any that cannot.
    """
    found: list[Found] = []
    errors: list[InputError] = []
    for item in items:
        try:
            found.append(read(item))
        except MissingFileError:
            raise
        except InputError as error:
            if strict or len(items) == 1:
                raise
            errors.append(error)
    if not found:
        raise errors[0]
    return found, [f"skipped {error}" for error in errors]


def remove_repeated(paths: Sequence[str]) -> tuple[list[str], list[str]]:
    """Return the paths of different files, and a note for each of the others."""
    kept: dict[object, str] = {}
    notes = []
    for path in paths:
        identity = identify_file(path)
        if identity in kept:
            notes.append(f"{format_path(path)} and {format_path(kept[identity])} are the same file, which is read once")
        kept.setdefault(identity, path)
    return list(kept.values()), notes


# --- one file


def _read_file(
    path: str,
    options: TraceOptions,
    progress: Callable[[int], None] | None,
    columnar: bool | None,
    amend: Amend,
) -> FileRequests:
    """Read a file. Raises `InputError` with its name."""
    name = format_path(path)
    try:
        source = open_source(path, options, progress, columnar, amend)
        file = FileRequests(name, source.format, *source.explanations, BatchReader(options.strict))
        with closing(source.batches) as batches:  # ends their threads here, not at garbage collection
            for batch in batches:
                file.add(file.reader.read(batch, source.parse_line))
        file.notes += tuple(sorted(source.late_notes))
        file.check(options)
    except LineError as error:
        raise InputError(f"{name}:{error}") from None
    except MissingFileError as error:
        raise MissingFileError(f"{name}: {error}") from None
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return file


class Source(NamedTuple):
    """An open file."""

    format: str
    explanations: tuple[tuple[str, ...], str]
    """The choices that were made, and the reason why a line has no client."""
    late_notes: AbstractSet[str]
    """Notes on lines after the first, which are complete when all batches have been read."""
    parse_line: LineParser
    """Parses the lines that a batch defers."""
    batches: Generator[Batch, None, None]


def open_source(
    path: str,
    options: TraceOptions,
    progress: Callable[[int], None] | None,
    columnar: bool | None,
    amend: Amend = _keep_plan,
    select: Callable[[Iterable[Block]], Iterator[Block]] | None = None,
    section: tuple[int, int] | None = None,
) -> Source:
    """Open a file, or standard input for `-`.

    `amend` changes the plan, given the format and its first lines. `select` removes lines that are not needed. Of a
    `section` of a plain file, only the lines are read that start at these bytes; the first lines are still its head.

    Raises `InputError`, at once or during iteration, if it cannot be read.
    """
    if is_parquet(path):
        return _open_parquet(path, options, progress, amend)
    blocks = read_blocks(path, progress)
    first_blocks = list(islice(blocks, 2))
    detection, blocks = detect_format(path, chain(first_blocks, blocks), options)
    plan = amend(detection.format, detection.lines, plan_reading(detection, options))
    if section is not None:
        header_line = 0 if section[0] else detection.header_line
        blocks = prepare_blocks(read_section(path, *section), detection._replace(header_line=header_line))
    if select is not None:
        blocks = select(blocks)
    spec = plan.reader.columns
    if columnar is None:
        columnar = len(first_blocks) > 1 and is_arrow_installed()
    if columnar and spec is not None:
        from ratelab.lab.traces.columnar import read_batches

        batches = read_batches(blocks, spec, plan.rule)
    else:
        batches = (Batch(deferred=list(block.lines())) for block in blocks)
    explanations = plan.notes, plan.anonymous_reason
    return Source(detection.format.name, explanations, plan.late_notes, _create_line_parser(plan), batches)


def _create_line_parser(plan: Plan) -> LineParser:
    """Return the function that parses one line."""
    read, parse = plan.reader.read, plan.rule.parse
    return lambda line: parse(read(line))


def _open_parquet(
    path: str,
    options: TraceOptions,
    progress: Callable[[int], None] | None,
    amend: Amend,
) -> Source:
    if not is_arrow_installed():
        raise InputError(f"reading Parquet needs pyarrow: {install_hint('logs')}, or convert the file to CSV")
    if options.format not in ("auto", "parquet") or options.pattern is not None:
        raise InputError(f"it is a Parquet file, not {options.format}: leave out --format")
    from ratelab.lab.traces.parquet_file import ParquetFormat, read_parquet_batches

    format_ = ParquetFormat.open(path)
    sample = format_.read_sample()
    plan = amend(format_, sample, plan_reading(Detection(format_, (), sample, 0), options))
    batches = read_parquet_batches(format_, plan.rule, progress)
    return Source("parquet", (plan.notes, plan.anonymous_reason), plan.late_notes, _create_line_parser(plan), batches)


# --- requests of a file


@dataclass
class BatchReader:
    """Converts the batches of one file to requests, and keeps the state that spans batches."""

    strict: bool
    """Whether a line that cannot be parsed is an error."""
    clients: ClientNumbers = field(default_factory=ClientNumbers)
    unparsed: int = 0
    """Lines that could not be parsed."""
    rejects: list[Reject] = field(default_factory=list)
    """The first of these lines, at most `MAX_REJECTS`."""
    omitted: Counter[int | str] = field(default_factory=Counter)
    """Lines that were left out, by kind; see `OmittedError`."""

    def read(self, batch: Batch, parse_line: LineParser) -> RequestColumns:
        """Return the requests of a batch, with clients numbered by `clients`; skip blank lines, count rejected ones.

        If strict, raises `LineError` with the number, the reason and the text of the first line that cannot be parsed.
        """
        self.omitted.update(batch.omitted)
        columns, names = self._parse_deferred(batch, parse_line) if batch.deferred else (batch.columns, batch.names)
        numbers = np.fromiter(map(self.clients.__getitem__, names), np.int64, len(names))
        return columns._replace(clients=numbers[columns.clients])

    def _parse_deferred(self, batch: Batch, parse_line: LineParser) -> tuple[RequestColumns, list[str]]:
        """Parse the remaining lines of a batch and merge them with the others, in the order of lines."""
        clients = ClientNumbers()
        old = np.fromiter(map(clients.__getitem__, batch.names), np.int64, len(batch.names))
        batch = batch._replace(columns=batch.columns._replace(clients=old[batch.columns.clients]))
        line_numbers, *columns = self._parse_lines(batch.deferred, parse_line, clients)
        order = np.argsort(np.concatenate([batch.line_numbers, line_numbers]), kind="stable")
        times, indices, costs = (np.concatenate(pair)[order] for pair in zip(batch.columns, columns, strict=True))
        indices, used = renumber(indices)
        names = list(clients)
        return RequestColumns(times, indices, costs), [names[index] for index in used.tolist()]

    def _parse_lines(
        self, lines: NumberedLines, parse_line: LineParser, clients: ClientNumbers
    ) -> tuple[array[int], ...]:
        """Parse lines one at a time; return the line numbers, times, clients and costs of the requests."""
        columns = array("q"), array("q"), array("q"), array("q")
        add_number, add_time, add_client, add_cost = (column.append for column in columns)
        for number, line in lines:
            try:
                if len(line) > MAX_LINE_CHARS:
                    raise LineError(f"a line must have at most {MAX_LINE_CHARS} characters")
                client, time, cost = parse_line(line)
            except OmittedError as error:
                self.omitted[error.kind] += 1
                continue
            except LineError as error:
                if line and not line.isspace():
                    self._reject(number, line, error)
                continue
            add_number(number)
            add_time(time)
            add_client(clients[client])
            add_cost(cost)
        return columns

    def _reject(self, number: int, line: str, error: LineError) -> None:
        """Count a line that cannot be parsed, and keep the first ones."""
        self.unparsed += 1
        if self.strict or len(self.rejects) < MAX_REJECTS:
            reject = Reject(number, str(error), short_repr(line[:80]))
            if self.strict:
                raise LineError(str(reject))
            self.rejects.append(reject)


def renumber(numbers: Integers) -> tuple[Integers, Integers]:
    """Renumber values in the order of their first use; return the new numbers and the distinct values."""
    distinct, firsts, places = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    return np.argsort(order)[places], distinct[order]
