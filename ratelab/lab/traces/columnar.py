"""Blocks of lines as columns: what is read of each line, without a turn of Python for each."""

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
from ratelab.lab.traces.arrow import Tree
from ratelab.lab.traces.batches import Columns, Part, unread
from ratelab.lab.traces.csv_rows import column_of
from ratelab.lab.traces.files import MAX_LINE_CHARS, Block, LineError
from ratelab.lab.traces.formats import Format
from ratelab.lab.traces.jsonl import FieldNames
from ratelab.lab.traces.timestamps import PLAIN_TIMES, read_log_instant
from ratelab.quota import LARGEST, UNITS


class Shape(NamedTuple):
    """What to read of objects that are alike."""

    tree: Tree
    paths: list[tuple[str, ...]]
    """To the client, the time and, if one is wanted, the cost."""
    unit: int
    """Nanoseconds that a time's number counts."""


def shape_of(line: str, fields: FieldNames) -> Shape | None:
    """Return the shape of a JSON object in which every field is found; None if there is none that is plain.

    Where the first of several names that it may have is missing, it must be missing in others, too. What `--events`
    wrote has no shape: its lines depend on the ones before.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    tree: Tree = {}
    clients, times = _path(record, fields.clients, tree, "integer"), _path(record, fields.times, tree, "number")
    costs = _path(record, (fields.cost,), tree, "number") if fields.cost else ()
    if clients is None or times is None or costs is None or times == ("at_ns",):
        return None
    return Shape(tree, [path for path in (clients, times, costs) if path], fields.unit)


def _path(record: dict[str, Any], names: Sequence[str], tree: Tree, number: str) -> tuple[str, ...] | None:
    """Find the first name that has a value, and note in the tree what is there, and that nothing is under others."""
    for name in names:
        for path in dict.fromkeys(((name,), tuple(name.split(".")))):
            value: Any = record
            for part in path:
                value = value.get(part) if isinstance(value, dict) else None
            kind = "text" if isinstance(value, str) else number if type(value) in (int, float) else "nothing"
            if not _note(tree, path, kind):
                return None
            if value is not None:
                return path if kind != "nothing" else None
    return None


def _note(tree: Tree, path: tuple[str, ...], kind: str) -> bool:
    """Note what stands at a path; say whether that goes together with what is noted already."""
    *parents, name = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            return False
    return bool(tree.setdefault(name, kind) == kind)


_CLIENT = "^[!-~](?:(?s:.)*[!-~])?$"
"""Nearly every client's name: one that has no blanks around it, whatever counts as blank."""
_COST = r"^(?P<cost>[0-9]{1,18})(?:\.0+)?$"
_THREADS = min(cpu_count() or 1, 8)


class Found(NamedTuple):
    """Requests found in some of the lines of a block."""

    rows: Integers
    """The places of their lines."""
    clients: arrow.Texts
    times: Integers
    costs: Integers


def parts_of(blocks: Iterable[Block], format_: Format) -> Generator[Part, None, None]:
    """Yield what each block holds, in order; several are worked on at a time."""
    with ThreadPoolExecutor(_THREADS) as pool:
        yield from _in_order(pool, lambda block: part_of(block, format_), blocks)


def _in_order(pool: ThreadPoolExecutor, work: Callable[[Block], Part], blocks: Iterable[Block]) -> Iterator[Part]:
    """Yield the results of work in the order of the blocks, those before a block that cannot be read included."""
    ahead: deque[Future[Part]] = deque()
    try:
        for block in blocks:
            ahead.append(pool.submit(work, block))
            if len(ahead) > _THREADS:
                yield ahead.popleft().result()
    except InputError:
        yield from (one.result() for one in ahead)
        raise
    yield from (one.result() for one in ahead)


def part_of(block: Block, format_: Format) -> Part:
    """Read a block; lines that are not plain are left to be read one by one."""
    text = block.text if block.text.isascii() else block.text.decode(errors="replace").encode()
    lines = arrow.lines_of(text)
    rows = np.flatnonzero(arrow.sizes(lines) <= MAX_LINE_CHARS)
    if format_.fields:
        requests = _in_objects(lines, rows, format_.fields)
    else:
        requests = _in_rows(lines, rows, format_.patterns, format_.unit)
    return part_from(requests, block.number, len(lines), lambda row: lines[row].as_py().removesuffix("\n"))


def part_from(requests: Iterable[Found], number: int, size: int, line: Callable[[int], str]) -> Part:
    """Put what was found in `size` lines, the first of this number, in their order; ask for the lines left."""
    found = [one for one in requests if len(one.rows)]
    left = np.ones(size, np.bool_)
    for one in found:
        left[one.rows] = False
    rest = [(number + row, line(row)) for row in np.flatnonzero(left).tolist()]
    if not found:
        return unread(rest)
    rows = np.concatenate([one.rows for one in found])
    order = np.argsort(rows, kind="stable")
    times, costs = (np.concatenate(columns)[order] for columns in zip(*(one[2:] for one in found), strict=True))
    codes, names = arrow.numbered(arrow.arranged([one.clients for one in found], order))
    return Part(rows[order] + number, Columns(times, codes, costs), names, rest)


