"""Timelines in a terminal: a letter for the decisions of each moment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from rich.cells import cell_len
from rich.console import Group, RenderableType
from rich.text import Text

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Columns, Decisions
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.quota import about
from ratelab.report.numbers import wrap_text

NO_REQUEST, ADMITTED, DELAYED, SOME_DENIED, DENIED = ".", "|", "~", "+", "x"
_LETTER_STYLES = {NO_REQUEST: "dim", ADMITTED: "green", DELAYED: "yellow", SOME_DENIED: "magenta", DENIED: "red"}

_MEANINGS = {
    ADMITTED: "admitted",
    DELAYED: "some delayed",
    SOME_DENIED: "some denied",
    DENIED: "all denied",
    NO_REQUEST: "no request",
}


def render_timeline(comparison: Comparison, width: int) -> RenderableType:
    """Render a line for each algorithm over a common time axis, `width` columns wide in all."""
    rows = [TimelineRow(outcome.policy.name, outcome.traffic, outcome.decisions) for outcome in comparison.outcomes]
    return render_lines(rows, width)


class TimelineRow(NamedTuple):
    """A line of a timeline."""

    name: str
    traffic: Traffic
    """The requests, whose duration is that of the other lines."""
    decisions: Columns


def render_lines(rows: Sequence[TimelineRow], width: int) -> RenderableType:
    """Render a line of letters for each row over a common time axis."""
    margin = max(cell_len(row.name) for row in rows) + 1
    length = max(20, width - margin)
    lines = []
    for name, traffic, decisions in rows:
        places = (traffic.times.astype(np.float64) / traffic.duration * length).astype(np.int64).clip(0, length - 1)
        lines.append(Text(f"{name:<{margin}}").append_text(render_letters(places, decisions, length)))
    axis = Text(f"{'':<{margin}}0 s{about(rows[0].traffic.duration):>{length - 3}}", style="dim")
    return Group(*lines, axis, render_legend(width))


def render_legend(width: int, meanings: Mapping[str, str] = _MEANINGS) -> Text:
    """Render the meanings of the letters, on lines that do not end within one."""
    entries = [f"{letter} {meaning}".replace(" ", "\N{NO-BREAK SPACE}") for letter, meaning in meanings.items()]
    return Text("\n".join(wrap_text("  ".join(entries), width)), style="dim")


def render_letters(places: Integers, decisions: Columns | Decisions, length: int) -> Text:
    """Render `length` letters for the decisions of requests, each of which belongs to one of these places."""
    offered = np.bincount(places, minlength=length)
    denied = np.bincount(places[~decisions["allowed"]], minlength=length)
    delayed = np.bincount(places[decisions["delay_ns"] > 0], minlength=length)
    letters = np.select(
        [offered == 0, denied == offered, denied > 0, delayed > 0],
        [NO_REQUEST, DENIED, SOME_DENIED, DELAYED],
        ADMITTED,
    )
    line = Text()
    for letter in letters.tolist():
        line.append(letter, style=_LETTER_STYLES[letter])
    return line
