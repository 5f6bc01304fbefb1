"""Playback of a comparison: frames for a terminal, and one line per request for any other output."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from ratelab.algorithms import Policy
from ratelab.algorithms.plugins import attribute_errors
from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Outcome
from ratelab.lab.levels import create_level_reader, describe_level
from ratelab.quota import UNITS
from ratelab.report.charts.time_axis import TimeAxis
from ratelab.report.charts.view import ComparisonView
from ratelab.report.numbers import format_seconds
from ratelab.report.timeline import render_legend, render_letters


class Snapshot(NamedTuple):
    """The state of an algorithm at one time: the numbers of requests up to then, and a level."""

    immediate: int
    """Requests admitted without a delay."""
    delayed: int
    denied: int
    level: float
    """The level of the observed key, which the algorithm's traits declare."""


class Playback:
    """A finished comparison with a moving time, which starts at 0.

    The comparison must have kept its decisions. `observed` selects the requests of the key whose level is shown.
    """

    def __init__(self, comparison: Comparison, observed: NDArray[np.bool_] | slice) -> None:
        self.comparison, self.now = comparison, 0
        self._traffic = traffic = comparison.traffic
        self._times = traffic.times[observed].tolist()
        self._costs = traffic.costs[observed].tolist()
        self._stepped = 0
        self._states = {outcome.policy.name: outcome.policy.start(traffic.origin) for outcome in comparison.outcomes}
        self._totals = {
            outcome.policy.name: [
                np.concatenate([[0], np.cumsum(selected)])
                for selected in (
                    outcome.rows["allowed"] & (outcome.rows["delay_ns"] == 0),
                    outcome.rows["delay_ns"] > 0,
                    ~outcome.rows["allowed"],
                )
            ]
            for outcome in comparison.outcomes
        }

    def advance(self, now: int) -> None:
        """Move to `now`, in nanoseconds after the start of the traffic; never move back."""
        self.now = max(self.now, now)
        stop = bisect_right(self._times, self.now, self._stepped)
        for policy in (outcome.policy for outcome in self.comparison.outcomes):
            with attribute_errors(policy.algorithm):
                for at, cost in zip(self._times[self._stepped : stop], self._costs[self._stepped : stop], strict=True):
                    policy.step(self._states[policy.name], at + self._traffic.origin, cost)
        self._stepped = stop

    def snapshot(self, policy: Policy) -> Snapshot:
        """Return the state of a policy now; a step of cost 0 brings the level up to date."""
        arrived = int(np.searchsorted(self._traffic.times, self.now, side="right"))
        immediate, delayed, denied = (int(total[arrived]) for total in self._totals[policy.name])
        state, clock = self._states[policy.name], self.now + self._traffic.origin
        with attribute_errors(policy.algorithm):
            remaining = policy.step(state, clock, 0)[1]
            return Snapshot(immediate, delayed, denied, create_level_reader(policy.algorithm)(state, clock, remaining))

    def next_request(self) -> int | None:
        """Return the time of the next request, or None after the last one."""
        times = self._traffic.times
        index = int(np.searchsorted(times, self.now, side="right"))
        return int(times[index]) if index < len(times) else None


def render_status(now: int, axis: TimeAxis, speed: float, paused: bool) -> Text:
    """Render the time, the speed and the keys."""
    unit = axis.unit
    at = f"{now / UNITS[unit]:7.2f} of {axis.end / UNITS[unit]:.4g} {unit}"
    state = "paused" if paused else f"at {np.format_float_positional(speed, 3, fractional=False, trim='-')}x"
    keys = f"space {'resume' if paused else 'pause'}  s step  + - speed  q quit"
    return Text.assemble((at, "bold"), f"  {state:8}  ", (keys, "dim"))


def render_frame(playback: Playback, view: ComparisonView, width: int, ascii_only: bool = False) -> RenderableType:
    """Render the level, the latest decisions and the counts of each algorithm, in `width` columns."""
    rows = [_render_outcome(playback, view, outcome, width, ascii_only) for outcome in view.comparison.outcomes]
    client = f" of {view.focus_name}" if view.focus_name else ""
    heading = Text(
        f"level{client}, and the requests of the last {format_seconds(_shown_span(view) / 1e9)}", style="dim"
    )
    return Group(heading, *rows, Text(), render_legend(width))


