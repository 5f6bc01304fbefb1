"""Columns of the fields of JSON objects that have the same fields, parsed a block at a time."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.spill import Integers
from ratelab.lab.traces import arrow
from ratelab.lab.traces.arrow import FieldTree, StringArray
from ratelab.lab.traces.files import CACHED_BYTES
from ratelab.lab.traces.jsonl import ObjectSpec
from ratelab.lab.traces.requests import Field

_SHAPE_LINES = 20


def parse_fields(lines: StringArray, rows: Integers, spec: ObjectSpec) -> tuple[Integers, list[StringArray]] | None:
    """Return the rows that are objects, and the text of each field in them; None unless all have the same shape."""
    rows = rows[find_objects(arrow.select(lines, rows))]
    lines = arrow.select(lines, rows)
    for shape in _propose_shapes(lines, spec):
        objects = arrow.parse_objects(lines, shape.tree)
        if objects is not None and len(objects) == len(rows):
            spec.shapes[:] = [shape]
            break
    else:
        return None
    columns = [arrow.get_member(objects, path) if path else arrow.repeat("", len(rows)) for path in shape.paths]
    fields = zip(columns, spec.fields, shape.paths, strict=True)
    # Another name may have the value that an optional field lacks.
    required = [column for column, item, path in fields if not item.optional or (path and len(item.names) > 1)]
    places = np.flatnonzero(arrow.have_values(required) & arrow.have_no_zero(columns))  # -0 is read as 0
    columns = [
        column if item.option == "time" and arrow.is_decimal(column) else arrow.cast_to_text(column)
        for column, item in zip(columns, spec.fields, strict=True)
    ]
    return rows[places], [arrow.fill_missing(arrow.select(column, places)) for column in columns]


def find_objects(lines: StringArray) -> Integers:
    """Return the places of lines that look like one JSON object, not nested deeply and without `-NaN`."""
    is_object = arrow.start_with(lines, "{") & _end_with_brace(lines)
    if _may_nest_deeply(arrow.get_bytes(lines), arrow.count_bytes(lines)):
        is_object &= arrow.count_substring(lines, "{") + arrow.count_substring(lines, "[") < _MAX_BRACKETS
    if arrow.contains(lines, "NaN") or arrow.contains(lines, "Inf"):
        is_object &= ~arrow.match(lines, r"[^\"A-Za-z](?:NaN|Inf)")
    return np.flatnonzero(is_object)


def _end_with_brace(lines: StringArray) -> NDArray[np.bool_]:
    ends = arrow.end_with(lines, "}\n")
    for end in ("}", "}\r\n", "}\r"):
        if ends.all():
            break
        ends |= arrow.end_with(lines, end)
    return ends


_MAX_BRACKETS = 400
_WINDOW_BYTES = 1 << 10


def _may_nest_deeply(text: NDArray[np.uint8], lengths: Integers) -> bool:
    """Return whether `_MAX_BRACKETS` opening brackets are close enough to be in one line."""
    longest = int(lengths.max(initial=0))
    if longest < 2 * _MAX_BRACKETS:
        return False
    parts = [_count_by_window(text[begin : begin + CACHED_BYTES]) for begin in range(0, len(text), CACHED_BYTES)]
    totals = np.cumsum(np.concatenate([[0], *parts]))
    windows = min(longest // _WINDOW_BYTES + 2, len(totals) - 1)  # that a line may touch
    return bool((totals[windows:] - totals[:-windows]).max() >= _MAX_BRACKETS)


def _count_by_window(text: NDArray[np.uint8]) -> Integers:
    """Count the opening brackets in each window of `_WINDOW_BYTES`."""
    is_opening = np.zeros(-(-len(text) // _WINDOW_BYTES) * _WINDOW_BYTES, np.bool_)
    np.equal(text | 0x20, ord("{"), out=is_opening[: len(text)])  # 0x20 turns [ into {
    lanes = is_opening.view(np.uint64).reshape(-1, _WINDOW_BYTES // 8).sum(axis=1)  # at most 128 in each byte
    counts: Integers = lanes.view(np.uint8).reshape(-1, 8).sum(axis=1, dtype=np.int64)
    return counts


# --- shapes


def _propose_shapes(lines: StringArray, spec: ObjectSpec) -> Iterator[ObjectShape]:
    """Yield the shape of an earlier block, then that of the first objects that has the most fields."""
    yield from spec.shapes[:]
    shapes = [shape for line in lines[:_SHAPE_LINES].to_pylist() if (shape := find_shape(line, spec.fields))]
    fullest = max(shapes, key=lambda shape: sum(map(bool, shape.paths)), default=None)
    if fullest is not None and fullest not in spec.shapes:
        yield fullest


class ObjectShape(NamedTuple):
    """The fields to read from objects that have the same fields."""

    tree: FieldTree
    paths: list[tuple[str, ...]]
    """The path of each field; empty for one that is missing."""


def find_shape(line: str, fields: Sequence[Field]) -> ObjectShape | None:
    """Return the shape of a JSON object; None if it lacks a field, or needs the line parser.

    If the first of several possible names is missing in this object, the shape requires that others lack it, too.
    An `--events` file needs the line parser, since its lines depend on earlier ones.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    tree: FieldTree = {}
    paths = [_find_path(record, item, tree) for item in fields]
    if any(path is None for path in paths) or ("at_ns",) in paths:
        return None
    return ObjectShape(tree, [path for path in paths if path is not None])


def _find_path(record: dict[str, Any], item: Field, tree: FieldTree) -> tuple[str, ...] | None:
    """Return the path of the first name that has a value; add its kind to the tree, and that earlier names lack one."""
    for name in item.names:
        for path in dict.fromkeys(((name,), tuple(name.split(".")))):
            value: Any = record
            for part in path:
                value = value.get(part) if isinstance(value, dict) else None
            number_kind = "number" if item.option in ("time", "cost") else "integer"
            kind = "text" if isinstance(value, str) else number_kind if type(value) in (int, float) else "nothing"
            if not _add_kind(tree, path, kind):
                return None
            if value is not None:
                return path if kind != "nothing" else None
    return () if item.optional else None


def _add_kind(tree: FieldTree, path: tuple[str, ...], kind: str) -> bool:
    """Add the kind of the value at a path; return False if the tree has another kind there."""
    *parents, name = path
    for parent in parents:
        tree = tree.setdefault(parent, {})
        if not isinstance(tree, dict):
            return False
    return bool(tree.setdefault(name, kind) == kind)
