"""Timeline of a distributed run: when its traffic begins and ends, and where each whole second is spread."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from ratelab.lab.cluster.files import PieceSummaries
from ratelab.lab.cluster.pieces import Summary
from ratelab.lab.exchange import Exchange, Table, name_file
from ratelab.lab.spill import Integers
from ratelab.lab.traces.merge import FileRequests, check_limits


@dataclass(frozen=True)
class UnitGroup:
    """The pieces of the files whose times have the same resolution."""

    unit: int
    """The nanoseconds over which requests of one time are spread."""
    places: tuple[int, ...]
    """The positions of the pieces in `TrafficTimeline.pieces`."""


@dataclass(frozen=True)
class TrafficTimeline:
    """The order of all requests in time, as far as tasks need it."""

    pieces: tuple[tuple[int, int], ...]
    """The number and the requests of each piece, in the order of the files and lines."""
    groups: tuple[UnitGroup, ...]
    """Groups by rising unit."""
    spread_file: str | None
    """The file of the offsets, with a table for each of the pieces; None if requests stay at the start of a second."""
    keeps_order: bool
    """Whether the order of the final times is that of the times in the files."""
    start: int
    """Nanoseconds since 1970 of the first request."""
    duration: int
    bounds: tuple[int, ...]
    """Times since the start that divide the requests about evenly; fixed points of a second exchange."""


def build_timeline(
    files: Sequence[tuple[FileRequests, PieceSummaries]],
    is_spread: bool,
    ranges: int,
    exchange: Exchange,
    unit: int | None = None,
) -> TrafficTimeline:
    """Order the pieces, and write the offsets of their whole seconds to the exchange.

    With a `unit`, requests are spread over whole units of this length, whatever the resolution of their file.
    Raises `InputError` for times and costs that overflow a column.
    """
    pieces: list[tuple[int, int]] = []
    summaries: list[Summary] = []
    units: dict[int, list[int]] = {}
    for file, group in files:
        for piece, summary in group:
            units.setdefault(file.resolution.unit, []).append(len(pieces))
            pieces.append((piece.number, summary["requests"]))
            summaries.append(summary)
    ordered = [(unit, tuple(units[unit])) for unit in sorted(units)]
    groups = tuple(UnitGroup(*group) for group in ordered)
    firsts = [summary["times"][0] for summary in summaries if summary["times"]]
    start = min(firsts)
    lasts = {
        group.unit: max(summaries[place]["times"][-1] for place in group.places if summaries[place]["times"])
        for group in groups
    }
    end = max(last - last % unit + unit if unit > 1 else last for unit, last in lasts.items())
    check_limits(max(lasts.values()) - start, sum(file.cost for file, _ in files))
    is_whole = all(file.resolution.is_whole for file, _ in files)
    if unit is not None:
        groups = (UnitGroup(unit, tuple(chain.from_iterable(places for _, places in ordered))),)
    spread_file = f"spread-{unit or 0}" if is_spread or unit is not None else None
    if spread_file is not None:
        exchange.write(spread_file, _compute_offsets(pieces, summaries, groups, exchange))
    return TrafficTimeline(
        pieces=tuple(pieces),
        groups=groups,
        spread_file=spread_file,
        keeps_order=len(groups) == 1 and (groups[0].unit == 1 or is_whole or not is_spread),
        start=start,
        duration=max(1, end - start),
        bounds=_choose_bounds(summaries, start, ranges),
    )


def _compute_offsets(
    pieces: Sequence[tuple[int, int]], summaries: Sequence[Summary], groups: Sequence[UnitGroup], exchange: Exchange
) -> list[Table]:
    """Return a table for each piece: its seconds, and for each of them counts of the requests of the whole unit.

    These are the number of the requests in the unit before those of the piece, and the number of all.
    """
    empty = np.empty(0, np.int64)
    tables: list[Table] = [{"second": empty, "first": empty, "offset": empty, "total": empty} for _ in pieces]
    for group in groups:
        places = [place for place in group.places if summaries[place]["resolution"]["whole_seconds"]]
        if group.unit == 1 or not places:
            continue
        found = [next(exchange.read(name_file("read", pieces[place][0], "seconds"))) for place in places]
        seconds, counts = (np.concatenate([table[name] for table in found]) for name in ("second", "count"))
        order = np.argsort(seconds, kind="stable")  # of one second, in the order of the pieces
        before = np.cumsum(counts[order]) - counts[order]
        units = seconds[order] // group.unit
        firsts = np.flatnonzero(np.diff(units, prepend=units[0] - 1))
        sizes = np.diff(firsts, append=len(order))
        offsets, totals = np.empty(len(order), np.int64), np.empty(len(order), np.int64)
        offsets[order] = before - np.repeat(before[firsts], sizes)
        totals[order] = np.repeat(np.add.reduceat(counts[order], firsts), sizes)
        ends = np.cumsum([len(table["second"]) for table in found])
        parts = zip(np.split(offsets, ends[:-1]), np.split(totals, ends[:-1]), strict=True)
        for place, table, (offset, total) in zip(places, found, parts, strict=True):
            tables[place] = {"second": table["second"], "first": table["first"], "offset": offset, "total": total}
    return tables


def spread_times(times: Integers, positions: Integers, offsets: dict[str, Any], unit: int) -> Integers:
    """Return the times of a piece's requests, those at a whole second spread over it as `merge.spread` does."""
    seconds = offsets["second"]
    if not len(seconds):
        return times
    places = np.minimum(np.searchsorted(seconds, times), len(seconds) - 1)
    ranks = offsets["offset"][places] + positions - offsets["first"][places]
    spread: Integers = np.where(
        seconds[places] == times, times - times % unit + ranks * unit // offsets["total"][places], times
    )
    return spread


def _choose_bounds(summaries: Sequence[Summary], start: int, ranges: int) -> tuple[int, ...]:
    """Return times that divide the requests into ranges of about the same number."""
    times = np.concatenate([np.array(summary["times"], np.int64) for summary in summaries])
    weights = np.concatenate([np.full(len(summary["times"]), max(1, summary["requests"])) for summary in summaries])
    order = np.argsort(times)
    shares = np.cumsum(weights[order]) / weights.sum()
    places = np.searchsorted(shares, np.arange(1, ranges) / ranges)
    return tuple((times[order][places] - start).tolist())
