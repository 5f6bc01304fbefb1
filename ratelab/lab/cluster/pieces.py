"""Pieces of traces: the parts of files that tasks read, and what each task reports."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from ratelab.errors import InputError
from ratelab.lab.engines.engine import collect_versions
from ratelab.lab.traces import TraceOptions, is_arrow_installed
from ratelab.lab.traces.files import check_remote_readable, is_plain, is_remote

PIECE_BYTES = 2**28
"""The size of the pieces of a large plain file; its columns take some 8 MB or more in the exchange."""

PARTITION_BYTES = 2**29
"""The size of the files for each partition of the clients by default; compressed files count eightfold."""

_COMPRESSED_FACTOR = 8


@dataclass(frozen=True)
class Piece:
    """A part of a file, or all of it."""

    number: int
    """Its position among all pieces, which are in the order of the files and their lines."""
    file: int
    """The position of the file."""
    path: str
    section: tuple[int, int] | None
    """The bytes at which its lines start, if the file has several pieces."""


@dataclass(frozen=True)
class Pieces:
    """All pieces of some traces."""

    paths: tuple[str, ...]
    """The files, as the user names them."""
    pieces: tuple[Piece, ...]
    bytes: tuple[int, ...]
    """The size of each piece."""
    digest: str
    """The same for the same files, unchanged, and the same versions of packages."""
    partitions: int
    """The suggested number of partitions."""


def cut_pieces(paths: Sequence[str], options: TraceOptions, piece_bytes: int = PIECE_BYTES) -> Pieces:
    """Cut large plain files into pieces; every other file is one piece.

    A file that cannot be read is a piece as well, whose task reports the error. Raises `InputError` for standard input.
    """
    pieces: list[Piece] = []
    sizes: list[int] = []
    states = []
    weight = 0
    for file, path in enumerate(paths):
        if path == "-":
            raise InputError("workers cannot read standard input: name files")
        size, changed = _get_status(path)
        place = path if is_remote(path) else str(Path(path).absolute())
        states.append((path, place, size, changed))
        can_split = size > piece_bytes and not options.strict and is_arrow_installed() and is_plain(place)
        weight += size if size <= piece_bytes or can_split else size * _COMPRESSED_FACTOR
        count = -(-size // piece_bytes) if can_split else 1
        ends = [size * part // count for part in range(count + 1)]
        for begin, end in pairwise(ends):
            pieces.append(Piece(len(pieces), file, place, (begin, end) if can_split else None))
            sizes.append(end - begin)
    facts = [collect_versions(), states, repr(options), piece_bytes]
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:16]
    partitions = max(1, -(-weight // PARTITION_BYTES))
    return Pieces(tuple(paths), tuple(pieces), tuple(sizes), digest, partitions)


def _get_status(path: str) -> tuple[int, int]:
    """Return the size and the time of the last change of a file; 0 if it cannot be read."""
    try:
        if is_remote(path):
            check_remote_readable(path)
            from ratelab.lab.filesystems import get_status

            return get_status(path)
        status = Path(path).stat()
    except (OSError, ValueError):
        return 0, 0
    return status.st_size, status.st_mtime_ns


Summary = dict[str, Any]
"""The report of a task, as JSON."""


def group_by_file(pieces: Pieces, summaries: Sequence[Summary]) -> list[tuple[str, list[tuple[Piece, Summary]]]]:
    """Return the path of each file, with its pieces and their summaries."""
    groups: list[tuple[str, list[tuple[Piece, Summary]]]] = [(path, []) for path in pieces.paths]
    for piece, summary in zip(pieces.pieces, summaries, strict=True):
        groups[piece.file][1].append((piece, summary))
    return groups
