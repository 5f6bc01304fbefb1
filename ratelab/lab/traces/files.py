"""Trace files as blocks of whole lines: plain, gzip or zstd, from disk or from standard input."""

from __future__ import annotations

import codecs
import sys
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from itertools import chain
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

import numpy as np

from ratelab.errors import InputError, format_reason, install_hint
from ratelab.lab.spill import Integers

MAX_LINE_CHARS = 65_536
"""Longest valid line. A longer line is cut, but stays longer than this, so that it is still rejected."""

BLOCK_BYTES = 2**21
"""Bytes that are read, and usually parsed, at a time."""

CACHED_BYTES = 2**17
"""The size of parts of a block that stay in the cache of a processor while they are searched."""

_DECODED_LINES = 1024
_MAX_LINE_BYTES = 4 * (MAX_LINE_CHARS + 1)  # UTF-8 encodes a character in at most four bytes

REMOTE_SCHEMES = ("s3", "gs", "gcs", "abfs", "abfss", "http", "https")
"""Schemes of the URIs of remote files."""

_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_PARQUET_MAGIC = b"PAR1"
_UNSUPPORTED_MAGIC = {
    b"PK\x03\x04": "a zip archive: unpack it",
    b"BZh": "bzip2 data: decompress them",
    b"\xfd7zXZ": "xz data: decompress them",
    _PARQUET_MAGIC: "a Parquet file: pass its name as an argument, or convert it to CSV",
    b"\xff\xfe": "UTF-16 text: convert it to UTF-8",
    b"\xfe\xff": "UTF-16 text: convert it to UTF-8",
}


def decode(text: bytes) -> str:
    """Decode UTF-8; a byte that is not UTF-8 is read as Latin-1, so that different names stay different."""
    return text.decode(errors=_LATIN_1)


def _decode_byte(error: UnicodeError) -> tuple[str, int]:
    if not isinstance(error, UnicodeDecodeError):
        raise error
    return error.object[error.start : error.end].decode("latin-1"), error.end


_LATIN_1 = "ratelab-latin-1"
codecs.register_error(_LATIN_1, _decode_byte)


class MissingFileError(InputError):
    """A file does not exist."""


@dataclass(frozen=True)
class Block:
    """Consecutive whole lines of a file."""

    first_line: int
    """The number of the first line in the file, from 1."""
    text: bytes
    """The lines, without the last newline."""

    @cached_property
    def newlines(self) -> Integers:
        """The places of the newlines."""
        data = np.frombuffer(self.text, np.uint8)
        begins = range(0, len(data) or 1, CACHED_BYTES)
        return np.concatenate(
            [np.flatnonzero(data[begin : begin + CACHED_BYTES] == ord("\n")) + begin for begin in begins]
        )

    def lines(self) -> Iterator[tuple[int, str]]:
        """Yield the lines with their numbers; decode many at a time, but not all if only the first ones are needed."""
        number, start = self.first_line, 0
        for end in (*self.newlines[_DECODED_LINES - 1 :: _DECODED_LINES].tolist(), len(self.text)):
            yield from enumerate(decode(self.text[start:end]).split("\n"), number)
            number, start = number + _DECODED_LINES, end + 1


def read_lines(path: str, progress: Callable[[int], None] | None = None) -> Iterator[tuple[int, str]]:
    """Yield the lines of `read_blocks` one by one, with their numbers."""
    return chain.from_iterable(block.lines() for block in read_blocks(path, progress))


def read_blocks(path: str, progress: Callable[[int], None] | None = None) -> Iterator[Block]:
    """Yield the lines of a file, or of standard input for `-`, a few thousand at a time.

    Gzip and zstd are detected by their first bytes, and a byte order mark is dropped. Memory is bounded for every
    content. `progress` is called now and then with the number of bytes read since the last call, before decompression.
    Raises `InputError`, at once or during iteration, if the file cannot be opened, read or decompressed completely.
    """
    stored = _read_stored(path, progress)
    first = next(stored, b"")
    for magic, description in _UNSUPPORTED_MAGIC.items():
        if first.startswith(magic):
            raise InputError(f"a trace must be text, gzip or zstd, got {description} first")
    stored = chain((first,), stored)
    if first.startswith(_GZIP_MAGIC):
        stored = _decompress_gzip(stored)
    elif first.startswith(_ZSTD_MAGIC):
        stored = _decompress_zstd(stored)
    return _number_blocks(_align_to_lines(stored))


def read_section(path: str, begin: int, end: int) -> Iterator[Block]:
    """Yield the lines of a plain file that start at the bytes from `begin` to before `end`, numbered from 1.

    Raises `InputError` as `read_blocks` does.
    """
    return _number_blocks(_align_to_lines(_cut_section(path, begin, end)), has_mark=begin == 0)


def _cut_section(path: str, begin: int, end: int) -> Iterator[bytes]:
    """Yield the bytes from the first line that starts at `begin` or later to the end of the last before `end`."""
    position, inside = max(0, begin - 1), begin == 0
    for block in _read_stored(path, None, position):
        first = 0 if inside else block.find(b"\n") + 1
        inside = inside or first > 0
        if inside and position + first >= end:
            return
        last = block.find(b"\n", max(first, end - 1 - position)) + 1 if inside else 0
        if inside:
            yield block[first : last or len(block)]
        if last:
            return
        position += len(block)


def _number_blocks(texts: Iterator[bytes], has_mark: bool = True) -> Iterator[Block]:
    """Drop the byte order mark of a file and count the lines."""
    number = 1
    first = next(texts, b"")
    for text in chain((first.removeprefix(b"\xef\xbb\xbf") if has_mark else first,), texts):
        yield (block := Block(number, text))
        number += len(block.newlines) + 1


