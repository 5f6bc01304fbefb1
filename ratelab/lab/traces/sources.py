"""Sources: the files of a trace, each read in the way that suits it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from itertools import chain, islice
from typing import NamedTuple

from ratelab.errors import InputError, install_hint
from ratelab.lab.traces.access_log import ReadLine
from ratelab.lab.traces.batches import Part, unread
from ratelab.lab.traces.files import arrow_installed, is_parquet, read_blocks
from ratelab.lab.traces.formats import recognised
from ratelab.lab.traces.jsonl import json_reader
from ratelab.lab.traces.options import TraceOptions


class Source(NamedTuple):
    """A file that has been opened."""

    format: str
    read_line: ReadLine
    """Reads what is left of a part."""
    parts: Generator[Part, None, None]


def opened(path: str, options: TraceOptions, progress: Callable[[int], None] | None, columnar: bool | None) -> Source:
    """Open a file, or standard input for `-`; lines are read together if `columnar`, or by default if they are many.

    Raises `InputError` for what cannot be read, then or while iterating.
    """
    if is_parquet(path):
        return _parquet(path, options, progress)
    blocks = read_blocks(path, progress)
    first = list(islice(blocks, 2))
    format_, blocks = recognised(chain(first, blocks), options)
    if columnar is None:
        columnar = len(first) > 1 and arrow_installed()
    if columnar and format_.columnar:
        from ratelab.lab.traces.columnar import parts_of

        return Source(format_.name, format_.read_line, parts_of(blocks, format_))
    return Source(format_.name, format_.read_line, (unread(list(block.lines())) for block in blocks))


def _parquet(path: str, options: TraceOptions, progress: Callable[[int], None] | None) -> Source:
    if not arrow_installed():
        raise InputError(f"reading Parquet needs pyarrow: {install_hint('logs')}, or convert it to CSV")
    if options.format not in ("auto", "parquet"):
        raise InputError(f"it is a Parquet file, not {options.format}: leave out --format")
    from ratelab.lab.traces.parquet import named_columns, parquet_parts

    fields = named_columns(path, options.fields)
    return Source("parquet", json_reader(fields), parquet_parts(path, fields, progress))
