"""Traces: the requests of all files, merged by time, and spread over the seconds or minutes that their times name."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ratelab.errors import InputError
from ratelab.lab.spill import Integers, map_column
from ratelab.lab.traces.batches import (
    ANONYMOUS,
    COMMENT,
    MAX_REJECTS,
    REPEATED,
    Reject,
    RequestColumns,
)
from ratelab.lab.traces.files import make_printable
from ratelab.lab.traces.formats import TraceOptions
from ratelab.lab.traffic import RequestSorter, Traffic, split_batches
from ratelab.quota import LARGEST, NS_PER_S, UNITS

if TYPE_CHECKING:
    from ratelab.lab.traces.reader import BatchReader

MINUTE_NS = UNITS["min"]

_NOTED_SHARE = 0.2
"""Share of whole seconds among finer times from which on they are reported."""


@dataclass(frozen=True, eq=False)
class Trace:
    """Recorded traffic, and counts of the lines it was read from."""

    traffic: Traffic
    """Starts with the first request, whose nanoseconds since 1970 are its origin.

    Clients are numbered in the order in which the files first name them. Control characters in names are escaped.
    """
    format: str
    """The name of the format; of all formats, if several files have several."""
    lines: int
    """Lines that are not blank and not a header: the requests, and the lines of the other counts."""
    repeated: int
    """Rows of an `--events` file that repeat a request for another algorithm than the first."""
    anonymous: int
    """Lines whose client is missing, empty or `-`."""
    filtered: tuple[tuple[str, int], ...]
    """The filters, and how many requests each left out."""
    unparsed: int
    """Lines that could not be parsed."""
    reordered: int
    """Requests with an earlier time than a previous one in their file."""
    whole_seconds: bool
    """Whether no time has a fraction of a second."""
    rejects: tuple[Reject, ...]
    """The first three lines that could not be parsed."""
    notes: tuple[str, ...]
    """Choices that the reader made, each with the option that changes it, and files that it skipped."""


@dataclass
class Resolution:
    """Counts of the times of a file by how exact they are."""

    requests: int = 0
    whole_seconds: int = 0
    whole_minutes: int = 0
    first: int | None = None
    varies: bool = False
    """Whether there is any other time than the first."""

    def add(self, times: Integers) -> None:
        """Count times."""
        if not len(times):
            return
        self.requests += len(times)
        self.whole_seconds += _count_multiples(times, NS_PER_S)
        if self.whole_minutes == self.requests - len(times):
            self.whole_minutes += _count_multiples(times, MINUTE_NS)
        self.first = int(times[0]) if self.first is None else self.first
        self.varies = self.varies or bool((times != self.first).any())

    def join(self, later: Resolution) -> None:
        """Add the counts of later times."""
        if self.whole_minutes == self.requests:
            self.whole_minutes += later.whole_minutes
        self.first = later.first if self.first is None else self.first
        self.varies = self.varies or later.varies or later.first not in (None, self.first)
        self.requests += later.requests
        self.whole_seconds += later.whole_seconds

    @property
    def is_whole(self) -> bool:
        """Whether no time has a fraction of a second."""
        return self.whole_seconds == self.requests

    @property
    def unit(self) -> int:
        """The nanoseconds over which requests of one time may be spread; 1 if times are finer than seconds."""
        if self.whole_seconds * 2 <= self.requests:
            return 1
        return MINUTE_NS if self.varies and self.whole_minutes == self.requests else NS_PER_S

    def describe(self, within_second: str) -> str | None:
        """Return a note on the resolution; None if all times are exact or nearly all of them."""
        what = (
            "requests of each are spread evenly over it" if within_second == "spread" else "requests stay at its start"
        )
        if self.unit == MINUTE_NS:
            return f"times are whole minutes: the {what} (--within-second)"
        if self.is_whole:
            return None
        if self.unit == NS_PER_S:
            return f"{self.whole_seconds:,} of {self.requests:,} times are whole seconds: the {what} (--within-second)"
        if self.whole_seconds >= max(2, _NOTED_SHARE * self.requests):
            return (
                f"{self.whole_seconds:,} of {self.requests:,} times are whole seconds: those requests stay at its start"
            )
        return None


def _count_multiples(times: Integers, unit: int) -> int:
    return len(times) - int(np.count_nonzero(times % unit))


@dataclass
class FileRequests:
    """The requests of one file, and facts about them."""

    name: str
    format: str
    notes: tuple[str, ...]
    anonymous_reason: str
    reader: BatchReader
    requests: RequestSorter = field(default_factory=RequestSorter)
    resolution: Resolution = field(default_factory=Resolution)
    reordered: int = 0
    cost: float = 0.0
    _latest_time: int | None = None

    def add(self, columns: RequestColumns) -> None:
        """Add requests."""
        times, clients, costs = columns
        if not len(times):
            return
        previous = times[0] if self._latest_time is None else self._latest_time
        latest = np.maximum.accumulate(np.append(previous, times))
        self.reordered += int(np.count_nonzero(times < latest[:-1]))
        self._latest_time = int(latest[-1])
        self.resolution.add(times)
        self.cost += float(costs.sum(dtype=np.float64))
        self.requests.add(times, clients, costs)

    @property
    def lines(self) -> int:
        """The number of lines that are not blank and not a header."""
        omitted = sum(count for kind, count in self.reader.omitted.items() if kind != COMMENT)
        return len(self.requests) + omitted + self.reader.unparsed

    def check(self, options: TraceOptions) -> None:
        """Raise `InputError` if there is no request, or if most lines could not be parsed."""
        reader = self.reader
        if not len(self.requests):
            raise InputError(self._explain_no_requests(options))
        if reader.unparsed * 2 > self.lines and not options.lenient:
            raise InputError(
                f"{reader.unparsed:,} of its {self.lines:,} lines cannot be parsed as {self.format}: "
                f"check --format, or add --lenient to leave them out; line {reader.rejects[0]}"
            )

    def _explain_no_requests(self, options: TraceOptions) -> str:
        reader = self.reader
        if reader.unparsed:
            count, first = reader.unparsed, reader.rejects[0]
            return f"none of its {count} lines can be parsed as {self.format}: check --format; line {first}"
        if reader.omitted[ANONYMOUS]:
            return f"none of its {self.lines} lines has a client: {self.anonymous_reason}"
        filters = [str(options.filters[kind]) for kind in reader.omitted if isinstance(kind, int)]
        if filters:
            return f"no request is left after {' and '.join(filters)}: change the filters"
        return f"it has no requests, only the {self.format} header: name a file with rows"


# --- one trace


class ClientNumbers(dict[str, int]):
    """Client names mapped to 0, 1, 2 ... in the order of their first lookup."""

    def __missing__(self, name: str) -> int:
        self[name] = number = len(self)
        return number


def build_trace(files: Sequence[FileRequests], notes: Sequence[str], options: TraceOptions) -> Trace:
    """Merge the requests by time, and count time from the first."""
    clients, rows, end, on_disk = _merge(files, options.within_second)
    start = int(rows[0]["time"])
    check_limits(int(rows[-1]["time"]) - start, sum(file.cost for file in files))
    times, owners, costs = split_columns(rows, start, on_disk)
    traffic = Traffic(
        times=times,
        clients=owners,
        costs=costs,
        names=tuple(map(make_printable, clients)),
        keys=np.arange(len(clients)),
        duration=max(1, end - start),
        origin=start,
        on_disk=on_disk,
    )
    return describe_trace(traffic, files, notes, options)


def describe_trace(
    traffic: Traffic, files: Sequence[FileRequests], notes: Sequence[str], options: TraceOptions
) -> Trace:
    """Return the trace of these files, whose requests are `traffic`."""
    omitted = sum((file.reader.omitted for file in files), Counter[int | str]())
    return Trace(
        traffic=traffic,
        format=", ".join(dict.fromkeys(file.format for file in files)),
        lines=sum(file.lines for file in files),
        repeated=omitted[REPEATED],
        anonymous=omitted[ANONYMOUS],
        filtered=tuple((str(filter_), omitted[number]) for number, filter_ in enumerate(options.filters)),
        unparsed=sum(file.reader.unparsed for file in files),
        reordered=sum(file.reordered for file in files),
        whole_seconds=all(file.resolution.is_whole for file in files),
        rejects=_collect_rejects(files),
        notes=(*_collect_notes(files, options.within_second), *_describe_start(traffic.origin), *notes),
    )


def _collect_rejects(files: Sequence[FileRequests]) -> tuple[Reject, ...]:
    """Return the first rejected lines, with the names of their files if there are several."""
    name = len(files) > 1
    rejects = [replace(reject, file=file.name) if name else reject for file in files for reject in file.reader.rejects]
    return tuple(rejects[:MAX_REJECTS])


def _collect_notes(files: Sequence[FileRequests], within_second: str) -> list[str]:
    """Return the notes of all files, each once, with the name of the file if not all files have it."""
    notes: dict[str, list[str]] = {}
    for file in files:
        resolution = file.resolution.describe(within_second)
        for note in (*file.notes, *([resolution] if resolution else [])):
            notes.setdefault(note, []).append(file.name)
    return [note if len(names) == len(files) else f"{names[0]}: {note}" for note, names in notes.items()]


def _describe_start(start: int) -> list[str]:
    """Return a note if the trace begins so early that its times may be durations."""
    if not 0 <= start < UNITS["day"] * 365:
        return []
    return ["times begin in 1970, so they may be durations: name the field of the time with --time"]


def _merge(files: Sequence[FileRequests], within_second: str) -> tuple[ClientNumbers, NDArray[Any], int, bool]:
    """Return the clients of all files, their requests as rows sorted by time, the end, and whether rows are on disk.

    The requests of files with the same unit are spread together, since a second may begin in one and end in another.
    """
    clients, merged = ClientNumbers(), RequestSorter()
    numbers = {file.name: [clients[name] for name in file.reader.clients] for file in files}
    units = sorted({file.resolution.unit for file in files})
    ends = []
    for unit in units:
        same_unit = [file for file in files if file.resolution.unit == unit]
        sorter = same_unit[0].requests if len(files) == 1 else RequestSorter()
        for file in same_unit if len(files) > 1 else ():
            _add_rows(sorter, file.requests.sort(), np.array(numbers[file.name], np.uint32))
        rows = sorter.sort()
        last = int(rows[-1]["time"])
        ends.append(last - last % unit + unit if unit > 1 else last)
        is_whole = unit == 1 or all(file.resolution.is_whole for file in same_unit)
        if unit > 1 and within_second == "spread":
            spread(rows["time"], unit)
        if len(units) == 1 and is_whole:
            return clients, rows, ends[0], sorter.on_disk
        _add_rows(merged, rows, np.arange(len(clients), dtype=np.uint32))
    return clients, merged.sort(), max(ends), merged.on_disk


def spread(times: Integers, unit: int) -> None:
    """Spread the requests of each whole `unit` evenly over it, in place: request k of n, from 0, is at k/n of it.

    `times` is sorted. Other times stay as they are, so that the order may change.
    """
    start, seen, total = None, 0, 0  # of the time that continues from batch to batch
    for part in split_batches(len(times)):
        batch = times[part]
        firsts = np.flatnonzero(np.diff(batch, prepend=batch[0] - 1))
        counts = np.diff(firsts, append=len(batch))
        totals, ranks = counts.copy(), np.arange(len(batch)) - np.repeat(firsts, counts)
        if batch[0] == start:
            ranks[: counts[0]] += seen
            totals[0] = total
        if batch[-1] != start:
            totals[-1] += _count_same_time(times[part.stop :], int(batch[-1]))
        start, seen, total = int(batch[-1]), int(ranks[-1]) + 1, int(totals[-1])
        batch += ranks * unit // np.repeat(totals, counts) * (batch % unit == 0)


def _count_same_time(times: Integers, time: int) -> int:
    """Count the leading times that equal `time`."""
    count = 0
    for part in split_batches(len(times)):
        batch = times[part]
        count += int(np.searchsorted(batch, time, "right"))
        if batch[-1] != time:
            break
    return count


def _add_rows(sorter: RequestSorter, rows: NDArray[Any], clients: NDArray[np.uint32]) -> None:
    """Add rows, whose owners are indices into `clients`."""
    for part in split_batches(len(rows)):
        batch = rows[part]
        sorter.add(batch["time"], clients[batch["owner"]], batch["cost"])


def check_limits(length: int, cost: float) -> None:
    """Reject times and costs that would overflow a column."""
    if length > LARGEST:
        years = length // UNITS["day"] // 365
        raise InputError(f"its times must be within 146 years of each other, got {years} years: check --time-unit")
    if cost > LARGEST:
        raise InputError(f"its costs must add up to at most 2**62, got {cost:.3g}: check --cost")


def split_columns(rows: NDArray[Any], start: int, on_disk: bool) -> list[Integers]:
    """Return the times since `start`, the clients and the costs of requests as columns."""
    columns: list[Integers] = [
        map_column(np.int64, len(rows)) if on_disk else np.empty(len(rows), np.int64) for _ in range(3)
    ]
    times, clients, costs = columns
    for part in split_batches(len(rows)):
        times[part] = rows["time"][part] - start
        clients[part], costs[part] = rows["owner"][part], rows["cost"][part]
    return columns