def _align_to_lines(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the lines that end in each block, then the rest after the last newline; cut lines that are too long."""
    tail = b""
    for block in blocks:
        end = block.rfind(b"\n")
        if end >= 0:
            yield b"".join((tail, memoryview(block)[:end]))  # copies the lines once
            tail = b""
        tail = (tail + block[end + 1 : end + 1 + _MAX_LINE_BYTES])[:_MAX_LINE_BYTES]
    if tail:
        yield tail


def _read_stored(path: str, progress: Callable[[int], None] | None, begin: int = 0) -> Iterator[bytes]:
    """Yield the bytes of a file as stored, from `begin` on, block by block."""
    file = _open(path)
    try:
        if begin:
            file.seek(begin)
        while block := _read_block(file):
            if progress:
                progress(len(block))
            yield block
    finally:
        if path != "-":
            file.close()


def _open(path: str) -> BinaryIO:
    """Open a file, or standard input for `-`."""
    if path == "-":
        if sys.stdin is None:
            raise InputError("it is closed: pipe a trace into it, or name a file")
        return sys.stdin.buffer
    try:
        return open_bytes(path)
    except FileNotFoundError as error:
        raise MissingFileError(
            f"it cannot be opened ({format_reason(error)}): name a log, JSON lines or CSV file"
        ) from None
    except (OSError, ValueError) as error:
        raise InputError(f"it cannot be opened ({format_reason(error)}): name a log, JSON lines or CSV file") from None


def is_remote(path: str) -> bool:
    """Return whether a path is a URI of a file in an object store or on a web server."""
    return path.partition("://")[0] in REMOTE_SCHEMES and "://" in path


def open_bytes(path: str) -> BinaryIO:
    """Open a local or remote file to read."""
    if not is_remote(path):
        return Path(path).open("rb")
    check_remote_readable(path)
    from ratelab.lab import filesystems  # pyarrow takes a while to import

    return filesystems.open_file(path)


def check_remote_readable(path: str) -> None:
    """Raise `InputError` if pyarrow, which reads remote files, is not installed."""
    if not is_arrow_installed():
        raise InputError(f"reading {path.partition('://')[0]}:// needs pyarrow: {install_hint('logs')}")


def _read_block(file: BinaryIO) -> bytes:
    """Read the next block of an open file."""
    try:
        return file.read(BLOCK_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"it cannot be read ({format_reason(error)}): name a log, JSON lines or CSV file") from None


def _decompress_gzip(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress gzip into blocks of at most `BLOCK_BYTES`; several members and zero padding are valid (RFC 1952)."""
    member = zlib.decompressobj(wbits=31)
    for block in blocks:
        while block:
            if member.eof:
                block = block.lstrip(b"\0")
                member = zlib.decompressobj(wbits=31) if block else member
                continue
            try:
                yield member.decompress(block, BLOCK_BYTES)
            except zlib.error as error:
                raise InputError(f"invalid gzip data ({error}): compress the file again") from None
            block = member.unconsumed_tail or member.unused_data
    if not member.eof:
        raise InputError("truncated gzip data: copy or compress the file again")


def _decompress_zstd(blocks: Iterator[bytes]) -> Iterator[bytes]:
    """Decompress zstd."""
    if not is_arrow_installed():
        raise InputError(f"reading zstd needs pyarrow: {install_hint('logs')}, or decompress the file")
    from ratelab.lab.traces import arrow

    try:
        yield from arrow.decompress_zstd(blocks, BLOCK_BYTES)
    except OSError as error:
        raise InputError(f"invalid zstd data ({format_reason(error)}): copy or compress the file again") from None


def is_parquet(path: str) -> bool:
    """Return whether a path names a Parquet file. Standard input cannot be one, since its index is at the end."""
    try:
        with open_bytes(path) as file:
            return path != "-" and file.seekable() and file.read(len(_PARQUET_MAGIC)) == _PARQUET_MAGIC
    except (OSError, ValueError):
        return False


def is_plain(path: str) -> bool:
    """Return whether a file is neither compressed nor Parquet nor in another format that cannot be split."""
    try:
        with open_bytes(path) as file:
            start = file.read(8)
    except (OSError, ValueError):
        return False
    return not start.startswith((_GZIP_MAGIC, _ZSTD_MAGIC, *_UNSUPPORTED_MAGIC))


def is_arrow_installed() -> bool:
    """Return whether pyarrow, the extra `logs`, is installed."""
    return find_spec("pyarrow") is not None


def identify_file(path: str) -> object:
    """Return a value that is the same for all names of one file."""
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return path
    return path if path == "-" else (status.st_dev, status.st_ino)


def sum_file_sizes(paths: Sequence[str]) -> int | None:
    """Return the bytes that `progress` will count for these files, or None if a size is unknown."""
    sizes = [_get_size(path) for path in paths]
    return None if None in sizes else sum(size or 0 for size in sizes)


def _get_size(path: str) -> int | None:
    try:
        if is_remote(path):
            check_remote_readable(path)
            from ratelab.lab import filesystems

            return filesystems.get_status(path)[0]
        status = Path(path).stat()
    except (OSError, ValueError):
        return None
    return status.st_size if S_ISREG(status.st_mode) else None


def format_path(path: str) -> str:
    """Return the name of a file in messages; `-` is standard input."""
    return "standard input" if path == "-" else make_printable(path)


def format_paths(paths: Sequence[str]) -> str:
    """Return a name for several files in messages."""
    return format_path(paths[0]) + (f" and {len(paths) - 1} more" if len(paths) > 1 else "")


def make_printable(text: str) -> str:
    """Escape control characters and line breaks, so that untrusted text is safe to print."""
    return text if text.isprintable() else repr(text)[1:-1]
