"""Exchange of columns between tasks, through Arrow files in a folder or an object store that all workers reach."""

from __future__ import annotations

import errno
import json
import os
import platform
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain
from secrets import token_hex
from typing import Any, TypeAlias
from zlib import crc32

import numpy as np
import pyarrow as pa
from pyarrow import fs as arrow_fs

from ratelab.errors import ResourceError, format_reason
from ratelab.lab.filesystems import FileSystem, locate, translate_errors

Table: TypeAlias = Mapping[str, Any]
"""Columns of one length by name: arrays of integers, or lists of bytes."""

_SUMMARY = b"ratelab"
_CHECKSUM = b"crc32"
_SUFFIX = ".arrow"
_KIND_SEPARATOR = "."
_RUN_PREFIX = "run-"
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


class ExchangeError(ResourceError):
    """The exchange cannot be written or read."""


def name_file(stage: str, number: int, kind: str = "") -> str:
    """Return the name of a file of a task; that without a kind is written last, and marks the task as finished."""
    return f"{stage}-{number:06}{_KIND_SEPARATOR if kind else ''}{kind}"


@dataclass(frozen=True)
class Exchange:
    """Named files of tables; a file has a summary and is complete as soon as it exists.

    Tasks can carry it to other processes and machines, because it holds only names.
    """

    folder: str
    """A path or URI, below which all files are."""
    run: str = field(default_factory=lambda: token_hex(8))
    """The name of the run, which several runs of the same files differ by."""

    def create(self) -> None:
        """Create the folder, and a file that marks the run as active."""
        try:
            with translate_errors():
                system, path = self._locate_run(self.run)
                system.create_dir(path.rpartition("/")[0], recursive=True)
                with system.open_output_stream(path) as file:
                    file.write(json.dumps([platform.node(), os.getpid()]).encode())
        except OSError as error:
            raise self._describe_write_error(error) from None

    def write(self, name: str, tables: Iterable[Table], summary: Mapping[str, Any] | None = None) -> None:
        """Write a file with these tables, at least one, which all have the same columns.

        It is written under a temporary name and then renamed, so that a task that is repeated replaces its own file.
        Nothing is written after the end of the run.
        """
        system, target = self._locate(name)
        temporary = f"{target}.{token_hex(8)}"
        try:
            with translate_errors():
                self._check_active(system)
                try:
                    self._write_tables(system, temporary, tables, summary or {})
                    self._check_active(system)
                    system.move(temporary, target)
                except BaseException:
                    with suppress(OSError):
                        system.delete_file(temporary)
                    raise
        except OSError as error:
            raise self._describe_write_error(error) from None

    def _check_active(self, system: FileSystem) -> None:
        _, path = self._locate_run(self.run)
        (info,) = system.get_file_info([path])
        if info.type == arrow_fs.FileType.NotFound:
            raise ExchangeError(
                f"{platform.node()} does not find the exchange {self.folder}: "
                "name a folder or bucket that all workers reach with --exchange"
            )

    def _describe_write_error(self, error: OSError) -> ExchangeError:
        remedy = "make room" if error.errno in _FULL else "let all workers reach and write it"
        return ExchangeError(
            f"cannot write to the exchange {self.folder} ({format_reason(error)}): "
            f"{remedy}, or name another folder with --exchange, then run the command again"
        )

    def _write_tables(self, system: FileSystem, path: str, tables: Iterable[Table], summary: Mapping[str, Any]) -> None:
        options = pa.ipc.IpcWriteOptions(compression="zstd")
        batches = map(_encode, tables)
        first = next(batches)
        text = json.dumps(summary).encode()
        schema = first.schema.with_metadata({_SUMMARY: text, _CHECKSUM: b"%d" % crc32(text)})
        with system.open_output_stream(path) as file, pa.ipc.new_file(file, schema, options=options) as writer:
            for number, batch in enumerate(chain((first,), batches)):
                writer.write_batch(batch, custom_metadata={_CHECKSUM: b"%d" % _compute_checksum(batch, number)})

    def read(self, name: str, numbers: Iterable[int] | None = None) -> Iterator[dict[str, Any]]:
        """Yield the tables with these numbers, from 0, by default all.

        If the file is missing or damaged, its task counts as unfinished, so that the next run repeats it.
        """
        system, path = self._locate(name)
        try:
            with translate_errors(), system.open_input_file(path) as file:
                reader = pa.ipc.open_file(file)
                for number in range(reader.num_record_batches) if numbers is None else numbers:
                    batch, metadata = reader.get_batch_with_custom_metadata(number)
                    yield _decode(batch, metadata, number)
        except OSError as error:
            self._discard(name)
            raise ExchangeError(
                f"cannot read {name} in the exchange {self.folder} ({format_reason(error)}): "
                "check that all workers reach it, then run the command again"
            ) from None

    def _discard(self, name: str) -> None:
        """Remove the file that marks the task of a file as finished."""
        system, path = self._locate(name.partition(_KIND_SEPARATOR)[0])
        with suppress(OSError), translate_errors():
            system.delete_file(path)

    def read_summary(self, name: str) -> dict[str, Any] | None:
        """Return the summary of a file; None if there is no such file, or a damaged one."""
        system, path = self._locate(name)
        try:
            with translate_errors(), system.open_input_file(path) as file:
                metadata = pa.ipc.open_file(file).schema.metadata
            if int(metadata[_CHECKSUM]) != crc32(metadata[_SUMMARY]):
                return None
            summary: dict[str, Any] = json.loads(metadata[_SUMMARY])
        except (OSError, TypeError, KeyError, ValueError):
            return None
        return summary

    def list_names(self) -> set[str]:
        """Return the names of the complete files."""
        return {path.rpartition("/")[2].removesuffix(_SUFFIX) for path, _ in self._list() if path.endswith(_SUFFIX)}

    def sum_bytes(self) -> int:
        """Return the bytes of all files."""
        return sum(size for _, size in self._list())

    def _list(self) -> list[tuple[str, int]]:
        try:
            with translate_errors():
                system, folder = locate(self.folder)
                selector = arrow_fs.FileSelector(folder, allow_not_found=True)
                return [(info.path, int(info.size or 0)) for info in system.get_file_info(selector)]
        except OSError as error:
            raise ExchangeError(
                f"cannot list the exchange {self.folder} ({format_reason(error)}): "
                "run the command again, or name another with --exchange"
            ) from None

    def remove(self) -> None:
        """End the run; remove all files and the folder, as far as possible, unless another run uses them."""
        with suppress(OSError), translate_errors():
            system, path = self._locate_run(self.run)
            system.delete_file(path)
        with suppress(OSError, ResourceError), translate_errors():
            system, folder = locate(self.folder)
            if not any(_is_active(system, path) for path, _ in self._list()):
                system.delete_dir(folder)

    def _locate_run(self, run: str) -> tuple[FileSystem, str]:
        system, folder = locate(self.folder)
        return system, f"{folder}/{_RUN_PREFIX}{run}"

    def _locate(self, name: str) -> tuple[FileSystem, str]:
        system, folder = locate(self.folder)
        return system, f"{folder}/{name}{_SUFFIX}"


