"""Recordings: what a live limiter decided, to be decided again."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from typing import Any

import numpy as np

from ratelab.errors import InputError, short_repr
from ratelab.lab.decisions import DECISION, Decisions
from ratelab.lab.traces import format_path, make_printable
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.files import MAX_LINE_CHARS, read_lines
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, Decision
from ratelab.quota import LARGEST, Quota

RECORDING_VERSION = 1
"""Of the format: a first line that says what was granted, then a line for each decision."""

_NUMBERS = ("at_ns", "cost", *Decision._fields)


@dataclass(frozen=True, eq=False)
class Recording:
    """Live requests and what was decided of them, in the order of the decisions."""

    algorithm: str
    """Its name."""
    quota: Quota
    traffic: Traffic
    """Its origin is what the limiter's clock read at the first decision; clients are named by their hashed keys."""
    decisions: Decisions
    shared: int
    """Decisions made on buckets shared for want of room, which no replay of single keys can make again."""
    unfinished: bool
    """Whether the last line was cut off and is left out."""


def digest(decisions: Decisions) -> str:
    """Return the SHA-256 of decisions written in decimal, five numbers a line with blanks between them."""
    rows = (" ".join(map(str, map(int, row))) + "\n" for row in decisions.tolist())
    return sha256("".join(rows).encode()).hexdigest()


def read_recording(path: str, progress: Callable[[int], None] | None = None) -> Recording:
    """Read what `ratelab serve --record` wrote; `-` is standard input.

    A last line that was cut off, as when the service was killed, is left out. `progress` is called now and then with
    how many more bytes have been read. Raises `InputError` for any other line that is not as it was written.
    """
    file = format_path(path)
    try:
        lines = read_lines(path, progress)
        algorithm, quota = _head(next(lines, (1, ""))[1])
        rows = _Rows()
        unfinished = rows.gather((number, line) for number, line in lines if line)
        if not rows.clients:
            raise InputError("it holds no decision: send the service some requests first")
        return Recording(algorithm, quota, rows.traffic(), rows.decisions(), rows.shared, unfinished)
    except LineError as error:
        raise InputError(f"{file}:{error}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def _head(line: str) -> tuple[str, Quota]:
    """Read the first line."""
    head = _object(line) or {}
    if head.get("recording") != RECORDING_VERSION or not isinstance(head.get("algorithm"), str):
        raise InputError("it is not a recording of version 1: give a file that `ratelab serve --record` wrote")
    return head["algorithm"], Quota.parse(head.get("rate", ""), head.get("burst"))


def _object(line: str) -> dict[str, Any] | None:
    try:
        found = json.loads(line) if len(line) <= MAX_LINE_CHARS else None
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


class _Rows:
    """The lines of a recording, as columns."""

    def __init__(self) -> None:
        self.numbers = [array("q") for _ in _NUMBERS]
        self.clients = array("q")
        self.index: dict[str, int] = {}
        self.shared = 0

    def gather(self, lines: Iterable[tuple[int, str]]) -> bool:
        """Take every line; say whether the last one was cut off. Raises `LineError` for any other that is broken."""
        for (number, line), (_, following) in _with_next(lines):
            row = _object(line)
            if row is None and not following:
                return True
            problem = self._take(row or {})
            if problem:
                raise LineError(f"{number}: {problem}: {short_repr(line[:80])}")
        return False

    def _take(self, row: dict[str, Any]) -> str:
        """Add a line's numbers, or return what is wrong with them."""
        values = [row.get(name) for name in _NUMBERS]
        if not isinstance(row.get("key"), str) or not all(isinstance(value, int) for value in values):
            return f"a decision has a key and whole numbers {', '.join(_NUMBERS)}"
        at_ns, cost, *decided = map(int, values)  # type: ignore[arg-type]
        times = self.numbers[0]
        if not (times[-1] if times else 0) <= at_ns <= LARGEST or not 1 <= cost <= LARGEST:
            return "at_ns never falls, cost is at least 1, and both are at most 2**62 - 1"
        if not all(0 <= value <= NEVER for value in decided):
            return f"{', '.join(Decision._fields)} lie between 0 and 2**63 - 1"
        for column, value in zip(self.numbers, (at_ns, cost, *decided), strict=True):
            column.append(value)
        self.clients.append(self.index.setdefault(row["key"], len(self.index)))
        self.shared += bool(row.get("shared"))
        return ""

    def traffic(self) -> Traffic:
        """Return the requests."""
        times, costs, clients = (np.frombuffer(column, np.int64) for column in (*self.numbers[:2], self.clients))
        names = tuple(map(make_printable, self.index))
        duration = max(int(times[-1] - times[0]), 1)
        return Traffic(times - times[0], clients, costs, names, np.arange(len(names)), duration, int(times[0]))

    def decisions(self) -> Decisions:
        """Return what was decided."""
        decisions = np.empty(len(self.clients), DECISION)
        for field, column in zip(Decision._fields, self.numbers[2:], strict=True):
            decisions[field] = np.frombuffer(column, np.int64)
        return decisions


def _with_next(lines: Iterable[tuple[int, str]]) -> Iterator[tuple[tuple[int, str], tuple[int, str]]]:
    """Yield each line with the one after it, empty after the last."""
    previous: tuple[int, str] | None = None
    for line in chain(lines, [(0, "")]):
        if previous is not None:
            yield previous, line
        previous = line
