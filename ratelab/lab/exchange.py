"""Exchange of columns between tasks, through Arrow files in a folder or an object store that all workers reach."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from secrets import token_hex
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
from pyarrow import fs as arrow_fs

from ratelab.errors import InputError, format_reason
from ratelab.lab.filesystems import FileSystem, locate, translate_errors

Table: TypeAlias = Mapping[str, Any]
"""Columns of one length by name: arrays of integers, or lists of bytes."""

_SUMMARY = b"ratelab"
_SUFFIX = ".arrow"


class ExchangeError(InputError):
    """The exchange cannot be written or read."""


@dataclass(frozen=True)
class Exchange:
    """Named files of tables; a file has a summary and is complete as soon as it exists.

    It holds only a path, so that tasks can carry it to other processes and machines.
    """

    folder: str
    """A path or URI, below which all files are."""

    def write(self, name: str, tables: Iterable[Table], summary: Mapping[str, Any] | None = None) -> None:
        """Write a file with these tables, at least one, which all have the same columns.

        It is written under a temporary name and then renamed, so that a task that is repeated replaces its own file.
        """
        system, target = self._locate(name)
        temporary = f"{target}.{token_hex(8)}"
        try:
            with translate_errors():
                system.create_dir(target.rpartition("/")[0], recursive=True)
                try:
                    self._write_tables(system, temporary, tables, summary or {})
                    system.move(temporary, target)
                except BaseException:
                    with suppress(OSError):
                        system.delete_file(temporary)
                    raise
        except OSError as error:
            raise ExchangeError(
                f"cannot write to the exchange {self.folder} ({format_reason(error)}): "
                "make room or name another folder with --exchange, then run the command again"
            ) from None

    def _write_tables(self, system: FileSystem, path: str, tables: Iterable[Table], summary: Mapping[str, Any]) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        batches = map(_encode, tables)
        first = next(batches)
        schema = first.schema.with_metadata({_SUMMARY: json.dumps(summary).encode()})
        with system.open_output_stream(path) as file, pa.ipc.new_file(file, schema, options=options) as writer:
            writer.write_batch(first)
            for batch in batches:
                writer.write_batch(batch)

    def read(self, name: str, numbers: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the tables with these numbers, from 0, by default all."""
        system, path = self._locate(name)
        try:
            with translate_errors(), system.open_input_file(path) as file:
                reader = pa.ipc.open_file(file)
                for number in range(reader.num_record_batches) if numbers is None else numbers:
                    yield _decode(reader.get_batch(number))
        except OSError as error:
            raise ExchangeError(
                f"cannot read {name} in the exchange {self.folder} ({format_reason(error)}): "
                "check that all workers reach it, then run the command again"
            ) from None

    def read_summary(self, name: str) -> dict[str, Any] | None:
        """Return the summary of a file; None if there is no such file, or an incomplete one."""
        system, path = self._locate(name)
        try:
            with translate_errors(), system.open_input_file(path) as file:
                summary: dict[str, Any] = json.loads(pa.ipc.open_file(file).schema.metadata[_SUMMARY])
        except (OSError, KeyError, ValueError):
            return None
        return summary

    def list_names(self) -> set[str]:
        """Return the names of the complete files."""
        return {path.rpartition("/")[2].removesuffix(_SUFFIX) for path, _ in self._list() if path.endswith(_SUFFIX)}

    def sum_bytes(self) -> int:
        """Return the bytes of all files."""
        return sum(size for _, size in self._list())

    def _list(self) -> list[tuple[str, int]]:
        system, folder = locate(self.folder)
        selector = arrow_fs.FileSelector(folder, allow_not_found=True)
        try:
            with translate_errors():
                return [(info.path, int(info.size or 0)) for info in system.get_file_info(selector)]
        except OSError as error:
            raise ExchangeError(
                f"cannot list the exchange {self.folder} ({format_reason(error)}): name another with --exchange"
            ) from None

    def remove(self) -> None:
        """Remove all files and the folder, as far as possible."""
        system, folder = locate(self.folder)
        with suppress(OSError), translate_errors():
            system.delete_dir(folder)

    def _locate(self, name: str) -> tuple[FileSystem, str]:
        system, folder = locate(self.folder)
        return system, f"{folder}/{name}{_SUFFIX}"


def _encode(table: Table) -> pa.RecordBatch:
    """Return a batch with 64-bit integers as differences, most of which are small and compress well."""
    columns = {}
    for name, values in table.items():
        if isinstance(values, np.ndarray):
            is_wide = values.dtype == np.int64
            columns[name] = pa.array(np.diff(values, prepend=np.int64(0)) if is_wide else values)
        else:
            columns[name] = pa.array(values, pa.large_binary())
    return pa.RecordBatch.from_arrays([*columns.values()], [*columns])


def _decode(batch: pa.RecordBatch) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_large_binary(column.type):
            columns[name] = column.to_pylist()
            continue
        values = column.to_numpy()
        columns[name] = np.cumsum(values) if values.dtype == np.int64 else values
    return columns
