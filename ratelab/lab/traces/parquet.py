"""Parquet files, whose columns are read as the text that a CSV file would hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from functools import partial
from pathlib import Path

import numpy as np

from ratelab.lab.traces import arrow
from ratelab.lab.traces.batches import Part
from ratelab.lab.traces.columnar import in_columns, part_from
from ratelab.lab.traces.csv_rows import column_of
from ratelab.lab.traces.jsonl import Fields


def named_columns(path: str, fields: Fields) -> Fields:
    """Return the names of the columns to read; raise `InputError` for a file that lacks one or is none."""
    names = arrow.parquet_names(path)
    small = [name.lower() for name in names]

    def find(wanted: tuple[str, ...], option: str) -> str:
        return names[column_of(small, wanted, option)]

    time = find(tuple(fields.times), "time")
    cost = find((fields.cost,), "cost") if fields.cost else None
    return Fields((find(tuple(fields.clients), "key"),), (time,), cost, fields.unit_of(time.lower()))


def parquet_parts(path: str, fields: Fields, progress: Callable[[int], None] | None) -> Generator[Part, None, None]:
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
