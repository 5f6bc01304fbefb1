"""Disk-backed columns and an external sort, for traffic larger than memory."""

from __future__ import annotations

import mmap
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile, gettempdir
from threading import Lock
from typing import IO, Any
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ratelab.errors import ResourceError

Integers = NDArray[np.int64]

REQUEST_DTYPE = np.dtype([("time", np.int64), ("owner", np.uint32), ("cost", np.int64)])
"""A request as a row; its owner is a client or a key."""

MAX_ROWS_IN_MEMORY = 1 << 22
"""Requests that are collected and sorted in memory, where they take 80 MB; more go to disk."""


# --- columns in temporary files


def map_column(kind: DTypeLike, length: int) -> NDArray[Any]:
    """Allocate a column in a temporary file, and map it into memory.

    Raises `ResourceError` if the disk has no room for it.
    """
    size = length * np.dtype(kind).itemsize
    with _temporary_file() as file:
        _allocate(file, size)
        return _map_file(file, kind)


def release_pages() -> None:
    """Give the pages of all mapped columns back to the operating system, which reads them again when they are used.

    A process that does so after each batch needs no more memory than its batches, however long its columns are.
    """
    if sys.platform != "win32":
        with _mappings_lock:
            for mapping in _mappings:
                mapping.madvise(mmap.MADV_DONTNEED)


_mappings: WeakSet[mmap.mmap] = WeakSet()
_mappings_lock = Lock()


def _renew_lock() -> None:
    """Replace the lock in a child process, in which no thread will release it."""
    global _mappings_lock
    _mappings_lock = Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_lock)


@contextmanager
def _temporary_file() -> Iterator[IO[bytes]]:
    """Open a temporary file; its data live on as long as they are mapped."""
    with _report_errors(), TemporaryFile(prefix="ratelab-", dir=_temporary_folder()) as file:
        yield file


def _temporary_folder() -> str:
    """Return the folder that TMPDIR names, even if it does not exist; without TMPDIR, that of the system."""
    return os.environ.get("TMPDIR") or gettempdir()


@contextmanager
def _report_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write temporary data to {_temporary_folder()} ({error.strerror}): "
            "set TMPDIR to a folder with more room"
        ) from None


def _allocate(file: IO[bytes], size: int) -> None:
    """Allocate disk space; without space, a write to a mapped page would kill the process."""
    if sys.platform == "linux":
        os.posix_fallocate(file.fileno(), 0, size)
        return
    zeros = bytes(1 << 20)
    for begin in range(0, size, len(zeros)):
        file.write(zeros[: size - begin])


def _map_file(file: IO[bytes], kind: DTypeLike) -> NDArray[Any]:
    """Return the contents of a file that is not empty as an array; a write to it changes the file."""
    file.flush()
    mapping = mmap.mmap(file.fileno(), 0)
    with _mappings_lock:
        _mappings.add(mapping)
    return np.frombuffer(mapping, kind)


# --- sorting by time


class RowFile:
    """Rows of `REQUEST_DTYPE`, appended to a temporary file."""

    def __init__(self) -> None:
        with _report_errors():
            self._file = TemporaryFile(prefix="ratelab-", dir=_temporary_folder())  # noqa: SIM115  (closed by `map`)

    def append(self, rows: NDArray[Any]) -> None:
        """Write rows at the end."""
        with _report_errors():
            self._file.write(rows.view(np.uint8).data)

    def map(self) -> NDArray[Any]:
        """Return all rows, mapped into memory; nothing may be appended later."""
        with _report_errors(), self._file:
            return _map_file(self._file, REQUEST_DTYPE)


class Cursor:
    """A position in a table of rows, from which rows are taken in order."""

    def __init__(self, table: Any, begin: int, end: int, size: int) -> None:
        """Start at `begin`; read `size` rows at a time, or fewer where a lazily filtered table leaves out some."""
        self._table, self._next, self._end, self._size = table, begin, end, size
        self.ahead: NDArray[Any] = np.empty(0, REQUEST_DTYPE)
        """The next rows; empty at the end only."""
        self._fill()

    def take(self, count: int) -> NDArray[Any]:
        """Return the next `count` of the rows ahead, and advance past them."""
        taken, self.ahead = self.ahead[:count], self.ahead[count:]
        self._fill()
        return taken

    def _fill(self) -> None:
        while not len(self.ahead) and self._next < self._end:
            release_pages()
            begin, self._next = self._next, min(self._next + self._size, self._end)
            self.ahead = self._table[begin : self._next]


def _sort_rows(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[np.argsort(rows["time"], kind="stable")]


def sort_mapped(table: NDArray[Any]) -> NDArray[Any]:
    """Sort mapped rows: in runs that fit in memory, which are then merged.

    Knuth, "The Art of Computer Programming" 3 (1998), section 5.4.1.
    """
    size = max(1, MAX_ROWS_IN_MEMORY // 2)  # a run is in memory twice, unsorted and sorted
    begins = range(0, len(table), size)
    for begin in begins:
        run = slice(begin, begin + size)
        table[run] = _sort_rows(table[run])
        release_pages()
    ahead = max(1, size // len(begins))
    runs = [Cursor(table, begin, min(begin + size, len(table)), ahead) for begin in begins]
    merged = RowFile()
    while runs := [run for run in runs if len(run.ahead)]:
        merged.append(_sort_rows(np.concatenate(_take_next(runs))))
    return merged.map()


def _take_next(runs: list[Cursor]) -> list[NDArray[Any]]:
    """Take the rows ahead that no later row can precede: those up to the earliest end of what each run has read.

    Of rows with exactly that time, those in later runs wait, since this run may have more of them.
    """
    lasts = [run.ahead["time"][-1] for run in runs]
    bound = min(lasts)
    shortest = lasts.index(bound)
    return [
        run.take(int(np.searchsorted(run.ahead["time"], bound, "right" if place <= shortest else "left")))
        for place, run in enumerate(runs)
    ]
