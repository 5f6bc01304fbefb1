"""Columnar trace reader: parses blocks of lines, and Parquet files, with Arrow instead of line by line in Python."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from os import cpu_count
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.spill import Integers
from ratelab.lab.traces import arrow
from ratelab.lab.traces.arrow import FieldTree, StringArray
from ratelab.lab.traces.batches import Batch, LineError, RequestColumns, RowPatterns, defer_lines
from ratelab.lab.traces.csv_rows import find_column
from ratelab.lab.traces.files import MAX_LINE_CHARS, Block
from ratelab.lab.traces.jsonl import FieldNames
from ratelab.lab.traces.timestamps import RE2_TIMES, parse_log_time
from ratelab.quota import LARGEST, NS_PER_S

_CLIENT_PATTERN = "^[!-~](?:(?s:.)*[!-~])?$"  # no blanks around it, by any definition of blank
_COST_PATTERN = r"^(?P<cost>[0-9]{1,18})(?:\.0+)?$"
_MAX_THREADS = min(cpu_count() or 1, 8)


def read_batches(blocks: Iterable[Block], spec: RowPatterns | FieldNames) -> Generator[Batch, None, None]:
    """Yield the batch of each block, in order; several blocks are parsed at a time."""
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        yield from _map_in_order(pool, lambda block: parse_block(block, spec), blocks)


def _map_in_order(pool: ThreadPoolExecutor, work: Callable[[Block], Batch], blocks: Iterable[Block]) -> Iterator[Batch]:
    """Yield results in the order of the blocks, including those before a block that cannot be read."""
    pending: deque[Future[Batch]] = deque()
    try:
        for block in blocks:
            pending.append(pool.submit(work, block))
            if len(pending) > _MAX_THREADS:
                yield pending.popleft().result()
    except InputError:
        yield from (future.result() for future in pending)
        raise
    yield from (future.result() for future in pending)


def parse_block(block: Block, spec: RowPatterns | FieldNames) -> Batch:
    """Parse the common lines of a block, and defer the others."""
    text = block.text if block.text.isascii() else block.text.decode(errors="replace").encode()
    lines = arrow.split_lines(text)
    rows = np.flatnonzero(arrow.count_bytes(lines) <= MAX_LINE_CHARS)
    parsed = _parse_objects(lines, rows, spec) if isinstance(spec, FieldNames) else _parse_rows(lines, rows, spec)
    return build_batch(parsed, block.first_line, len(lines), lambda row: lines[row].as_py().removesuffix("\n"))


class ParsedRows(NamedTuple):
    """Requests from some lines of a block."""

    rows: Integers
    """The places of the lines in the block, rising."""
    clients: StringArray
    times: Integers
    costs: Integers


def build_batch(parsed: Iterable[ParsedRows], first_line: int, size: int, get_line: Callable[[int], str]) -> Batch:
    """Merge the requests from a block of `size` lines in the order of lines; defer the lines that are left."""
    groups = [group for group in parsed if len(group.rows)]
    is_left = np.ones(size, np.bool_)
    for group in groups:
        is_left[group.rows] = False
    deferred = [(first_line + row, get_line(row)) for row in np.flatnonzero(is_left).tolist()]
    if not groups:
        return defer_lines(deferred)
    rows = np.concatenate([group.rows for group in groups])
    order = np.argsort(rows, kind="stable")
    times, costs = (np.concatenate(column)[order] for column in zip(*(group[2:] for group in groups), strict=True))
    clients, names = arrow.number_texts(arrow.concatenate([group.clients for group in groups], order))
    return Batch(rows[order] + first_line, RequestColumns(times, clients, costs), names, deferred)


# --- log lines and CSV rows


def _parse_rows(lines: StringArray, rows: Integers, row_patterns: RowPatterns) -> Iterator[ParsedRows]:
    """Try each pattern on the lines that the ones before it do not match."""
    for pattern in row_patterns.patterns:
        matches, groups = arrow.extract_groups(arrow.select(lines, rows), pattern)
        if len(matches):
            yield _convert_groups(rows[matches], groups, row_patterns.unit)
        rows = np.delete(rows, matches)


def _convert_groups(rows: Integers, groups: dict[str, StringArray], unit: int) -> ParsedRows:
    """Convert captured text to requests.

    Leave out values that the line parser rejects or replaces, such as the `-` of a log, or 0.
    """
    times, valid = _convert_numbers(groups, unit) if "whole" in groups else _convert_calendar_times(groups)
    costs = arrow.parse_integers(groups["cost"]) if "cost" in groups else np.ones(len(rows), np.int64)
    valid &= costs >= 1
    valid[arrow.find_matches(groups["client"], "^[-0]?$")] = False
    places = np.flatnonzero(valid)
    return ParsedRows(rows[places], arrow.select(groups["client"], places), times[places], costs[places])


def _convert_numbers(groups: dict[str, StringArray], unit: int) -> tuple[Integers, NDArray[np.bool_]]:
    """Convert times that count `unit` nanoseconds, and return which of them are in range."""
    whole = arrow.parse_integers(groups["whole"])
    valid = whole < LARGEST // unit
    return np.where(valid, whole, 0) * unit + arrow.parse_integers(groups["fraction"], 9) * unit // NS_PER_S, valid


def _convert_calendar_times(groups: dict[str, StringArray]) -> tuple[Integers, NDArray[np.bool_]]:
    """Convert ISO 8601 and log times, and return which of them are valid; each distinct minute is parsed once."""
    minutes, texts = arrow.number_texts(arrow.join(groups["minute"], ":00", groups["zone"]))
    starts = [_parse_minute(text) for text in texts]
    valid = np.array([start is not None for start in starts], np.bool_)[minutes]
    times = np.array([start or 0 for start in starts], np.int64)[minutes]
    times += arrow.parse_integers(arrow.remove_substring(groups["second"], "."), digits=11)
    return times, valid & (times <= LARGEST)


def _parse_minute(text: str) -> int | None:
    try:
        return parse_log_time(text)
    except LineError:
        return None


# --- JSON objects


class ObjectShape(NamedTuple):
    """The fields to read from objects that have the same fields."""

    tree: FieldTree
    paths: list[tuple[str, ...]]
    """The paths of the client, the time and, if there is one, the cost."""
    unit: int
    """Nanoseconds of one unit, for times that are numbers."""


def _parse_objects(lines: StringArray, rows: Integers, fields: FieldNames) -> Iterator[ParsedRows]:
    """Parse JSON objects if all have the shape of the first."""
    rows = rows[arrow.find_objects(arrow.select(lines, rows))]
    lines = arrow.select(lines, rows)
    shape = find_shape(lines[0].as_py(), fields) if len(rows) else None
    objects = shape and arrow.parse_objects(lines, shape.tree)
    if shape and objects is not None and len(objects) == len(rows):
        client, time, *cost = (arrow.get_member(objects, path) for path in shape.paths)
        yield from parse_columns(rows, client, time, cost[0] if cost else None, shape.unit)


def find_shape(line: str, fields: FieldNames) -> ObjectShape | None:
    """Return the shape of a JSON object; None if it lacks a field, or needs the line parser.

    If the first of several possible names is missing in this object, the shape requires that others lack it, too.
    An `--events` file needs the line parser, since its lines depend on earlier ones.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    tree: FieldTree = {}
    client = _find_path(record, fields.clients, tree, "integer")
    time = _find_path(record, fields.times, tree, "number")
    cost = _find_path(record, (fields.cost,), tree, "number") if fields.cost else ()
    if client is None or time is None or cost is None or time == ("at_ns",):
        return None
    return ObjectShape(tree, [path for path in (client, time, cost) if path], fields.unit)