def _is_active(system: FileSystem, path: str) -> bool:
    """Return whether a file marks a run whose process is active on this machine; runs of others count as ended."""
    if not path.rpartition("/")[2].startswith(_RUN_PREFIX) or sys.platform == "win32":
        return False
    try:
        with system.open_input_stream(path) as file:
            node, process = json.loads(file.read())
        if node != platform.node() or process == os.getpid():
            return False
        os.kill(process, 0)
    except PermissionError:
        return True  # the process of another user
    except (OSError, ValueError):
        return False
    return True


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


def _decode(batch: pa.RecordBatch, metadata: Mapping[bytes, bytes] | None, number: int) -> dict[str, Any]:
    """Return the columns of a batch; raise `ArrowInvalid` if they are damaged."""
    batch.validate(full=True)
    if (metadata or {}).get(_CHECKSUM) != b"%d" % _compute_checksum(batch, number):
        raise pa.ArrowInvalid("damaged data")
    columns: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        if pa.types.is_large_binary(column.type):
            columns[name] = column.to_pylist()
            continue
        values = column.to_numpy()
        columns[name] = np.cumsum(values) if values.dtype == np.int64 else values
    return columns


def _compute_checksum(batch: pa.RecordBatch, number: int) -> int:
    """Return the checksum of the columns of a batch, their names and types, and the number of the batch."""
    checksum = crc32(repr((number, len(batch), [(field.name, str(field.type)) for field in batch.schema])).encode())
    for column in batch.columns:
        for buffer in column.buffers():
            checksum = crc32(buffer or b"", checksum)
    return checksum
