"""Columns: the requests of a trace as they are read, some lines at a time."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ratelab.errors import short_repr
from ratelab.lab.spill import Integers
from ratelab.lab.traces.access_log import ReadLine
from ratelab.lab.traces.files import MAX_LINE_CHARS, LineError, RepeatedError

Lines = Sequence[tuple[int, str]]
"""Lines with their numbers."""

REJECTS_KEPT = 3
_NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Reject:
    """A line that could not be read; what it says is safe to print."""

    line: int
    """Its number in the file, from 1."""
    reason: str
    text: str
    """How it begins, quoted, with control characters escaped."""
    file: str = ""
    """Which file it is of, where there are several."""

    def __str__(self) -> str:
        return f"{self.file}{':' if self.file else ''}{self.line}: {self.reason}: {self.text}"


class Columns(NamedTuple):
    """Requests in the order of their lines."""

    times: Integers
    """Nanoseconds since 1970."""
    clients: Integers
    """Indices into names."""
    costs: Integers


class Part(NamedTuple):
    """Some lines of a file: requests that were read together, and lines to be read one by one."""

    numbers: Integers
    """Of the requests' lines."""
    columns: Columns
    names: list[str]
    """The clients, in the order in which they come."""
    rest: Lines
    """Lines with their numbers."""


def unread(lines: Lines) -> Part:
    """Leave all lines to be read one by one."""
    return Part(_NONE, Columns(_NONE, _NONE, _NONE), [], lines)


class Numbering(dict[str, int]):
    """Numbers what it is asked for, as it comes."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


@dataclass
class Reader:
    """Reads the parts of a trace, and knows what goes beyond a part."""

    strict: bool
    """Whether a line that cannot be read is an error."""
    index: Numbering = field(default_factory=Numbering)
    """The number of each client."""
    unparsed: int = 0
    """Lines that could not be read."""
    rejects: list[Reject] = field(default_factory=list)
    """The first three of these."""
    repeated: int = 0
    """Lines that tell of a request again."""

    def read(self, part: Part, read_line: ReadLine) -> Columns:
        """Return the requests of a part, clients numbered by `index`; blank lines are skipped, bad ones counted.

        If strict, raises `LineError` with the number, the reason and the text of the first that cannot be read.
        """
        columns, names = self._with_rest(part, read_line) if part.rest else (part.columns, part.names)
        numbers = np.fromiter(map(self.index.__getitem__, names), np.int64, len(names))
        return columns._replace(clients=numbers[columns.clients])

    def _with_rest(self, part: Part, read_line: ReadLine) -> tuple[Columns, list[str]]:
        """Read the lines that are left, and put them in their places."""
        index = Numbering(zip(part.names, range(len(part.names)), strict=True))
        numbers, *rest = self._one_by_one(part.rest, read_line, index)
        order = np.argsort(np.concatenate([part.numbers, numbers]), kind="stable")
        times, clients, costs = (np.concatenate(both)[order] for both in zip(part.columns, rest, strict=True))
        clients, coming = _by_coming(clients)
        names = list(index)
        return Columns(times, clients, costs), [names[number] for number in coming.tolist()]

    def _one_by_one(self, lines: Lines, read_line: ReadLine, index: Numbering) -> tuple[array[int], ...]:
        """Read lines; return the numbers of those that are requests, and these requests."""
        columns = array("q"), array("q"), array("q"), array("q")
        add_number, add_time, add_client, add_cost = (column.append for column in columns)
        for number, line in lines:
            try:
                if len(line) > MAX_LINE_CHARS:
                    raise LineError(f"a line must have at most {MAX_LINE_CHARS} characters")
                client, time, cost = read_line(line)
            except RepeatedError:
                self.repeated += 1
                continue
            except LineError as error:
                if line and not line.isspace():
                    self._reject(number, line, error)
                continue
            add_number(number)
            add_time(time)
            add_client(index[client])
            add_cost(cost)
        return columns

    def _reject(self, number: int, line: str, error: LineError) -> None:
        """Count a line that cannot be read, and keep the first few."""
        self.unparsed += 1
        if self.strict or len(self.rejects) < REJECTS_KEPT:
            reject = Reject(number, str(error), short_repr(line[:80]))
            if self.strict:
                raise LineError(str(reject))
            self.rejects.append(reject)


def _by_coming(numbers: Integers) -> tuple[Integers, Integers]:
    """Return the numbers counted anew as they come, and what each new one was."""
    known, firsts, places = np.unique(numbers, return_index=True, return_inverse=True)
    order = np.argsort(firsts)
    return np.argsort(order)[places], known[order]
