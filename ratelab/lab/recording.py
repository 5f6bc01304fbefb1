"""Recordings of a live limiter: requests and decisions, read for a replay."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, pairwise
from operator import itemgetter
from typing import Any

import numpy as np

from ratelab.algorithms.penalty import Penalty
from ratelab.errors import InputError, short_repr
from ratelab.lab.decisions import DECISION_DTYPE, Decisions
from ratelab.lab.spill import Integers
from ratelab.lab.traces import format_path, make_printable
from ratelab.lab.traces.files import MAX_LINE_CHARS, read_lines
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, ROW_FIELDS
from ratelab.quota import LARGEST, Quota

_OTHER_CALLS = ("policies", "quotas", "ticket", "refund")
"""Fields of lines that are no hits of one policy."""

_NUMBER_FIELDS = ("at_ns", "cost", *ROW_FIELDS)

_ROW_RULE = f"{', '.join(ROW_FIELDS)} must be from 0 to 2**63 - 1"


class OtherCallError(InputError):
    """A recording of version 1 with a line of a call that is not a hit of one policy."""


class RecordingLines:
    """The lines of a file that `ratelab serve --record` has written; `-` is standard input.

    An incomplete last line is left out: the service may have been killed while writing it. `progress` is called now
    and then with the number of bytes read since its last call. Raises `InputError`, with the name of the file, for
    another file, and during iteration for a line that is not a JSON object.
    """

    def __init__(self, path: str, progress: Callable[[int], None] | None = None) -> None:
        self.path = path
        self.truncated = False
        """Whether the last line is incomplete and left out; known after the iteration."""
        self._lines = self._read(progress)
        self.header = _parse_object(next(self._lines, (1, ""))[1]) or {}
        """The first line."""
        version, kind = (1, str) if "policies" not in self.header else (2, dict)
        described = self.header.get("algorithm" if version == 1 else "policies")
        if self.header.get("recording") != version or not described or not isinstance(described, kind):
            raise self.error("not a recording of version 1 or 2: give a file that `ratelab serve --record` wrote")

    @property
    def has_policies(self) -> bool:
        """Whether it is one of several policies, or with plans."""
        return "policies" in self.header

    def __iter__(self) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the objects after the first line, with their line numbers."""
        for (number, line), (_, following) in pairwise(chain(filter(itemgetter(1), self._lines), [(0, "")])):
            row = _parse_object(line)
            self.truncated = row is None and not following
            if row is not None:
                yield number, row
            elif following:
                raise self.error(f"expected a JSON object, got {short_repr(line[:80])}", number)

    def _read(self, progress: Callable[[int], None] | None) -> Iterator[tuple[int, str]]:
        with self.name_errors():
            yield from read_lines(self.path, progress)

    @contextmanager
    def name_errors(self, number: int | None = None) -> Iterator[None]:
        """Add the name of the file, and the number of a line, to an `InputError` of the block."""
        try:
            yield
        except InputError as error:
            raise self.error(error, number) from None

    def error(self, problem: object, number: int | None = None) -> InputError:
        """Return an error that names the file, and the line if its number is given."""
        place = format_path(self.path) if number is None else f"{format_path(self.path)}:{number}"
        return InputError(f"{place}: {problem}")


@dataclass(frozen=True, eq=False)
class RecordedDecisions:
    """The decisions of a recording."""

    rows: Decisions
    lines: Integers
    """The number of the line of each."""
    shared: int
    """Decisions on buckets that keys shared because the limiter was full; a replay by key cannot reproduce them."""
    truncated: bool
    """Whether the last line is incomplete and left out."""

    @property
    def denied(self) -> int:
        """The number of denials."""
        return int(np.count_nonzero(~self.rows["allowed"]))

    def compare(self, algorithm: str, replayed: Decisions) -> RecordingCheck:
        """Return the check of a recording of one algorithm."""
        return RecordingCheck((algorithm,), self, replayed, np.flatnonzero(self.rows != replayed))