def _in_rows(lines: arrow.Texts, rows: Integers, patterns: Sequence[str], unit: int) -> Iterator[Found]:
    """Try one pattern after the other on the lines that are left."""
    for pattern in patterns:
        places, groups = arrow.groups_of(arrow.taken(lines, rows), pattern)
        if len(places):
            yield _known(rows[places], groups, unit)
        rows = np.delete(rows, places)


def _in_objects(lines: arrow.Texts, rows: Integers, fields: FieldNames) -> Iterator[Found]:
    """Read JSON objects of one shape, if all are of it, that of the first."""
    rows = rows[arrow.are_objects(arrow.taken(lines, rows))]
    lines = arrow.taken(lines, rows)
    shape = shape_of(lines[0].as_py(), fields) if len(rows) else None
    objects = shape and arrow.read_objects(lines, shape.tree)
    if shape and objects is not None and len(objects) == len(rows):
        client, time, *cost = (arrow.member(objects, path) for path in shape.paths)
        yield from in_columns(rows, client, time, cost[0] if cost else None, shape.unit)


def in_columns(
    rows: Integers, clients: arrow.Texts, times: arrow.Texts, costs: arrow.Texts | None, unit: int
) -> Iterator[Found]:
    """Read columns of text."""
    places = arrow.matches(clients, _CLIENT)
    if costs is not None:
        sure, groups = arrow.groups_of(costs, _COST)
        places, at, _ = np.intersect1d(sure, places, return_indices=True)
        costs = arrow.taken(groups["cost"], at)
    rows, clients, times = rows[places], arrow.taken(clients, places), arrow.taken(times, places)
    for pattern in PLAIN_TIMES:
        places, groups = arrow.groups_of(times, f"^(?:{pattern})$")
        groups["client"] = arrow.taken(clients, places)
        if costs is not None:
            groups["cost"] = arrow.taken(costs, places)
        yield _known(rows[places], groups, unit)
        left = np.delete(np.arange(len(rows)), places)
        rows, clients, times = rows[left], arrow.taken(clients, left), arrow.taken(times, left)
        costs = None if costs is None else arrow.taken(costs, left)


def _known(rows: Integers, groups: dict[str, arrow.Texts], unit: int) -> Found:
    """Make requests of what the groups hold; leave out what may mean something else, such as a log's `-`, or 0."""
    times, known = _number_times(groups, unit) if "whole" in groups else _calendar_times(groups)
    costs = arrow.whole_numbers(groups["cost"]) if "cost" in groups else np.ones(len(rows), np.int64)
    known &= costs >= 1
    known[arrow.matches(groups["client"], "^[-0]?$")] = False
    places = np.flatnonzero(known)
    return Found(rows[places], arrow.taken(groups["client"], places), times[places], costs[places])


def _number_times(groups: dict[str, arrow.Texts], unit: int) -> tuple[Integers, NDArray[np.bool_]]:
    """Read times that are numbers of so many nanoseconds, and say which of them fit."""
    whole = arrow.whole_numbers(groups["whole"])
    known = whole < LARGEST // unit
    return np.where(known, whole, 0) * unit + arrow.whole_numbers(groups["fraction"], 9) * unit // UNITS["s"], known


def _calendar_times(groups: dict[str, arrow.Texts]) -> tuple[Integers, NDArray[np.bool_]]:
    """Read written times, and say which of them there are: each minute is read once."""
    minutes, texts = arrow.numbered(arrow.joined(groups["minute"], ":00", groups["zone"]))
    starts = [_start(text) for text in texts]
    known = np.array([start is not None for start in starts], np.bool_)[minutes]
    times = np.array([start or 0 for start in starts], np.int64)[minutes]
    times += arrow.whole_numbers(arrow.without(".", groups["second"]), digits=11)
    return times, known & (times <= LARGEST)


def _start(text: str) -> int | None:
    try:
        return read_log_instant(text)
    except LineError:
        return None


def named_columns(path: str, fields: FieldNames) -> FieldNames:
    """Return the names of the columns to read; raise `InputError` for a file that lacks one or is none."""
    names = arrow.parquet_names(path)
    small = [name.lower() for name in names]

    def find(wanted: tuple[str, ...], option: str) -> str:
        return names[column_of(small, wanted, option)]

    time = find(tuple(fields.times), "time")
    cost = find((fields.cost,), "cost") if fields.cost else None
    return FieldNames((find(tuple(fields.clients), "key"),), (time,), cost, fields.unit_of(time.lower()))


def parquet_parts(path: str, fields: FieldNames, progress: Callable[[int], None] | None) -> Generator[Part, None, None]:
    """Yield the rows, numbered from 1; those that are not plain are left as JSON objects of text."""
    names = [*fields.clients, *fields.times, *([fields.cost] if fields.cost else [])]
    number, stored = 1, Path(path).stat().st_size
    for share, columns in arrow.parquet_columns(path, list(dict.fromkeys(names))):
        size = len(columns[names[0]])
        client, time, *cost = (columns[name] for name in names)
        found = in_columns(np.arange(size), client, time, cost[0] if cost else None, fields.unit)
        yield part_from(found, number, size, partial(_line, columns))
        number += size
        if progress:
            progress(round(stored * share))


def _line(columns: dict[str, arrow.Texts], row: int) -> str:
    """Write what a row has as a JSON object of text."""
    record = {name: column[row].as_py() for name, column in columns.items() if column[row].is_valid}
    return json.dumps(record, ensure_ascii=False)
