"""Columns on disk, for what memory need not hold."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile, gettempdir
from threading import Lock
from typing import Any, TypeAlias
from weakref import finalize

import numpy as np
from numpy.typing import DTypeLike, NDArray

from ratelab.errors import InputError

Integers = NDArray[np.int64]

REQUEST = np.dtype([("time", np.int64), ("who", np.uint32), ("cost", np.int64)])
"""A request as a row; who it is of is a client or a key."""


class DiskColumn:
    """A column in a temporary file, of which slices are read and written; several threads may do so at once.

    Raises `InputError` where the disk has no room for it.
    """

    def __init__(self, kind: DTypeLike, length: int = 0) -> None:
        self.dtype: np.dtype[Any] = np.dtype(kind)
        self._length = length
        self._lock = Lock()
        with _telling():
            self._file = TemporaryFile(prefix="ratelab-", dir=_folder())  # noqa: SIM115  (as long as the column)
        finalize(self, self._file.close)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, part: slice) -> NDArray[Any]:
        begin, end, _ = part.indices(self._length)
        values = np.empty(max(0, end - begin), self.dtype)
        with self._lock, _telling():  # what is still to be written may not fit
            self._file.seek(begin * self.dtype.itemsize)
            self._file.readinto(values.view(np.uint8).data)
        return values

    def __setitem__(self, part: slice, values: NDArray[Any]) -> None:
        with self._lock, _telling():
            self._file.seek(part.indices(self._length)[0] * self.dtype.itemsize)
            self._file.write(np.ascontiguousarray(values, self.dtype).view(np.uint8).data)

    def append(self, values: NDArray[Any]) -> None:
        """Add values behind the last."""
        begin, self._length = self._length, self._length + len(values)
        self[begin : self._length] = values


Column: TypeAlias = NDArray[Any] | DiskColumn
"""Values of one length, in memory or on disk, taken and put a slice at a time."""


def _folder() -> str:
    """Return where the files are, which is never elsewhere than TMPDIR says."""
    return os.environ.get("TMPDIR") or gettempdir()


@contextmanager
def _telling() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise InputError(
            f"so many requests are kept in {_folder()} meanwhile, which fails ({error.strerror}): "
            "name a folder with more room by TMPDIR"
        ) from None


IN_MEMORY = 1 << 22
"""Requests that are held and sorted in memory, 80 MB of them; more go to disk."""


class Cursor:
    """A place in a table of rows that moves on."""

    def __init__(self, table: Any, begin: int, end: int, size: int) -> None:
        """Stand at `begin`; so many rows are read at a time, or fewer where the table leaves out some."""
        self._table, self._next, self._end, self._size = table, begin, end, size
        self.ahead: NDArray[Any] = np.empty(0, REQUEST)
        """The next rows, in part; none at the end alone."""
        self._fill()

    def take(self, count: int) -> NDArray[Any]:
        """Return so many of the rows ahead, and move on behind them."""
        taken, self.ahead = self.ahead[:count], self.ahead[count:]
        self._fill()
        return taken

    def _fill(self) -> None:
        while not len(self.ahead) and self._next < self._end:
            begin, self._next = self._next, min(self._next + self._size, self._end)
            self.ahead = self._table[begin : self._next]


class Gathering:
    """Takes requests as they come, and gives them back in the order of time."""

    def __init__(self) -> None:
        self._held: list[NDArray[Any]] = []
        self._stored: DiskColumn | None = None
        self._count = 0
        self._latest: int | None = None
        self._sorted = True

    def __len__(self) -> int:
        return self._count

    def add(self, times: Integers, who: NDArray[Any], costs: Integers) -> None:
        """Take some requests."""
        if not len(times):
            return
        rows = np.empty(len(times), REQUEST)
        rows["time"], rows["who"], rows["cost"] = times, who, costs
        first = times[0] if self._latest is None else self._latest
        self._sorted = self._sorted and first <= times[0] and bool((times[1:] >= times[:-1]).all())
        self._latest = int(times[-1])
        self._count += len(rows)
        self._keep(rows)

    def _keep(self, rows: NDArray[Any]) -> None:
        self._held.append(rows)
        if self._stored is None and self._count <= IN_MEMORY:
            return
        if self._stored is None:
            self._stored = DiskColumn(REQUEST)
        for held in self._held:
            self._stored.append(held)
        self._held.clear()

    def in_order(self) -> Column:
        """Return all rows by time, those of the same time as they came."""
        if self._stored is None:
            rows = np.concatenate([np.empty(0, REQUEST), *self._held])
            return rows if self._sorted else _by_time(rows)
        return self._stored if self._sorted else _merged(self._stored)


def _by_time(rows: NDArray[Any]) -> NDArray[Any]:
    return rows[np.argsort(rows["time"], kind="stable")]


def _merged(table: DiskColumn) -> DiskColumn:
    """Sort a table on disk: as many rows at a time as fit in memory, then these runs into one another.

    Knuth, "The Art of Computer Programming" 3 (1998), section 5.4.1.
    """
    begins = range(0, len(table), IN_MEMORY)
    for begin in begins:
        run = slice(begin, begin + IN_MEMORY)
        table[run] = _by_time(table[run])
    size = max(1, IN_MEMORY // len(begins))
    runs = [Cursor(table, begin, min(begin + IN_MEMORY, len(table)), size) for begin in begins]
    merged = DiskColumn(REQUEST)
    while runs := [run for run in runs if len(run.ahead)]:
        merged.append(_by_time(np.concatenate(_next_of(runs))))
    return merged


def _next_of(runs: list[Cursor]) -> list[NDArray[Any]]:
    """Take the rows ahead that nothing further on comes before: up to the end of what is seen of one of the runs.

    Of rows of that very time, those in later runs wait, since more may follow in this one.
    """
    lasts = [run.ahead["time"][-1] for run in runs]
    bound = min(lasts)
    shortest = lasts.index(bound)
    return [
        run.take(int(np.searchsorted(run.ahead["time"], bound, "right" if place <= shortest else "left")))
        for place, run in enumerate(runs)
    ]