@dataclass(frozen=True, eq=False)
class Recording:
    """Live requests and their decisions, in the order of the decisions."""

    algorithm: str
    """The algorithm's name."""
    quota: Quota
    traffic: Traffic
    """Its origin is the limiter's clock at the first decision; clients are named by their hashed keys."""
    decisions: RecordedDecisions
    penalty: Penalty | None = None


@dataclass(frozen=True, eq=False)
class RecordingCheck:
    """The decisions of a recording, and those of its replay."""

    names: tuple[str, ...]
    """The name of the algorithm, or those of the policies."""
    recorded: RecordedDecisions
    replayed: Decisions
    differing: Integers
    """The positions of the decisions that differ."""
    first: tuple[str, str] | None = None
    """What differs in the first of them, as recorded and as replayed; by default, the numbers do."""
    other_calls: int = 0
    """Settlements and refunds, which are repeated, too."""


def read_recording(lines: RecordingLines) -> Recording:
    """Read a recording of one quota.

    Raises `InputError` for an invalid line, and `OtherCallError` if limiters of several policies must repeat it.
    """
    with lines.name_errors():
        algorithm, quota, penalty = _parse_header(lines.header)
    builder = _RecordingBuilder()
    for number, row in lines:
        if not row.keys().isdisjoint(_OTHER_CALLS):
            raise OtherCallError(str(lines.error("a call that is not a hit: give the file by its name", number)))
        problem = builder.add(number, row)
        if problem:
            raise lines.error(f"{problem}: {short_repr(json.dumps(row)[:80])}", number)
    if not builder.clients:
        raise lines.error("the recording has no decisions: send requests to the service first")
    return Recording(algorithm, quota, builder.traffic(), builder.decisions(lines.truncated), penalty)


def check_row(row: dict[str, Any]) -> str:
    """Return the reason why the decision of a line is invalid; empty if it is not."""
    values = [row.get(name) for name in ROW_FIELDS]
    if not all(isinstance(value, int) for value in values):
        return f"a decision must have the whole numbers {', '.join(ROW_FIELDS)}"
    return "" if all(0 <= value <= NEVER for value in values) else _ROW_RULE  # type: ignore[operator]


def digest(decisions: Decisions) -> str:
    """Return the SHA-256 of decisions in decimal, one per line, their five numbers separated by spaces."""
    rows = (" ".join(map(str, map(int, row))) + "\n" for row in decisions.tolist())
    return sha256("".join(rows).encode()).hexdigest()


def _parse_header(header: dict[str, Any]) -> tuple[str, Quota, Penalty | None]:
    """Parse the first line into the algorithm's name, the quota and the penalty."""
    quota = Quota.parse(header.get("rate", ""), header.get("burst"))
    quota = quota.in_timezone(header["timezone"]) if "timezone" in header else quota
    return header["algorithm"], quota, Penalty.parse(header["penalty"]) if "penalty" in header else None


def _parse_object(line: str) -> dict[str, Any] | None:
    try:
        value = json.loads(line) if len(line) <= MAX_LINE_CHARS else None
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


