"""A run as one line of text per algorithm: when each request was admitted, delayed or denied."""

from __future__ import annotations

import numpy as np
from rich.console import Group, RenderableType
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Decisions
from ratelab.lab.spill import Integers
from ratelab.quota import about

NOTHING, ADMITTED, DELAYED, SOME_DENIED, DENIED = ".", "|", "~", "+", "x"
_STYLES = {NOTHING: "dim", ADMITTED: "green", DELAYED: "yellow", SOME_DENIED: "magenta", DENIED: "red"}

LEGEND = (
    f"{ADMITTED} admitted  {DELAYED} some delayed  {SOME_DENIED} some denied  {DENIED} all denied  {NOTHING} no request"
)


def strips(comparison: Comparison, width: int = 80) -> RenderableType:
    """Return a strip for each algorithm over a common time axis, `width` columns wide in all."""
    traffic = comparison.traffic.whole()
    margin = max(map(len, comparison.decisions)) + 1
    cells = max(20, width - margin)
    places = traffic.times.astype(np.float64) / traffic.duration * cells
    lines = [
        Text(f"{name:<{margin}}").append_text(strip(places.astype(np.int64).clip(0, cells - 1), decisions, cells))
        for name, decisions in comparison.decisions.items()
    ]
    end = about(traffic.duration)
    axis = Text(f"{'':<{margin}}0s{end:>{cells - 2}}", style="dim")
    return Group(*lines, axis, Text(LEGEND, style="dim"))


def strip(places: Integers, decisions: Decisions, cells: int) -> Text:
    """Return a letter for each of so many cells, of which `places` names each request's."""
    offered = np.bincount(places, minlength=cells)
    denied = np.bincount(places[~decisions["allowed"]], minlength=cells)
    delayed = np.bincount(places[decisions["delay_ns"] > 0], minlength=cells)
    marks = np.select(
        [offered == 0, denied == offered, denied > 0, delayed > 0],
        [NOTHING, DENIED, SOME_DENIED, DELAYED],
        ADMITTED,
    )
    line = Text()
    for mark in marks.tolist():
        line.append(mark, style=_STYLES[mark])
    return line
