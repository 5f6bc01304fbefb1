"""Columnar trace reader: parses blocks of lines with Arrow instead of line by line in Python."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from os import cpu_count
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.spill import Integers
from ratelab.lab.traces import arrow, object_columns
from ratelab.lab.traces.arrow import StringArray
from ratelab.lab.traces.batches import ANONYMOUS, Batch, LineError, RequestColumns
from ratelab.lab.traces.choices import RequestRule, parse_cost
from ratelab.lab.traces.clients import IPV4, IPV4_AND_PORT
from ratelab.lab.traces.delimited import JOINED, unescape_formula
from ratelab.lab.traces.files import MAX_LINE_CHARS, Block, decode
from ratelab.lab.traces.jsonl import ObjectSpec
from ratelab.lab.traces.logfmt import PairSpec
from ratelab.lab.traces.patterns import MIN_ADDRESS_CHARS, PatternSpec, Watch
from ratelab.lab.traces.requests import Field
from ratelab.lab.traces.time_columns import Booleans, parse_times

_ADDRESS_AND_PORT = rf"^({IPV4}|\[[0-9A-Fa-f:.]+\]):[0-9]{{1,5}}$"

_IPV4_AND_PORT = f"^{IPV4_AND_PORT}$"

_IS_IN_ADDRESS = np.isin(np.arange(256), list(b"0123456789ABCDEFabcdef.:[]"))

ColumnSpec = PatternSpec | ObjectSpec | PairSpec

_MAX_THREADS = min(cpu_count() or 1, 8)


def read_batches(blocks: Iterable[Block], spec: ColumnSpec, rule: RequestRule) -> Generator[Batch, None, None]:
    """Yield the batch of each block, in order; several blocks are parsed at a time."""
    with ThreadPoolExecutor(_MAX_THREADS) as pool:
        yield from _map_in_order(pool, lambda block: parse_block(block, spec, rule), blocks)


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


def parse_block(block: Block, spec: ColumnSpec, rule: RequestRule) -> Batch:
    """Parse the common lines of a block, and defer the others."""
    if not block.text.isascii():
        block = Block(block.first_line, decode(block.text).encode(errors="replace"))
    lines = arrow.split_lines(block.text, block.newlines)
    rows = np.flatnonzero(arrow.count_bytes(lines) <= MAX_LINE_CHARS)
    builder = BatchBuilder(rule, len(lines))
    for values in _read_values(lines, rows, spec):
        builder.add(values)
    return builder.build(block.first_line, lambda row: lines[row].as_py().removesuffix("\n"))


class RowValues(NamedTuple):
    """The text of the fields of some lines of a block."""

    rows: Integers
    """The places of the lines in the block, rising."""
    columns: list[StringArray]
    """For each field, its text in these lines."""


def _read_values(lines: StringArray, rows: Integers, spec: ColumnSpec) -> Iterator[RowValues]:
    if isinstance(spec, PatternSpec):
        return _match_patterns(lines, rows, spec)
    return _find_pairs(lines, rows, spec) if isinstance(spec, PairSpec) else _parse_objects(lines, rows, spec)


def _parse_objects(lines: StringArray, rows: Integers, spec: ObjectSpec) -> Iterator[RowValues]:
    found = object_columns.parse_fields(lines, rows, spec)
    if found is not None:
        yield RowValues(found[0], [_convert(*pair) for pair in zip(found[1], spec.converters, strict=True)])


# --- requests from values


@dataclass(eq=False)
class BatchBuilder:
    """Converts values to requests as `RequestRule.parse` does, and leaves the other lines of a block to it."""

    rule: RequestRule
    size: int
    """The number of lines in the block."""
    _requests: list[tuple[Integers, Integers, Integers, Integers]] = field(default_factory=list)
    _names: list[str] = field(default_factory=list)
    _omitted: Counter[int | str] = field(default_factory=Counter)
    _uses_all_names: bool = True

    def __post_init__(self) -> None:
        self._is_left = np.ones(self.size, np.bool_)

    def add(self, values: RowValues) -> None:
        """Convert the values of some lines; those that are invalid are left."""
        rule, (rows, columns) = self.rule, values
        for number, filter_ in enumerate(rule.filters):
            column = columns[rule.clients + 1 + rule.has_cost + number]
            accepted = _map_distinct(column, filter_.accepts, np.bool_)
            rows, columns = self._omit(number, rows, columns, accepted)
        if not len(rows):
            return
        indices, names = _name_clients(columns[: rule.clients], rule)
        if not all(names):
            is_named = np.array([bool(name) for name in names], np.bool_)[indices]
            indices = indices[is_named]
            rows, columns = self._omit(ANONYMOUS, rows, columns, is_named)
        times, valid = parse_times(columns[rule.clients], rule.time)
        costs = np.ones(len(rows), np.int64)
        if rule.has_cost:
            costs = _map_distinct(columns[rule.clients + 1], _parse_cost_or_zero, np.int64)
            valid &= costs > 0
        if not valid.all():
            self._uses_all_names = False
            rows, indices, times, costs = (column[valid] for column in (rows, indices, times, costs))
        self._is_left[rows] = False
        self._requests.append((rows, times, indices + len(self._names), costs))
        self._names += names

    def _omit(
        self, kind: int | str, rows: Integers, columns: list[StringArray], kept: Booleans
    ) -> tuple[Integers, list[StringArray]]:
        """Count the lines that are not kept, and return the others."""
        if kept.all():
            return rows, columns
        self._uses_all_names = False
        self._is_left[rows[~kept]] = False
        self._omitted[kind] += int(np.count_nonzero(~kept))
        places = np.flatnonzero(kept)
        return rows[places], [arrow.select(column, places) for column in columns]

    def build(self, first_line: int, get_line: Callable[[int], str]) -> Batch:
        """Return the requests in the order of lines, and the lines that are left."""
        left = [(first_line + row, get_line(row)) for row in np.flatnonzero(self._is_left).tolist()]
        deferred = [(number, line) for number, line in left if line]
        if not any(len(rows) for rows, *_ in self._requests):
            return Batch(deferred=deferred, omitted=self._omitted)
        rows, times, clients, costs = (np.concatenate(column) for column in zip(*self._requests, strict=True))
        if len(self._requests) > 1:
            order = np.argsort(rows, kind="stable")
            rows, times, clients, costs = (column[order] for column in (rows, times, clients, costs))
        names = self._names
        if len(self._requests) > 1 or not self._uses_all_names:
            clients, used = renumber_used(clients, len(names))
            names = [names[number] for number in used.tolist()]
        return Batch(rows + first_line, RequestColumns(times, clients, costs), names, deferred, self._omitted)


def renumber_used(numbers: Integers, count: int) -> tuple[Integers, Integers]:
    """Renumber values below `count` in the order of their first use; return the new numbers and the used values."""
    firsts = np.full(count, len(numbers), np.int64)
    firsts[numbers[::-1]] = np.arange(len(numbers) - 1, -1, -1)
    used = np.flatnonzero(firsts < len(numbers))
    used = used[np.argsort(firsts[used])]
    places = np.empty(count, np.int64)
    places[used] = np.arange(len(used))
    return places[numbers], used


def _name_clients(columns: Sequence[StringArray], rule: RequestRule) -> tuple[Integers, list[str]]:
    """Return each row's index in a list of names, and this list, in the order of first rows; names may be repeated."""
    indices, last = _number_texts(columns[-1], rule.fields[rule.clients - 1])
    texts = last.to_pylist()
    is_ipv4 = arrow.match(last, _IPV4_AND_PORT) if rule.names.keeps_ipv4 else np.zeros(len(texts), np.bool_)
    if is_ipv4.all() and not arrow.contains(last, ":"):
        return indices, texts
    if is_ipv4.all() or len(columns) == 1:
        known = zip(texts, is_ipv4.tolist(), strict=True)
        return indices, [text.partition(":")[0] if is_known else rule.names[(text,)] for text, is_known in known]
    tuples: list[tuple[str, ...]] = list(zip(texts))
    for column, item in reversed(list(zip(columns[:-1], rule.fields, strict=False))):
        more, distinct = _number_texts(column, item)
        texts = distinct.to_pylist()
        pairs, indices = np.unique(more * len(tuples) + indices, return_inverse=True)
        indices, used = renumber_used(indices, len(pairs))
        tuples = [(texts[pair // len(tuples)], *tuples[pair % len(tuples)]) for pair in pairs[used].tolist()]
    return indices, list(map(rule.names.__getitem__, tuples))


def _number_texts(column: StringArray, item: Field) -> tuple[Integers, StringArray]:
    """Return each text's index in an array of the distinct texts, and this array.

    Ports of addresses are removed if most texts differ, since the name of each distinct text takes time.
    """
    indices, texts = arrow.encode(column)
    if 2 * len(texts) > len(column) and {"ip", "forwarded"} & set(item.names) and arrow.contains(texts, ":"):
        places, texts = arrow.encode(arrow.replace(texts, _ADDRESS_AND_PORT, r"\1"))
        indices = places[indices]
    return indices, texts


def _map_distinct(texts: StringArray, convert: Callable[[str], Any], kind: type) -> NDArray[Any]:
    """Convert each distinct text once."""
    indices, distinct = arrow.number_texts(texts)
    return np.array([convert(text) for text in distinct], kind)[indices]


def _parse_cost_or_zero(text: str) -> int:
    try:
        return parse_cost(text.strip())
    except LineError:
        return 0


# --- text


def _match_patterns(lines: StringArray, rows: Integers, spec: PatternSpec) -> Iterator[RowValues]:
    """Try each pattern on the lines that the ones before it do not match."""
    if spec.header:
        rows = rows[~arrow.are_in(arrow.select(lines, rows), [spec.header + end for end in ("", "\n", "\r", "\r\n")])]
    if spec.comment:
        rows = rows[~arrow.start_with(arrow.select(lines, rows), spec.comment)]
    for number, (pattern, places) in enumerate(zip(spec.patterns, spec.places, strict=True)):
        if not len(rows):
            return
        whole = np.arange(len(rows))
        if spec.wholes:
            whole = np.flatnonzero(arrow.match(arrow.select(lines, rows), spec.wholes[number]))
        matches, groups = arrow.extract_groups(arrow.select(lines, rows[whole]), pattern)
        if len(matches):
            found = whole[matches]
            _note_lines(lines, rows[found], number, spec.watch)
            columns = [_get_column(groups, group, len(found), spec) for group in places]
            yield RowValues(rows[found], [_convert(*pair) for pair in zip(columns, spec.converters, strict=True)])
            rows = np.delete(rows, found)


def _note_lines(lines: StringArray, rows: Integers, number: int, watch: Watch | None) -> None:
    """Note the addresses of these lines, given the number of the pattern that they match."""
    if watch is None:
        return
    if note := watch.shape_notes[number]:
        watch.notes.add(note)
    elif watch.end_note not in watch.notes:
        rows = _select_ends(lines, rows)
        if len(rows) and arrow.match(arrow.select(lines, rows), watch.end).any():
            watch.notes.add(watch.end_note)


def _select_ends(lines: StringArray, rows: Integers) -> Integers:
    """Return the rows of lines that may end with an address in quotes; much faster than a pattern."""
    data, ends = arrow.get_bytes(lines), np.cumsum(arrow.count_bytes(lines))
    ends[:-1] -= 1  # the newline, which the last line lacks
    rows = rows[_IS_IN_ADDRESS[data[np.maximum(ends[rows] - 1 - MIN_ADDRESS_CHARS, 0)]]]
    last = data[np.maximum(ends[rows] - 1, 0)]
    quoted: Integers = rows[(last == ord('"')) | (last == ord("\r"))]
    return quoted


def _get_column(groups: dict[str, StringArray], group: str | None, size: int, spec: PatternSpec) -> StringArray:
    """Return the text of a group, or of two groups that are joined; empty without one."""
    if group is None:
        return arrow.repeat("", size)
    parts = [groups[name] for name in (group.split(JOINED) if group not in groups else [group])]
    if spec.strips_quotes:
        parts = [arrow.strip_quotes(part) for part in parts]
    return parts[0] if len(parts) == 1 else arrow.join(parts[0], " ", parts[1])


def _convert(column: StringArray, converter: Callable[[str], str] | None) -> StringArray:
    """Convert each distinct text of a column once."""
    if converter is None or (converter is unescape_formula and not arrow.contains(column, "'")):
        return column
    return arrow.map_texts(column, converter)


def _find_pairs(lines: StringArray, rows: Integers, spec: PairSpec) -> Iterator[RowValues]:
    """Find the value of each name; a line without a required one is left."""
    if spec.common is not None:
        for values in _match_patterns(lines, rows, spec.common):
            rows = np.delete(rows, np.searchsorted(rows, values.rows))
            yield values
    columns: list[StringArray | None] = []
    lines = arrow.select(lines, rows)
    found = np.ones(len(rows), np.bool_)
    for pattern, required in zip(spec.patterns, spec.required, strict=True):
        column, is_found = arrow.extract_group(lines, pattern) if pattern else (arrow.repeat("", len(rows)), found)
        columns.append(column)
        found = found & is_found if required else found
    places = np.flatnonzero(found)
    selected = [arrow.select(column, places) for column in columns]
    yield RowValues(rows[places], [_convert(*pair) for pair in zip(selected, spec.converters, strict=True)])