class _RecordingBuilder:
    """Columns of a recording, filled line by line."""

    def __init__(self) -> None:
        self.numbers = [array("q") for _ in _NUMBER_FIELDS]
        self.lines = array("q")
        self.clients = array("q")
        self.client_indices: dict[str, int] = {}
        self.shared = 0

    def add(self, number: int, row: dict[str, Any]) -> str:
        """Add the numbers of a line, or return why they are invalid."""
        values = [row.get(name) for name in _NUMBER_FIELDS]
        if not isinstance(row.get("key"), str) or not all(isinstance(value, int) for value in values):
            return f"a decision must have a key and the whole numbers {', '.join(_NUMBER_FIELDS)}"
        at_ns, cost, *decision = map(int, values)  # type: ignore[arg-type]
        times = self.numbers[0]
        if not (times[-1] if times else 0) <= at_ns <= LARGEST or not 1 <= cost <= LARGEST:
            return "at_ns must never fall, cost must be at least 1, and both must be at most 2**62 - 1"
        if not all(0 <= value <= NEVER for value in decision):
            return _ROW_RULE
        for column, value in zip(self.numbers, values, strict=True):
            column.append(value)  # type: ignore[arg-type]
        self.lines.append(number)
        self.clients.append(self.client_indices.setdefault(row["key"], len(self.client_indices)))
        self.shared += bool(row.get("shared"))
        return ""

    def traffic(self) -> Traffic:
        """Return the requests."""
        times, costs, clients = (np.frombuffer(column, np.int64) for column in (*self.numbers[:2], self.clients))
        names = tuple(map(make_printable, self.client_indices))
        duration = max(int(times[-1] - times[0]), 1)
        return Traffic(times - times[0], clients, costs, names, np.arange(len(names)), duration, int(times[0]))

    def decisions(self, truncated: bool) -> RecordedDecisions:
        """Return the decisions."""
        return RecordedDecisions(_stack(self.numbers[2:]), np.frombuffer(self.lines, np.int64), self.shared, truncated)


class CheckBuilder:
    """The check of a recording of several policies, built line by line."""

    def __init__(self) -> None:
        self._recorded, self._replayed = array("q"), array("q")  # the rows of decisions
        self._lines, self._differing = array("q"), array("q")
        self._first: tuple[str, str] | None = None
        self._shared = self._other_calls = 0

    def count_other_call(self, counts: bool) -> None:
        """Count a call that is no decision."""
        self._other_calls += counts

    def add(self, number: int, line: dict[str, Any], replayed: Mapping[str, Any]) -> None:
        """Add a line, and the fields of its decision as replayed; raise `InputError` for an invalid decision."""
        problem = check_row(line)
        if problem:
            raise InputError(problem)
        for rows, fields in ((self._recorded, line), (self._replayed, replayed)):
            rows.extend([fields[name] for name in ROW_FIELDS])
        differences = list(_list_differences(line, replayed))
        if differences:
            self._differing.append(len(self._lines))
            self._first = self._first or tuple(map(", ".join, zip(*differences, strict=True)))  # type: ignore[assignment]
        self._lines.append(number)
        self._shared += bool(line.get("shared"))

    def build(self, names: Sequence[str], truncated: bool) -> RecordingCheck:
        """Return the check of the policies with these names."""
        recorded, replayed = (
            _stack([rows[n :: len(ROW_FIELDS)] for n in range(len(ROW_FIELDS))])
            for rows in (self._recorded, self._replayed)
        )
        decisions = RecordedDecisions(recorded, np.frombuffer(self._lines, np.int64), self._shared, truncated)
        differing = np.array(self._differing, np.int64)
        return RecordingCheck((*names,), decisions, replayed, differing, self._first, self._other_calls)


def _stack(columns: Sequence[array[int]]) -> Decisions:
    rows = np.empty(len(columns[0]), DECISION_DTYPE)
    for name, column in zip(ROW_FIELDS, columns, strict=True):
        rows[name] = np.frombuffer(column, np.int64)
    return rows


def _list_differences(
    recorded: Mapping[str, Any], replayed: Mapping[str, Any], place: str = ""
) -> Iterator[tuple[str, str]]:
    """Yield each field with different values, as recorded and as replayed; a line may lack the details of a hit."""
    for name in {**replayed, **recorded} if place else [name for name in replayed if name in recorded]:
        was, is_now = recorded.get(name), replayed.get(name)
        if was == is_now:
            continue
        field = place + make_printable(name)
        if isinstance(was, dict) and isinstance(is_now, dict):
            yield from _list_differences(was, is_now, f"{field}.")
        else:
            yield f"{field} {short_repr(was)}", f"{field} {short_repr(is_now)}"