BAR_COLUMNS = 24
"""Columns of a bar from 0 to the burst."""

PARTIAL_BLOCKS = " ▏▎▍▌▋▊▉"
"""Characters by the number of eighths that are filled."""


def _render_outcome(
    playback: Playback, view: ComparisonView, outcome: Outcome, width: int, ascii_only: bool
) -> RenderableType:
    policy = outcome.policy
    snapshot, burst = playback.snapshot(policy), policy.quota.burst
    color = view.colors[policy.name]
    name = Text(policy.name[:17].ljust(17), style=f"bold {color}")
    bar = Text(format_bar(snapshot.level / burst, ascii_only), style=color)
    level = Text(f" {snapshot.level:,.1f} of {burst:,} {describe_level(policy.algorithm)}")
    first = Text.assemble(name, "[", bar, "]", level)
    first.truncate(width)
    counts = f" {snapshot.immediate:>8,} immediate {snapshot.delayed:>7,} delayed {snapshot.denied:>8,} denied"
    second = Text("  ").append_text(_render_recent(playback, view, outcome, width - len(counts) - 3)).append(counts)
    return Group(Text(), first, second)


def format_bar(share: float, ascii_only: bool) -> str:
    """Format a bar that is filled to a share of its columns."""
    eighths = round(max(0.0, min(1.0, share)) * BAR_COLUMNS * 8)
    if ascii_only:
        return ("#" * round(eighths / 8)).ljust(BAR_COLUMNS)
    return ("█" * (eighths // 8) + PARTIAL_BLOCKS[eighths % 8] * (eighths % 8 > 0)).ljust(BAR_COLUMNS)


def _shown_span(view: ComparisonView) -> int:
    """Return how far back decisions are shown, in nanoseconds: two windows, or a third of the traffic if longer."""
    return max(1, min(view.end, max(2 * view.comparison.quota.window, view.end // 3)))


def _render_recent(playback: Playback, view: ComparisonView, outcome: Outcome, cells: int) -> Text:
    """Render the latest decisions; cells begin at multiples of their length, so that their marks do not flicker."""
    times, length = view.traffic.times, max(1, _shown_span(view) // max(1, cells))
    last = playback.now // length
    begin, stop = np.searchsorted(times, [(last - cells + 1) * length, playback.now + 1])
    places = times[begin:stop] // length - (last - cells + 1)
    return render_letters(places, outcome.rows[begin:stop], cells)


def format_requests(view: ComparisonView) -> Iterator[str]:
    """Yield a header and a line for each request: its time, its client and the decision of each algorithm."""
    outcomes = view.comparison.outcomes
    traffic, names = view.traffic, [outcome.policy.name for outcome in outcomes]
    columns = [outcome.rows[["allowed", "delay_ns"]].tolist() for outcome in outcomes]
    widths = [
        max(len(name), *(len(_format_decision(*decision)) for decision in {*column, (True, 0)}))
        for name, column in zip(names, columns, strict=True)
    ]
    client_width = min(20, max(6, *map(len, traffic.names)))
    yield _format_line("time", "client".ljust(client_width), names, widths)
    for at, client, *decisions in zip(traffic.times.tolist(), traffic.clients.tolist(), *columns, strict=True):
        cells = [_format_decision(*decision) for decision in decisions]
        yield _format_line(f"{at / 1e9:.3f}s", traffic.names[client][:client_width].ljust(client_width), cells, widths)


def _format_decision(allowed: bool, delay_ns: int) -> str:
    if delay_ns:
        return f"in {format_seconds(delay_ns / 1e9)}"
    return "admitted" if allowed else "denied"


def _format_line(at: str, client: str, cells: Sequence[str], widths: Sequence[int]) -> str:
    return f"{at:>9}  {client}  {'  '.join(map(str.ljust, cells, widths))}".rstrip()
