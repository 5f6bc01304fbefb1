"""Files of results: the table as CSV, and events; every file is written atomically."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from secrets import token_hex
from tempfile import TemporaryFile
from typing import IO, Any

from ratelab.errors import InputError

Row = dict[str, Any]


def write_rows(path: str, rows: Sequence[Row]) -> None:
    """Write rows as CSV; a row may lack columns that others have."""
    columns = tuple(dict.fromkeys(name for row in rows for name in row))
    write_text(path, lambda file: _write_csv(file, columns, rows))


def write_events(path: str, columns: Sequence[str], events: Iterable[Row]) -> None:
    """Write events with these columns, in the format of the name's suffix."""
    write = _EVENT_WRITERS[Path(path).suffix]
    write_text(path, lambda file: write(file, tuple(columns), events))


def check_events_writable(path: str) -> None:
    """Raise `InputError` unless events could be written at `path`, which must end in .csv or .jsonl."""
    if Path(path).suffix not in _EVENT_WRITERS:
        raise InputError(f"the events file must end in .csv or .jsonl, got {path!r}")
    check_writable(path)


def _write_csv(file: IO[str], columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    """Write rows whose text no spreadsheet takes for a formula; `escape_formula` describes how."""
    from ratelab.lab.traces.delimited import escape_formula  # slow to import, and only CSV needs it

    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(
        {name: escape_formula(cell) if isinstance(cell, str) else cell for name, cell in row.items()} for row in rows
    )


def _write_json_lines(file: IO[str], _columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


_EVENT_WRITERS = {".csv": _write_csv, ".jsonl": _write_json_lines}


# --- atomic writes


def check_writable(path: str) -> None:
    """Raise `InputError` unless a file could be written at `path`; leave nothing there."""
    target = Path(path)
    with _translate_errors(path):
        with suppress(FileNotFoundError, NotADirectoryError):
            target.stat()  # since Python 3.14, `is_dir` does not raise for a name that is too long
        if target.is_dir():
            raise InputError(f"cannot write {path}: it is a directory; name a file in it")
        if not target.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no directory {target.parent}")
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        if _is_replaceable(target):
            TemporaryFile(dir=target.parent).close()


def write_text(path: str, write: Callable[[IO[str]], None]) -> None:
    """Write a text file as `write_bytes` does."""

    def write_encoded(file: IO[bytes]) -> None:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        write(text)
        text.detach()

    write_bytes(path, write_encoded)


def write_bytes(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write a temporary file in the same directory and rename it to `path`, so that no reader sees a partial file."""
    target = Path(path)
    with _translate_errors(path), ExitStack() as cleanup:
        if not _is_replaceable(target):
            write(cleanup.enter_context(target.open("wb")))
            return
        target = Path(os.path.realpath(target))  # the file that a link points to, not the link
        temporary = target.with_name(f".ratelab-{token_hex(8)}")
        cleanup.callback(temporary.unlink, missing_ok=True)  # before it exists: a signal may end the next line
        file = cleanup.enter_context(temporary.open("xb"))
        write(file)
        file.close()
        temporary.replace(target)


def _is_replaceable(target: Path) -> bool:
    """Return whether `target` is a regular file or absent; a device such as /dev/stdout is written in place."""
    return target.is_file() or not target.exists()


@contextmanager
def _translate_errors(path: str) -> Iterator[None]:
    """Raise `InputError` with the path for an error of the system.

    A broken pipe passes: the reader of /dev/stdout or a FIFO has closed it, which is not a mistake of the user.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error
