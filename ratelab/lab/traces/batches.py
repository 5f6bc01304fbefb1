"""Batches of parsed requests, and the lines that were rejected or left out."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ratelab.errors import short_repr
from ratelab.lab.spill import Integers
from ratelab.lab.traces.files import MAX_LINE_CHARS

ParsedRequest = tuple[str, int, int]
"""The request that a line records: its client, its time in nanoseconds since 1970, and its cost."""

LineParser = Callable[[str], ParsedRequest]
"""Parses one line, or raises `LineError`. A blank line is an error as well."""

NumberedLines = Sequence[tuple[int, str]]
"""Lines with their numbers in the file, from 1."""

MAX_REJECTS = 3
"""Rejected lines that are kept for the report."""

_EMPTY = np.empty(0, np.int64)


class LineError(ValueError):
    """The reason why a line cannot be parsed as a request."""


class OmittedError(Exception):
    """The line can be parsed but is left out; `kind` is what such lines are counted as."""

    def __init__(self, kind: int | str) -> None:
        super().__init__(kind)
        self.kind = kind


REPEATED = "repeated"
"""The line repeats a request of an earlier line."""
ANONYMOUS = "anonymous"
"""The field that names the client is missing, empty or `-`."""
COMMENT = "comment"
"""The line is not a record. Other kinds are the numbers of filters."""


@dataclass(frozen=True)
class Reject:
    """A line that could not be parsed. All texts are safe to print."""

    line: int
    """Its number in the file, from 1."""
    reason: str
    text: str
    """Its beginning, quoted, with control characters escaped."""
    file: str = ""
    """The name of its file, if there are several."""

    def __str__(self) -> str:
        return f"{self.file}{':' if self.file else ''}{self.line}: {self.reason}: {self.text}"


class RequestColumns(NamedTuple):
    """Requests as columns of one length, in the order of their lines."""

    times: Integers
    """Nanoseconds since 1970."""
    clients: Integers
    """Indices into a list of names."""
    costs: Integers


class Batch(NamedTuple):
    """Lines of a file: requests that were parsed together, and the other lines, to be parsed one at a time."""

    line_numbers: Integers
    """The line of each parsed request."""
    columns: RequestColumns
    names: list[str]
    """The clients, in the order of their first request."""
    deferred: NumberedLines
    omitted: Counter[int | str]
    """The lines that were left out, by kind; see `OmittedError`."""


def defer_lines(lines: NumberedLines, omitted: Counter[int | str] | None = None) -> Batch:
    """Return a batch whose lines are all parsed one at a time."""
    return Batch(_EMPTY, RequestColumns(_EMPTY, _EMPTY, _EMPTY), [], lines, Counter() if omitted is None else omitted)


class ClientNumbers(dict[str, int]):
    """Client names mapped to 0, 1, 2 ... in the order of their first lookup."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


@dataclass
class BatchReader:
    """Converts the batches of one file to requests, and keeps the state that spans batches."""

    strict: bool
    """Whether a line that cannot be parsed is an error."""
    clients: ClientNumbers = field(default_factory=ClientNumbers)
    unparsed: int = 0
    """Lines that could not be parsed."""
    rejects: list[Reject] = field(default_factory=list)
    """The first of these lines, at most `MAX_REJECTS`."""
    omitted: Counter[int | str] = field(default_factory=Counter)
    """Lines that were left out, by kind; see `OmittedError`."""

    def read(self, batch: Batch, parse_line: LineParser) -> RequestColumns:
        """Return the requests of a batch, with clients numbered by `clients`; skip blank lines, count rejected ones.

        If strict, raises `LineError` with the number, the reason and the text of the first line that cannot be parsed.
        """
        self.omitted += batch.omitted
        columns, names = self._parse_deferred(batch, parse_line) if batch.deferred else (batch.columns, batch.names)
        numbers = np.fromiter(map(self.clients.__getitem__, names), np.int64, len(names))
        return columns._replace(clients=numbers[columns.clients])

    def _parse_deferred(self, batch: Batch, parse_line: LineParser) -> tuple[RequestColumns, list[str]]:
        """Parse the remaining lines of a batch and merge them with the others, in the order of lines."""
        clients = ClientNumbers()
        old = np.fromiter(map(clients.__getitem__, batch.names), np.int64, len(batch.names))
        batch = batch._replace(columns=batch.columns._replace(clients=old[batch.columns.clients]))
        line_numbers, *columns = self._parse_lines(batch.deferred, parse_line, clients)
        order = np.argsort(np.concatenate([batch.line_numbers, line_numbers]), kind="stable")
        times, indices, costs = (np.concatenate(pair)[order] for pair in zip(batch.columns, columns, strict=True))
        indices, used = renumber(indices)
        names = list(clients)
        return RequestColumns(times, indices, costs), [names[index] for index in used.tolist()]

    def _parse_lines(
        self, lines: NumberedLines, parse_line: LineParser, clients: ClientNumbers
    ) -> tuple[array[int], ...]:
        """Parse lines one at a time; return the line numbers, times, clients and costs of the requests."""
        columns = array("q"), array("q"), array("q"), array("q")
        add_number, add_time, add_client, add_cost = (column.append for column in columns)
        for number, line in lines:
            try:
                if len(line) > MAX_LINE_CHARS:
                    raise LineError(f"a line must have at most {MAX_LINE_CHARS} characters")
                client, time, cost = parse_line(line)
            except OmittedError as error:
                self.omitted[error.kind] += 1
                continue
            except LineError as error:
                if line and not line.isspace():
                    self._reject(number, line, error)
                continue
            add_number(number)
            add_time(time)
            add_client(clients[client])
            add_cost(cost)
        return columns

    def _reject(self, number: int, line: str, error: LineError) -> None:
        """Count a line that cannot be parsed, and keep the first ones."""
        self.unparsed += 1
        if self.strict or len(self.rejects) < MAX_REJECTS:
            reject = Reject(number, str(error), short_repr(line[:80]))
            if self.strict:
                raise LineError(str(reject))
            self.rejects.append(reject)


def renumber(numbers: Integers) -> tuple[Integers, Integers]:
    """Renumber values in the order of their first use; return the new numbers and the distinct values."""
    distinct, firsts, places = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    return np.argsort(order)[places], distinct[order]
