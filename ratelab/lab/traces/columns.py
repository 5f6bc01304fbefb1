"""Columns: the requests of a trace as they are gathered, line by line."""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from dataclasses import dataclass, field

from ratelab.errors import shown
from ratelab.lab.traces.lines import LONGEST, LineError
from ratelab.lab.traces.logline import ReadLine

Lines = Iterable[tuple[int, str]]
"""Lines with their numbers."""

_REJECTS_KEPT = 3


@dataclass(frozen=True)
class Reject:
    """A line that could not be read; what it says is safe to print."""

    line: int
    """Its number in the file, from 1."""
    reason: str
    text: str
    """How it begins, quoted, with control characters escaped."""

    def __str__(self) -> str:
        return f"{self.line}: {self.reason}: {self.text}"


def _integers() -> array[int]:
    """Make a column: eight bytes a number, where a list takes four times as much."""
    return array("q")


@dataclass
class Columns:
    """Requests in the order of their lines, each client's name held once, and what could not be read."""

    times: array[int] = field(default_factory=_integers)
    """Nanoseconds since 1970."""
    clients: array[int] = field(default_factory=_integers)
    """Indices into `index`, which numbers the clients as they come."""
    costs: array[int] = field(default_factory=_integers)
    index: dict[str, int] = field(default_factory=dict)
    unparsed: int = 0
    rejects: list[Reject] = field(default_factory=list)
    """The first three lines that could not be read."""

    def gather(self, lines: Lines, read_line: ReadLine, strict: bool) -> None:
        """Read the lines; blank ones are skipped, and those that cannot be read are counted.

        If strict, raises `LineError` with the number, the reason and the text of the first that cannot be read.
        """
        index = self.index
        add_time, add_client, add_cost = self.times.append, self.clients.append, self.costs.append
        for number, line in lines:
            try:
                if len(line) > LONGEST:
                    raise LineError(f"a line must have at most {LONGEST} characters")
                client, time, cost = read_line(line)
            except LineError as error:
                if line and not line.isspace():
                    self._reject(number, line, error, strict)
                continue
            add_time(time)
            add_client(index.setdefault(client, len(index)))
            add_cost(cost)

    def _reject(self, number: int, line: str, error: LineError, strict: bool) -> None:
        """Count a line that cannot be read, and keep the first few."""
        self.unparsed += 1
        if strict or len(self.rejects) < _REJECTS_KEPT:
            reject = Reject(number, str(error), shown(line[:80]))
            if strict:
                raise LineError(str(reject))
            self.rejects.append(reject)
