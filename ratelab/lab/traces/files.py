"""Lines of text from a file or standard input, plain, gzip or zstd, each bounded in length."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from glob import glob, has_magic
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO, NamedTuple

from ratelab.errors import InputError, install_hint

MAX_LINE_CHARS = 65_536
"""Characters a line may have. A longer line is cut, yet stays longer than this, so that its length tells."""

_BLOCK = 2**21
_MOST_BYTES = 4 * (MAX_LINE_CHARS + 1)  # UTF-8 spends at most four bytes on a character
_GZIP = b"\x1f\x8b"
_ZSTD = b"\x28\xb5\x2f\xfd"
_PARQUET = b"PAR1"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    _PARQUET: "a Parquet file: give its name, or write it as CSV",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}


class LineError(ValueError):
    """Why a line cannot be read as a request."""


class RepeatedError(LineError):
    """A line tells again of a request that another line has told of."""


def printable(text: str) -> str:
    """Write text from a stranger so that it is safe to print: on one line, control characters escaped."""
    return text if text.isprintable() else repr(text)[1:-1]


class Block(NamedTuple):
    """Some whole lines in a row."""

    number: int
    """That of the first line in the file, from 1."""
    text: bytes
    """Without the newline of the last line."""

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the lines with their numbers; bytes that are not UTF-8 become U+FFFD."""
        return enumerate(self.text.decode(errors="replace").split("\n"), self.number)


def read_lines(path: str, progress: Callable[[int], None] | None = None) -> Iterator[tuple[int, str]]:
    """Yield what `read_blocks` does, line by line, with their numbers."""
    return chain.from_iterable(block.lines() for block in read_blocks(path, progress))


def read_blocks(path: str, progress: Callable[[int], None] | None = None) -> Iterator[Block]:
    """Yield the lines of a file, or of standard input for `-`, a few thousand at a time.

    Gzip and zstd are told by their first bytes. A byte order mark is dropped. `progress` is called now and then with
    how many more bytes have been read, as stored. Memory stays bounded, whatever the file holds.
    Raises `InputError` for what cannot be opened, read or unpacked to its end, then or while iterating.
    """
    stored = _stored(path, progress)
    first = next(stored, b"")
    for magic, what in _FOREIGN.items():
        if first.startswith(magic):
            raise InputError(f"it must be text, plain or packed by gzip or zstd, but it is {what} first")
    stored = chain((first,), stored)
    if first.startswith(_GZIP):
        stored = _unzipped(stored)
    elif first.startswith(_ZSTD):
        stored = _unzstd(stored)
    return _numbered(_whole_lines(stored))


def is_parquet(path: str) -> bool:
    """Say whether a path names a Parquet file, which cannot come from standard input: it ends with its index."""
    try:
        with Path(path).open("rb") as file:
            return path != "-" and file.seekable() and file.read(len(_PARQUET)) == _PARQUET
    except (OSError, ValueError):
        return False


def _numbered(texts: Iterator[bytes]) -> Iterator[Block]:
    """Count the lines."""
    number = 1
    for text in chain((next(texts, b"").removeprefix(b"\xef\xbb\xbf"),), texts):
        yield Block(number, text)
        number += text.count(b"\n") + 1


def _stored(path: str, progress: Callable[[int], None] | None) -> Iterator[bytes]:
    """Yield what is stored, block by block."""
    file = _opened(path)
    try:
        while block := _block(file):
            if progress:
                progress(len(block))
            yield block
    finally:
        if path != "-":
            file.close()


def _opened(path: str) -> BinaryIO:
    """Open a file, or standard input for `-`."""
    if path == "-":
        if sys.stdin is None:
            raise InputError("it is closed: pipe the trace in or give a file")
        return sys.stdin.buffer
    try:
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise InputError(f"it cannot be opened ({_reason(error)}): give a log, JSON lines or CSV file") from None


def _block(file: BinaryIO) -> bytes:
    """Read the next block of an open file."""
    try:
        return file.read(_BLOCK)
    except (OSError, ValueError) as error:
        raise InputError(f"it cannot be read ({_reason(error)}): give a log, JSON lines or CSV file") from None


def _reason(error: Exception) -> str:
    """Say what the system refused, without the path that the message begins with."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


def _unzipped(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack gzip, of one member or several, into blocks no longer than `_BLOCK`; zeros may pad it (RFC 1952)."""
    member = zlib.decompressobj(wbits=31)
    for block in blocks:
        while block:
            if member.eof:
                block = block.lstrip(b"\0")
                member = zlib.decompressobj(wbits=31) if block else member
                continue
            try:
                yield member.decompress(block, _BLOCK)
            except zlib.error as error:
                raise InputError(f"its gzip data are broken ({error}): compress it anew") from None
            block = member.unconsumed_tail or member.unused_data
    if not member.eof:
        raise InputError("its gzip data end early: copy or compress it anew")


def arrow_installed() -> bool:
    """Say whether there is Arrow, the extra `logs`."""
    return find_spec("pyarrow") is not None


def _unzstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack zstd."""
    if not arrow_installed():
        raise InputError(f"reading zstd needs pyarrow: {install_hint('logs')}, or decompress it")
    from ratelab.lab.traces import arrow

    try:
        yield from arrow.unzstd(blocks, _BLOCK)
    except OSError as error:
        raise InputError(f"its zstd data are broken ({_reason(error)}): copy or compress it anew") from None


def _whole_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines that end in each block, and those after the last; a line that goes on and on is cut meanwhile."""
    tail = b""
    for block in blocks:
        whole, newline, rest = block.rpartition(b"\n")
        if newline:
            yield tail + whole
            tail = b""
        tail = (tail + rest)[:_MOST_BYTES]
    if tail:
        yield tail


def expanded(paths: Sequence[str]) -> list[str]:
    """Return the files that are named, each once; `*`, `?`, `[]` and `**` stand for what they match, in order.

    Raises `InputError` for a pattern that matches nothing.
    """
    files: dict[str, None] = {}
    for path in paths:
        a_pattern = has_magic(path) and not Path(path).exists()
        found = sorted(glob(path, recursive=True)) if a_pattern else [path]  # noqa: PTH207  (a path may be absolute)
        if not found:
            raise InputError(f"{printable(path)}: no file matches it: check the pattern")
        files |= dict.fromkeys(found)
    return list(files)


def called(path: str) -> str:
    """Return what to call a path in front of a person; `-` is standard input."""
    return "standard input" if path == "-" else printable(path)


def called_together(paths: Sequence[str]) -> str:
    """Return what to call several paths."""
    return called(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def stored_size(paths: Sequence[str]) -> int | None:
    """Return how many bytes the files hold as stored, to which `progress` adds up; None if that is not known."""
    sizes = [_size(path) for path in paths]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _size(path: str) -> int | None:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_size if S_ISREG(status.st_mode) else None
