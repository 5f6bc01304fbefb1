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


class Stored:
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


Column: TypeAlias = NDArray[Any] | Stored
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
