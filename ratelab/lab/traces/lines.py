"""Lines of text from a file or standard input, plain or gzip, each bounded in length."""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable, Iterator
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

from ratelab.errors import InputError

LONGEST = 65_536
"""Characters a line may have. A longer line is cut, yet stays longer than this, so that its length tells."""

_BLOCK = 2**20
_MOST_BYTES = 4 * (LONGEST + 1)  # UTF-8 spends at most four bytes on a character
_GZIP = b"\x1f\x8b"
_FOREIGN = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "compressed by bzip2: unpack it",
    b"\xfd7zXZ": "compressed by xz: unpack it",
    b"\x28\xb5\x2f\xfd": "compressed by zstd: unpack it",
    b"PAR1": "a Parquet file: write it as CSV",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}


class LineError(ValueError):
    """Why a line cannot be read as a request."""


def printable(text: str) -> str:
    """Write text from a stranger so that it is safe to print: on one line, control characters escaped."""
    return text if text.isprintable() else repr(text)[1:-1]


def stored_size(path: str) -> int | None:
    """Return how many bytes `path` holds as stored, which is what `progress` adds up to; None if that is not known."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


def read_lines(path: str, progress: Callable[[int], None] | None = None) -> Iterator[str]:
    """Yield the lines of a file, or of standard input for `-`, without their newlines.

    Gzip is told by its first bytes. A byte order mark is dropped, bytes that are not UTF-8 become U+FFFD. `progress`
    is called now and then with how many more bytes have been read, as stored. Memory stays bounded, whatever the
    file holds.
    Raises `InputError` for what cannot be opened, read or unpacked to its end, then or while iterating.
    """
    blocks = _blocks(path, progress)
    first = next(blocks, b"")
    for magic, what in _FOREIGN.items():
        if first.startswith(magic):
            raise InputError(f"it must be text or gzip, but it is {what} first")
    blocks = chain((first,), blocks)
    if first.startswith(_GZIP):
        blocks = _unzipped(blocks)
    lines = chain.from_iterable(_batches(blocks))
    return chain((next(lines, "").removeprefix("\ufeff"),), lines)


def _blocks(path: str, progress: Callable[[int], None] | None) -> Iterator[bytes]:
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


def _batches(blocks: Iterator[bytes]) -> Iterator[list[str]]:
    """Yield the lines that end in each block, decoded at once; a line that goes on and on is cut meanwhile."""
    tail = b""
    for block in blocks:
        whole, newline, rest = block.rpartition(b"\n")
        if newline:
            yield (tail + whole).decode(errors="replace").split("\n")
            tail = b""
        tail = (tail + rest)[:_MOST_BYTES]
    if tail:
        yield [tail.decode(errors="replace")]
