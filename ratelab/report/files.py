"""Files of results: a table, and every decision."""

from __future__ import annotations

import csv
import errno
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import IO, Any

from ratelab.errors import InputError
from ratelab.lab.comparison import Comparison
from ratelab.limiter import Decision
from ratelab.report.serialize import result_rows


def check_writable(path: str) -> None:
    """Raise `InputError` unless a file could be written at `path`; nothing is left there."""
    target = Path(path)
    with _telling(path):
        with suppress(FileNotFoundError, NotADirectoryError):
            target.stat()  # since Python 3.14, `is_dir` does not raise for a name that is too long
        if target.is_dir():
            raise InputError(f"cannot write {path}: it is a directory; name a file in it")
        if not target.parent.is_dir():
            raise InputError(f"cannot write {path}: there is no directory {target.parent}")
        if target.exists() and not os.access(target, os.W_OK):
            raise PermissionError(errno.EACCES, "permission denied")
        if _replaceable(target):
            NamedTemporaryFile(dir=target.parent).close()


def write_text(path: str, write: Callable[[IO[str]], None]) -> None:
    """Do as `write_whole` with a file of text."""

    def encoded(file: IO[bytes]) -> None:
        text = TextIOWrapper(file, encoding="utf-8", newline="")
        write(text)
        text.detach()

    write_whole(path, encoded)


def write_whole(path: str, write: Callable[[IO[bytes]], object]) -> None:
    """Write beside `path` and move into place, so that nobody ever sees half a file."""
    target = Path(path)
    with _telling(path), ExitStack() as cleanup:
        if not _replaceable(target):
            write(cleanup.enter_context(target.open("wb")))
            return
        target = Path(os.path.realpath(target))  # what a link leads to, not the link
        file = cleanup.enter_context(NamedTemporaryFile(dir=target.parent, prefix=".ratelab-", delete=False))
        cleanup.callback(Path(file.name).unlink, missing_ok=True)
        write(file)
        file.close()
        Path(file.name).chmod(0o666 & ~_umask())
        Path(file.name).replace(target)


def _replaceable(target: Path) -> bool:
    """Say whether `target` is or would be a plain file; /dev/stdout and the like are written to as they are."""
    return target.is_file() or not target.exists()


@contextmanager
def _telling(path: str) -> Iterator[None]:
    """Tell what the system refuses as what it is to the user: a path that cannot be written.

    A reader who has gone, of /dev/stdout and the like, has had enough: that is let through.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}") from error


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


EVENT_COLUMNS = ("at_ns", "client", "cost", "algorithm", *Decision._fields)
"""One row for each request and algorithm."""

Row = dict[str, Any]


def check_events_writable(path: str) -> None:
    """Raise `InputError` unless events could be written at `path`, which must end in .csv or .jsonl."""
    if Path(path).suffix not in _EVENT_WRITERS:
        raise InputError(f"events are written to a name that ends in .csv or .jsonl, got {path!r}")
    check_writable(path)


def write_table(path: str, labelled: Iterable[tuple[Row, Comparison]]) -> None:
    """Write one CSV row for each result, after the columns that say which run it belongs to."""
    write_rows(path, [{**label, **row} for label, comparison in labelled for row in result_rows(comparison)])


def write_rows(path: str, rows: Sequence[Row]) -> None:
    """Write rows of the same columns as CSV."""
    write_text(path, lambda file: _write_csv(file, tuple(rows[0]), rows))


def write_events(path: str, labelled: Iterable[tuple[Row, Comparison]]) -> None:
    """Write every request with every algorithm's decision, in the order of arrival."""
    labelled = list(labelled)
    columns = (*labelled[0][0], *EVENT_COLUMNS)
    write = _EVENT_WRITERS[Path(path).suffix]
    write_text(path, lambda file: write(file, columns, _events(labelled)))


def _events(labelled: Iterable[tuple[Row, Comparison]]) -> Iterator[Row]:
    for label, comparison in labelled:
        traffic = comparison.traffic
        outcomes = comparison.outcomes
        columns = [traffic.clock_times, traffic.clients, traffic.costs, *(outcome.rows for outcome in outcomes)]
        for begin in range(0, len(traffic), 10_000):
            part = [column[begin : begin + 10_000].tolist() for column in columns]
            for at_ns, client, cost, *decisions in zip(*part, strict=True):
                request = {**label, "at_ns": at_ns, "client": traffic.names[client], "cost": cost}
                for outcome, decision in zip(outcomes, decisions, strict=True):
                    yield {
                        **request,
                        "algorithm": outcome.policy.name,
                        **dict(zip(Decision._fields, decision, strict=True)),
                    }


def _write_csv(file: IO[str], columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json_lines(file: IO[str], _columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


_EVENT_WRITERS = {".csv": _write_csv, ".jsonl": _write_json_lines}
