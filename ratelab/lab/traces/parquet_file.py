"""Parquet files, whose columns are read like the fields of JSON objects."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from ratelab.errors import InputError
from ratelab.lab.traces import arrow
from ratelab.lab.traces.arrow import StringArray
from ratelab.lab.traces.batches import Batch
from ratelab.lab.traces.choices import RequestRule
from ratelab.lab.traces.columnar import BatchBuilder, RowValues
from ratelab.lab.traces.files import is_remote, sum_file_sizes
from ratelab.lab.traces.jsonl import JsonFormat
from ratelab.lab.traces.names import format_missing, suggest
from ratelab.lab.traces.patterns import clean_path
from ratelab.lab.traces.requests import Field, FieldReader

_SAMPLE_ROWS = 100


@dataclass(frozen=True)
class ParquetFormat:
    """The columns of one file."""

    path: str
    columns: tuple[str, ...]
    """The paths of the columns; those of structs are `a.b`."""
    name: str = "parquet"
    title: str = "Parquet"
    sample: str = ""
    default_key: str = "ip"

    @classmethod
    def open(cls, path: str) -> ParquetFormat:
        """Return the format of a file; raise `InputError` if it is not Parquet."""
        return cls(path, tuple(arrow.read_parquet_names(_get_source(path))))

    def matches(self, line: str) -> bool:
        """Return whether a line is a row."""
        return JsonFormat(self.name, self.title).matches(line)

    def resolve(self, name: str) -> tuple[str, ...]:
        """Return the columns that a name may stand for."""
        return JsonFormat(self.name, self.title).resolve(name)

    def bind(self, fields: Sequence[Field], _lines: Sequence[str]) -> FieldReader:
        """Return the reader of rows as JSON objects; raise `InputError` for a missing column."""
        found = [field._replace(names=self.find(field)) for field in fields]
        return JsonFormat(self.name, self.title).bind(found, ())

    def find(self, field: Field) -> tuple[str, ...]:
        """Return the first column that a field may be, whatever its case; raise `InputError` if it is missing."""
        columns = {column.lower(): column for column in reversed(self.columns)}
        for name in field.names:
            if name in self.columns or name.lower() in columns:
                return (name if name in self.columns else columns[name.lower()],)
        if field.optional:
            return field.names
        raise InputError(
            f"its header has {format_missing(field.names, self.columns)}: name the right one with --{field.option}"
            f"{suggest(field.names, self.columns, field.option)}"
        )

    def read_sample(self) -> list[str]:
        """Return the first rows as JSON objects."""
        return [
            json.dumps(row, ensure_ascii=False) for row in arrow.read_parquet_rows(_get_source(self.path), _SAMPLE_ROWS)
        ]


def _get_source(path: str) -> Any:
    """Return what Arrow opens: the path of a local file, or an open remote file."""
    if not is_remote(path):
        return path
    from ratelab.lab.filesystems import open_for_arrow

    return open_for_arrow(path)


def read_parquet_batches(
    format_: ParquetFormat, rule: RequestRule, progress: Callable[[int], None] | None
) -> Generator[Batch, None, None]:
    """Yield the rows, numbered from 1. Uncommon rows are deferred as JSON objects of text."""
    places = [next((name for name in format_.find(field) if name in format_.columns), None) for field in rule.fields]
    names = list(dict.fromkeys(name for name in places if name is not None))
    first_row, file_bytes = 1, sum_file_sizes([format_.path]) or 0
    for share, columns in arrow.read_parquet_columns(_get_source(format_.path), names):
        size = len(columns[names[0]])
        builder = BatchBuilder(rule, size)
        builder.add(_select_rows(columns, places, rule, size))
        yield builder.build(first_row, partial(_format_row, columns))
        first_row += size
        if progress:
            progress(round(file_bytes * share))


def _select_rows(
    columns: dict[str, StringArray], places: Sequence[str | None], rule: RequestRule, size: int
) -> RowValues:
    """Return the values of the rows that have all required fields."""
    values = [arrow.repeat("", size) if name is None else columns[name] for name in places]
    required = [column for column, field in zip(values, rule.fields, strict=True) if not field.optional]
    rows = np.flatnonzero(arrow.have_values(required))
    values = [arrow.fill_missing(arrow.select(column, rows)) for column in values]
    for number, field in enumerate(rule.fields):
        if "path" in field.names:
            values[number] = arrow.map_texts(values[number], clean_path)
    return RowValues(rows, values)


def _format_row(columns: dict[str, StringArray], row: int) -> str:
    """Return the values of a row as a JSON object of text, without those that are null."""
    record = {name: column[row].as_py() for name, column in columns.items() if column[row].is_valid}
    return json.dumps(record, ensure_ascii=False)
