"""A comparison while it plays: a picture in letters for a terminal, and lines for whoever has none."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.console import Group, RenderableType
from rich.text import Text

from ratelab.algorithms.plugins import attribute_errors
from ratelab.lab.comparison import Comparison
from ratelab.lab.levels import gauge
from ratelab.limiter import Algorithm
from ratelab.quota import UNITS
from ratelab.report.charts.view import ComparisonView
from ratelab.report.summary import seconds
from ratelab.report.tables import LEGEND, strip


class Standing(NamedTuple):
    """What an algorithm has done up to a moment; counts are of requests."""

    at_once: int
    delayed: int
    denied: int
    level: float
    """The level of the key that is looked at, as `Algorithm.level` gives it."""


class Playback:
    """A finished comparison, shown once more as its time goes by; it must have kept its decisions."""

    def __init__(self, comparison: Comparison, looked_at: NDArray[np.bool_] | slice) -> None:
        """Begin at 0; `looked_at` chooses the requests of the one key whose level is told."""
        self.comparison, self.now = comparison, 0
        self._traffic = traffic = comparison.traffic.whole()
        self._times = traffic.times[looked_at].tolist()
        self._costs = traffic.costs[looked_at].tolist()
        self._done = 0
        self._states = {one.name: one.start(traffic.origin) for one in comparison.algorithms}
        self._totals = {
            name: [
                np.concatenate([[0], np.cumsum(chosen)])
                for chosen in (
                    made["allowed"] & (made["delay_ns"] == 0),
                    made["delay_ns"] > 0,
                    ~made["allowed"],
                )
            ]
            for name, made in comparison.decisions.items()
        }

    def advance(self, now: int) -> None:
        """Let time go by until `now`, in nanoseconds since the traffic began; it never goes back."""
        self.now = max(self.now, now)
        stop = bisect_right(self._times, self.now, self._done)
        for algorithm in self.comparison.algorithms:
            with attribute_errors(algorithm):
                for at, cost in zip(self._times[self._done : stop], self._costs[self._done : stop], strict=True):
                    algorithm.step(self._states[algorithm.name], at + self._traffic.origin, cost)
        self._done = stop

    def standing(self, algorithm: Algorithm) -> Standing:
        """Return what an algorithm has done by now, and its level; to look changes nothing (its cost is 0)."""
        arrived = int(np.searchsorted(self._traffic.times, self.now, side="right"))
        counts = [int(total[arrived]) for total in self._totals[algorithm.name]]
        state, clock = self._states[algorithm.name], self.now + self._traffic.origin
        with attribute_errors(algorithm):
            left = algorithm.step(state, clock, 0)[1]
            return Standing(counts[0], counts[1], counts[2], gauge(algorithm)(state, clock, left))

    def following(self) -> int | None:
        """Return when the next request comes, or None if there is none."""
        times = self._traffic.times
        place = int(np.searchsorted(times, self.now, side="right"))
        return int(times[place]) if place < len(times) else None


BAR = 24
"""Letters for a level from 0 to the burst."""
SHADES = " ▏▎▍▌▋▊▉"
"""A letter filled by so many eighths."""


def frame(playback: Playback, view: ComparisonView, width: int, plain: bool = False) -> RenderableType:
    """Return the state of every algorithm: its level, what it has just decided, and what it came to.

    `width` is that of the terminal; a `plain` one has no letters beyond ASCII.
    """
    rows = [_row(playback, view, algorithm, width, plain) for algorithm in view.comparison.algorithms]
    whose = f" of {view.focus_name}" if view.focus_name else ""
    heading = Text(f"level{whose}, and the requests of the last {seconds(_span(view) / 1e9)}", style="dim")
    return Group(heading, *rows, Text(), Text(LEGEND, style="dim"))


def _row(playback: Playback, view: ComparisonView, algorithm: Algorithm, width: int, plain: bool) -> RenderableType:
    standing, burst = playback.standing(algorithm), view.comparison.quota.burst
    name = Text(algorithm.name[:17].ljust(17), style=f"bold {view.colours[algorithm.name]}")
    bar = Text(_bar(standing.level / burst, plain), style=view.colours[algorithm.name])
    shows = getattr(algorithm, "shows", "left to give")
    level = Text(f" {standing.level:,.1f} of {burst:,} {shows}")
    first = Text.assemble(name, "[", bar, "]", level)
    first.truncate(width)
    tally = f" {standing.at_once:>8,} at once {standing.delayed:>7,} later {standing.denied:>8,} denied"
    second = Text("  ").append_text(_recent(playback, view, algorithm, width - len(tally) - 3)).append(tally)
    return Group(Text(), first, second)


def _bar(share: float, plain: bool) -> str:
    eighths = round(max(0.0, min(1.0, share)) * BAR * 8)
    if plain:
        return ("#" * round(eighths / 8)).ljust(BAR)
    return ("█" * (eighths // 8) + SHADES[eighths % 8] * (eighths % 8 > 0)).ljust(BAR)


def _span(view: ComparisonView) -> int:
    """Return how much of the past is shown: two windows, or a third of all if that is more."""
    return max(1, min(view.end, max(2 * view.comparison.quota.window, view.end // 3)))


def _recent(playback: Playback, view: ComparisonView, algorithm: Algorithm, cells: int) -> Text:
    """Return the last requests by cell; a cell begins at a multiple of its length, so that letters do not flicker."""
    times, length = view.traffic.times, max(1, _span(view) // max(1, cells))
    last = playback.now // length
    begin, stop = np.searchsorted(times, [(last - cells + 1) * length, playback.now + 1])
    places = times[begin:stop] // length - (last - cells + 1)
    return strip(places, view.comparison.decisions[algorithm.name][begin:stop], cells)


def lines(view: ComparisonView) -> Iterator[str]:
    """Yield a line for each request: when it came, of whom, and what each algorithm made of it."""
    traffic, names = view.traffic, list(view.comparison.decisions)
    widths = [max(len(name), 8) for name in names]
    client = min(20, max(6, *map(len, traffic.names)))
    yield _line("time", "client".ljust(client), names, widths)
    columns = [made[["allowed", "delay_ns"]].tolist() for made in view.comparison.decisions.values()]
    for at, who, *made in zip(traffic.times.tolist(), traffic.clients.tolist(), *columns, strict=True):
        told = [f"in {seconds(delay / 1e9)}" if delay else "admitted" if ok else "denied" for ok, delay in made]
        yield _line(f"{at / 1e9:.3f}s", traffic.names[who][:client].ljust(client), told, widths)


def _line(at: str, who: str, told: list[str], widths: list[int]) -> str:
    return f"{at:>9}  {who}  {'  '.join(map(str.ljust, told, widths))}".rstrip()


def status(playback: Playback, view: ComparisonView, speed: float, paused: bool) -> Text:
    """Say where the playback stands, and which keys there are."""
    scale = UNITS[view.unit]
    at = f"{playback.now / scale:7.2f} of {view.end / scale:.4g} {view.unit}"
    state = "paused" if paused else f"at {np.format_float_positional(speed, 3, fractional=False, trim='-')}x"
    keys = f"space {'go on' if paused else 'pause'}  s step  + - speed  q quit"
    return Text.assemble((at, "bold"), f"  {state:8}  ", (keys, "dim"))