def _find_path(
    record: dict[str, Any], names: Sequence[str], tree: FieldTree, number_kind: str
) -> tuple[str, ...] | None:
    """Return the path of the first name that has a value; add its kind to the tree, and that earlier names lack one."""
    for name in names:
        for path in dict.fromkeys(((name,), tuple(name.split(".")))):
            value: Any = record
            for part in path:
                value = value.get(part) if isinstance(value, dict) else None
            kind = "text" if isinstance(value, str) else number_kind if type(value) in (int, float) else "nothing"
            if not _add_kind(tree, path, kind):
                return None
            if value is not None:
                return path if kind != "nothing" else None
    return None


def _add_kind(tree: FieldTree, path: tuple[str, ...], kind: str) -> bool:
    """Add the kind of the value at a path; return False if the tree has another kind there."""
    *parents, name = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            return False
    return bool(tree.setdefault(name, kind) == kind)


def parse_columns(
    rows: Integers, clients: StringArray, times: StringArray, costs: StringArray | None, unit: int
) -> Iterator[ParsedRows]:
    """Parse columns of text, which JSON objects and Parquet rows become."""
    places = arrow.find_matches(clients, _CLIENT_PATTERN)
    if costs is not None:
        valid, groups = arrow.extract_groups(costs, _COST_PATTERN)
        places, at, _ = np.intersect1d(valid, places, return_indices=True)
        costs = arrow.select(groups["cost"], at)
    rows, clients, times = rows[places], arrow.select(clients, places), arrow.select(times, places)
    for pattern in RE2_TIMES:
        places, groups = arrow.extract_groups(times, f"^(?:{pattern})$")
        groups["client"] = arrow.select(clients, places)
        if costs is not None:
            groups["cost"] = arrow.select(costs, places)
        yield _convert_groups(rows[places], groups, unit)
        left = np.delete(np.arange(len(rows)), places)
        rows, clients, times = rows[left], arrow.select(clients, left), arrow.select(times, left)
        costs = None if costs is None else arrow.select(costs, left)


# --- Parquet


def find_parquet_fields(path: str, fields: FieldNames) -> FieldNames:
    """Return the names of the columns to read; raise `InputError` if one is missing or the file is invalid."""
    names = arrow.read_parquet_names(path)
    lower_names = [name.lower() for name in names]

    def find(candidates: tuple[str, ...], option: str) -> str:
        return names[find_column(lower_names, candidates, option)]

    time = find(tuple(fields.times), "time")
    cost = find((fields.cost,), "cost") if fields.cost else None
    return FieldNames((find(tuple(fields.clients), "key"),), (time,), cost, fields.unit_of(time.lower()))


def read_parquet_batches(
    path: str, fields: FieldNames, progress: Callable[[int], None] | None
) -> Generator[Batch, None, None]:
    """Yield the rows, numbered from 1. Uncommon rows are deferred as JSON objects of text."""
    names = [*fields.clients, *fields.times, *([fields.cost] if fields.cost else [])]
    first_row, file_bytes = 1, Path(path).stat().st_size
    for share, columns in arrow.read_parquet_columns(path, list(dict.fromkeys(names))):
        size = len(columns[names[0]])
        client, time, *cost = (columns[name] for name in names)
        parsed = parse_columns(np.arange(size), client, time, cost[0] if cost else None, fields.unit)
        yield build_batch(parsed, first_row, size, partial(_format_row, columns))
        first_row += size
        if progress:
            progress(round(file_bytes * share))


def _format_row(columns: dict[str, StringArray], row: int) -> str:
    """Return the values of a row as a JSON object of text, without those that are null."""
    record = {name: column[row].as_py() for name, column in columns.items() if column[row].is_valid}
    return json.dumps(record, ensure_ascii=False)
