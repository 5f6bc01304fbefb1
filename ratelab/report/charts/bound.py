"""Bound chart: the requests admitted over time, and which policy bound those that were denied."""

from __future__ import annotations

import numpy as np

from ratelab.lab.policies.figures import JointResult
from ratelab.lab.spill import Integers
from ratelab.quota import about
from ratelab.report.charts.canvas import Box, Sheet, round_down
from ratelab.report.charts.policy_view import PolicyView, list_entries, measure_legend, write_legend
from ratelab.report.charts.series import count_in_parts
from ratelab.report.charts.timeline import MIN_TICK_PART
from ratelab.report.charts.view import add_strips, compute_strips_height
from ratelab.report.policies import summarize_policies

STRIP_HEIGHT_IN = 1.25


def compose_title(view: PolicyView) -> str:
    """State which policies bound the denied requests, or how much more other ways to enforce them deny."""
    return " ".join(summarize_policies(view.policies)[: max(1, len(view.policies.results) - 1)])


def compute_height(view: PolicyView, width: float) -> float:
    """Return the height of the chart in inches."""
    legend = measure_legend([name for name, _ in _list_entries(view, "")], width)
    return legend + compute_strips_height(len(view.results), view.whole, _compose_heading(view), width, STRIP_HEIGHT_IN)


def paint(sheet: Sheet, box: Box, view: PolicyView) -> None:
    """Draw a strip for each way to enforce: admitted requests upwards, denied ones downwards by the binding policy."""
    box = write_legend(sheet, box, _list_entries(view, sheet.theme.quiet))
    edges = view.whole.split()
    stacks = [_count(result, view, edges) for result in view.policies.results]
    up = max(int(admitted.max(initial=0)) for admitted, _ in stacks)
    down = max(int(np.sum(denied, axis=0).max(initial=0)) for _, denied in stacks)
    ends = (-round_down(down), round_down(max(1, up)))
    counts = [0, *(count for count in ends if abs(count) > MIN_TICK_PART * (up + down))]
    limits = (-1.08 * down, 1.08 * max(1, up))
    notes = [f"{result.admitted:,} admitted, {result.denied:,} denied" for result in view.results]
    strips = add_strips(sheet, box, view, view.whole, _compose_heading(view), notes, counts, limits)
    places = view.whole.scale(edges)
    for (_, axes), result, (admitted, denied) in zip(strips, view.policies.results, stacks, strict=True):
        sheet.fill_steps(axes, places, admitted, sheet.theme.quiet)
        floor = np.zeros(len(admitted), np.int64)
        for (_, row), count in zip(view.list_enforcing(result), denied, strict=True):
            sheet.fill_steps(axes, places, floor - count, view.colors[row.label], floor)
            floor = floor - count
        axes.axhline(0, color=sheet.theme.quiet, linewidth=0.6)
        axes.spines["bottom"].set_visible(False)


def _list_entries(view: PolicyView, quiet: str) -> list[tuple[str, str]]:
    return list_entries(view, (("admitted", quiet),))


def _count(result: JointResult, view: PolicyView, edges: Integers) -> tuple[Integers, list[Integers]]:
    """Return the requests admitted in each part of the time, and those that each policy bound."""
    times, outcome = view.traffic.times, result.outcome
    bound = [count_in_parts(outcome.bound == number, times, edges) for number, _ in view.list_enforcing(result)]
    return count_in_parts(outcome.decisions["allowed"], times, edges), bound


def _compose_heading(view: PolicyView) -> str:
    return (
        f"Requests in parts of {about(view.whole.part_length)}: admitted ones point up, denied ones down, in the color "
        "of the policy that bound them, which is the one with the longest wait."
    )
