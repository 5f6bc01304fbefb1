"""Algorithms explained beside each other, on the same requests; as many abreast as there is room for."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from ratelab.learn.explain import Explained, decision, explained, facts, heading, table
from ratelab.learn.lesson import Lesson, lesson
from ratelab.limiter import Algorithm
from ratelab.quota import Quota, format_duration

LABELS, COLUMN = 13, 22
"""Letters for the labels, and for each algorithm at least."""


def beside(algorithms: Sequence[type[Algorithm]], quota: Quota, width: int) -> RenderableType:
    """Explain several algorithms under one quota on a terminal so wide; what does not fit stands below."""
    taught = lesson(quota)
    told = [explained(algorithm, quota, taught) for algorithm in algorithms]
    rows = _rows(told, max(1, (width - LABELS) // COLUMN))
    return Group(
        Text(f"{', '.join(one.entry.algorithm for one in told)} at {quota}\n", style="bold"),
        *_apart(map(facts, rows)),
        heading("The same requests"),
        *_apart(_decisions(row, told, taught) for row in rows),
    )


def _rows(told: Sequence[Explained], most: int) -> list[Sequence[Explained]]:
    """Cut into as few rows as possible, each about as long as the others."""
    each = -(-len(told) // -(-len(told) // most))
    return [told[start : start + each] for start in range(0, len(told), each)]


def _apart(tables: Iterable[Table]) -> Iterator[RenderableType]:
    for number, one in enumerate(tables):
        if number:
            yield Text()
        yield one


def _decisions(row: Sequence[Explained], told: Sequence[Explained], taught: Lesson) -> Table:
    """Return what each of a row decides; in bold where not all of those told of decide alike."""
    columns = table(2)
    for name in ("time", "cost"):
        columns.add_column(name, justify="right", no_wrap=True)
    columns.add_column("what comes", ratio=1)
    for one in row:
        columns.add_column(one.entry.algorithm, ratio=1)
    for number, request in enumerate(taught.requests):
        decisions = [decision(one.worked[number], taught) for one in row]
        differ = len({one.worked[number].decision.allowed for one in told}) > 1
        at = format_duration(taught.nanoseconds(request.at))
        columns.add_row(at, str(request.cost), request.what, *decisions, style="bold" if differ else None)
    return columns
