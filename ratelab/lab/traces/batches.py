"""Batches of lines and of parsed requests, and the reasons why lines are rejected or left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ratelab.lab.spill import Integers

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

    line_numbers: Integers = _EMPTY
    """The line of each parsed request."""
    columns: RequestColumns = RequestColumns(_EMPTY, _EMPTY, _EMPTY)
    names: Sequence[str] = ()
    """The clients, in the order of their first request."""
    deferred: NumberedLines = ()
    omitted: Mapping[int | str, int] = MappingProxyType({})
    """The lines that were left out, by kind; see `OmittedError`."""
