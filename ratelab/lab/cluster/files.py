"""Files of a distributed run: the summaries of their pieces, joined, and their requests, gathered from the exchange."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.cluster.pieces import Piece, Summary
from ratelab.lab.cluster.reading import INVALID_LINE, MISSING
from ratelab.lab.exchange import Exchange, name_file
from ratelab.lab.traces import TraceOptions, format_path
from ratelab.lab.traces.batches import MAX_REJECTS, Reject
from ratelab.lab.traces.files import MissingFileError
from ratelab.lab.traces.merge import FileRequests, Resolution
from ratelab.lab.traces.reader import BatchReader
from ratelab.lab.traffic import RequestSorter

PieceSummaries = Sequence[tuple[Piece, Summary]]
"""The pieces of a file, in order, with the summaries of their tasks."""


class RemoteRequests(RequestSorter):
    """Requests in the exchange, of which only the number is known here."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self._remote_count = count

    def __len__(self) -> int:
        return self._remote_count


def join_pieces(path: str, pieces: PieceSummaries, options: TraceOptions, exchange: Exchange) -> FileRequests:
    """Return the facts about a file, as its reading in one process finds them.

    Raises `InputError` if a piece could not be read, or if the file as a whole has no requests or too many errors.
    """
    name = format_path(path)
    for _, summary in pieces:
        _raise_error(name, summary)
    summaries = [summary for _, summary in pieces]
    first = summaries[0]
    reader = BatchReader(options.strict)
    requests = RemoteRequests(sum(summary["requests"] for summary in summaries))
    file = FileRequests(name, first["format"], tuple(first["notes"]), first["anonymous_reason"], reader, requests)
    lines_before, late_notes = 0, set[str]()
    for summary in summaries:
        late_notes |= {*summary["late_notes"]}
        reader.unparsed += summary["unparsed"]
        reader.omitted += Counter(dict(summary["omitted"]))
        reader.rejects += [Reject(line + lines_before, reason, text) for line, reason, text in summary["rejects"]]
        lines_before += summary["lines"]
        file.resolution.join(Resolution(**summary["resolution"]))
        file.cost += summary["cost"]
    del reader.rejects[MAX_REJECTS:]
    file.reordered = _count_reordered(pieces, exchange)
    file.notes += tuple(sorted(late_notes))
    try:
        file.check(options)
    except InputError as error:
        raise InputError(f"{name}: {error}") from None
    return file


def _raise_error(name: str, summary: Summary) -> None:
    """Raise the error of a piece that could not be read, with the name of its file."""
    if "error" not in summary:
        return
    if summary["kind"] == MISSING:
        raise MissingFileError(f"{name}: {summary['error']}")
    raise InputError(f"{name}:{'' if summary['kind'] == INVALID_LINE else ' '}{summary['error']}")


def _count_reordered(pieces: PieceSummaries, exchange: Exchange) -> int:
    """Count the requests with an earlier time than a previous one in their file.

    Those within a piece are counted. Of the others of a piece, those count that an earlier piece exceeds.
    """
    count, latest = 0, None
    for piece, summary in pieces:
        count += summary["reordered"]
        if latest is not None and summary["requests"] and summary["first_in_order"] < latest:
            for table in exchange.read(name_file("read", piece.number, "order")):
                count += int(table["count"][table["time"] < latest].sum())
        if summary["requests"]:
            last = summary["times"][-1]
            latest = last if latest is None else max(latest, last)
    return count


# --- all requests of a file


def gather_file(file: FileRequests, pieces: PieceSummaries, exchange: Exchange, partitions: int) -> FileRequests:
    """Return a file with its clients and all its requests, in the order in which one process reads them."""
    reader, requests = BatchReader(file.reader.strict), RequestSorter()
    reader.unparsed, reader.rejects, reader.omitted = file.reader.unparsed, file.reader.rejects, file.reader.omitted
    for piece, summary in pieces:
        numbers = _number_clients(reader, piece, summary, exchange)
        chunk: list[dict[str, Any]] = []
        for table in exchange.read(name_file("read", piece.number)):
            chunk.append(table)
            if len(chunk) == partitions:
                _add_rows(requests, chunk, numbers)
                chunk = []
    return replace(file, reader=reader, requests=requests, resolution=file.resolution)


def _number_clients(reader: BatchReader, piece: Piece, summary: Summary, exchange: Exchange) -> NDArray[np.uint32]:
    """Return the number in the file of each client of a piece."""
    names: list[bytes] = [b""] * summary["clients"]
    for table in exchange.read(name_file("read", piece.number, "names")):
        for client, name in zip(table["client"].tolist(), table["name"], strict=True):
            names[client] = name
    clients = reader.clients
    return np.array([clients[name.decode("utf-8", "surrogatepass")] for name in names], np.uint32)


def _add_rows(requests: RequestSorter, chunk: Sequence[dict[str, Any]], numbers: NDArray[np.uint32]) -> None:
    """Add the requests of a chunk, of all partitions, in the order of their positions."""
    columns = {name: np.concatenate([table[name] for table in chunk]) for name in chunk[0]}
    order = np.empty(len(columns["position"]), np.int64)
    order[columns["position"] - columns["position"].min(initial=2**62)] = np.arange(len(order))
    costs = columns["cost"][order] if "cost" in columns else np.ones(len(order), np.int64)
    requests.add(columns["time"][order], numbers[columns["client"][order]], costs)
