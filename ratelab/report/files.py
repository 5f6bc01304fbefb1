"""Files of results: a table, and every decision."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from ratelab.errors import InputError
from ratelab.lab.comparison import Comparison
from ratelab.limiter import Decision
from ratelab.report.serialize import result_rows
from ratelab.report.whole import check_writable, write_text

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
        traffic = comparison.traffic.whole()
        columns = [traffic.clock_times, traffic.clients, traffic.costs, *comparison.decisions.values()]
        for begin in range(0, len(traffic), 10_000):
            part = [column[begin : begin + 10_000].tolist() for column in columns]
            for at_ns, client, cost, *decisions in zip(*part, strict=True):
                request = {**label, "at_ns": at_ns, "client": traffic.names[client], "cost": cost}
                for algorithm, decision in zip(comparison.decisions, decisions, strict=True):
                    yield {**request, "algorithm": algorithm, **dict(zip(Decision._fields, decision, strict=True))}


def _write_csv(file: IO[str], columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    writer = csv.DictWriter(file, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)


def _write_json_lines(file: IO[str], _columns: tuple[str, ...], rows: Iterable[Row]) -> None:
    file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


_EVENT_WRITERS = {".csv": _write_csv, ".jsonl": _write_json_lines}
