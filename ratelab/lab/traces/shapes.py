"""The shape of a JSON object: where its client, time and cost stand, and of what kind they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, NamedTuple

from ratelab.lab.traces.arrow import Tree
from ratelab.lab.traces.jsonl import Fields


class Shape(NamedTuple):
    """What to read of objects that are alike."""

    tree: Tree
    paths: list[tuple[str, ...]]
    """To the client, the time and, if one is wanted, the cost."""
    unit: int
    """Nanoseconds that a time's number counts."""


def shape_of(line: str, fields: Fields) -> Shape | None:
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
