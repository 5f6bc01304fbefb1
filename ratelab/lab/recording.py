"""Recordings of a live limiter: requests and decisions, read for a replay."""

from __future__ import annotations

import json
from array import array
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain, pairwise
from typing import Any

import numpy as np

from ratelab.algorithms.penalty import Penalty
from ratelab.errors import InputError, short_repr
from ratelab.lab.decisions import DECISION_DTYPE, Decisions
from ratelab.lab.traces import format_path, make_printable
from ratelab.lab.traces.batches import LineError
from ratelab.lab.traces.files import MAX_LINE_CHARS, read_lines
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, ROW_FIELDS
from ratelab.quota import LARGEST, Quota

RECORDING_VERSION = 1
"""The version of the format: a first line with the algorithm and the quota, then a line for each decision."""

_NUMBER_FIELDS = ("at_ns", "cost", *ROW_FIELDS)


@dataclass(frozen=True, eq=False)
class Recording:
    """Live requests and their decisions, in the order of the decisions."""

    algorithm: str
    """The algorithm's name."""
    quota: Quota
    traffic: Traffic
    """Its origin is the limiter's clock at the first decision; clients are named by their hashed keys."""
    decisions: Decisions
    shared: int
    """Decisions on buckets that keys shared because the limiter was full; a replay by key cannot reproduce them."""
    truncated: bool
    """Whether the last line is incomplete and left out."""
    penalty: Penalty | None = None


def read_recording(path: str, progress: Callable[[int], None] | None = None) -> Recording:
    """Read a file that `ratelab serve --record` has written; `-` is standard input.

    An incomplete last line is left out: the service may have been killed while writing it. `progress` is called now
    and then with the number of bytes read since its last call. Raises `InputError` for any other invalid line.
    """
    file = format_path(path)
    try:
        lines = read_lines(path, progress)
        algorithm, quota, penalty = _parse_header(next(lines, (1, ""))[1])
        builder = _RecordingBuilder()
        truncated = builder.add_lines((number, line) for number, line in lines if line)
        if not builder.clients:
            raise InputError("the recording has no decisions: send requests to the service first")
        return Recording(algorithm, quota, builder.traffic(), builder.decisions(), builder.shared, truncated, penalty)
    except LineError as error:
        raise InputError(f"{file}:{error}") from None
    except InputError as error:
        raise InputError(f"{file}: {error}") from None


def digest(decisions: Decisions) -> str:
    """Return the SHA-256 of decisions in decimal, one per line, their five numbers separated by spaces."""
    rows = (" ".join(map(str, map(int, row))) + "\n" for row in decisions.tolist())
    return sha256("".join(rows).encode()).hexdigest()


def _parse_header(line: str) -> tuple[str, Quota, Penalty | None]:
    """Parse the first line into the algorithm's name, the quota and the penalty."""
    header = _parse_object(line) or {}
    if "policies" in header:
        raise InputError("a recording of several policies cannot be replayed: record one policy at a time")
    if header.get("recording") != RECORDING_VERSION or not isinstance(header.get("algorithm"), str):
        raise InputError("not a recording of version 1: give a file that `ratelab serve --record` wrote")
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
        self.clients = array("q")
        self.client_indices: dict[str, int] = {}
        self.shared = 0

    def add_lines(self, lines: Iterable[tuple[int, str]]) -> bool:
        """Add all lines; return whether the last one was incomplete. Raises `LineError` for another invalid line."""
        for (number, line), (_, following) in pairwise(chain(lines, [(0, "")])):
            row = _parse_object(line)
            if row is None and not following:
                return True
            problem = self._add(row or {})
            if problem:
                raise LineError(f"{number}: {problem}: {short_repr(line[:80])}")
        return False

    def _add(self, row: dict[str, Any]) -> str:
        """Add the numbers of a line, or return why they are invalid."""
        values = [row.get(name) for name in _NUMBER_FIELDS]
        if not isinstance(row.get("key"), str) or not all(isinstance(value, int) for value in values):
            return f"a decision must have a key and the whole numbers {', '.join(_NUMBER_FIELDS)}"
        at_ns, cost, *decision = map(int, values)  # type: ignore[arg-type]
        times = self.numbers[0]
        if not (times[-1] if times else 0) <= at_ns <= LARGEST or not 1 <= cost <= LARGEST:
            return "at_ns must never fall, cost must be at least 1, and both must be at most 2**62 - 1"
        if not all(0 <= value <= NEVER for value in decision):
            return f"{', '.join(ROW_FIELDS)} must be from 0 to 2**63 - 1"
        for column, value in zip(self.numbers, (at_ns, cost, *decision), strict=True):
            column.append(value)
        self.clients.append(self.client_indices.setdefault(row["key"], len(self.client_indices)))
        self.shared += bool(row.get("shared"))
        return ""

    def traffic(self) -> Traffic:
        """Return the requests."""
        times, costs, clients = (np.frombuffer(column, np.int64) for column in (*self.numbers[:2], self.clients))
        names = tuple(map(make_printable, self.client_indices))
        duration = max(int(times[-1] - times[0]), 1)
        return Traffic(times - times[0], clients, costs, names, np.arange(len(names)), duration, int(times[0]))

    def decisions(self) -> Decisions:
        """Return the decisions."""
        decisions = np.empty(len(self.clients), DECISION_DTYPE)
        for field, column in zip(ROW_FIELDS, self.numbers[2:], strict=True):
            decisions[field] = np.frombuffer(column, np.int64)
        return decisions
