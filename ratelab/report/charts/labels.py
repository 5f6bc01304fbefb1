"""Labels beside the ends of lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ratelab.report.charts.box import Box
from ratelab.report.charts.canvas import LABEL, Sheet


class Label(NamedTuple):
    """What a line is called."""

    value: float
    """Where it belongs, on the scale of the axes."""
    text: str
    colour: str


def label(sheet: Sheet, box: Box, labels: Sequence[Label], top: float) -> None:
    """Write the labels beside the ends of their lines, as near to them as they fit one above the other."""
    gap, lowest = LABEL.line, box.bottom
    ordered = sorted(labels, key=lambda label: label.value)
    places = [box.bottom - min(label.value, top) / top * box.height for label in ordered]
    for index, place in enumerate(places):  # from the bottom up, each at least a line above the last
        lowest = min(place, lowest - gap if index else lowest)
        places[index] = lowest
    highest = box.top
    for index in reversed(range(len(places))):  # and down again from the top
        places[index] = highest = max(places[index], highest)
        highest += gap
    for one, place in zip(ordered, places, strict=True):
        arrow = " ↑" if one.value > top else ""
        sheet.text(box.left + 0.1, place, f"{one.text}{arrow}", LABEL, one.colour, width=box.width - 0.1)
