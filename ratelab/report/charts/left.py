"""Left chart: the quota that one client has left in each policy, over time."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.levels import counts_remaining, sample_levels
from ratelab.lab.policies.figures import JointResult, PolicyResult
from ratelab.lab.spill import Integers
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet, measure_heading, measure_scale
from ratelab.report.charts.policy_view import PolicyView, name_way
from ratelab.report.charts.series import downsample, split_time
from ratelab.report.charts.style import DASHED
from ratelab.report.charts.view import (
    CURVE_PARTS,
    STRIP_GAP_IN,
    STRIP_HEIGHT_IN,
    STRIP_NAME_IN,
    compute_axis_height,
)
from ratelab.report.numbers import format_percent, join_names
from ratelab.report.policy_tables import name_policy

MAX_REPLAYED = 200_000
"""Requests of a key that are decided again to compute its levels; the curve ends with the last of them."""


def compose_title(view: PolicyView) -> str:
    """State how much of the time the client had nothing left, by way to enforce the policies."""
    if not any(_list_rows(view, result) for result in view.policies.results):
        return "No policy charges costs at once, so its remaining quota is not shown."
    parts = []
    for result in view.policies.results:
        shares = [(row.label, _sample(view, row)[2]) for row in _list_rows(view, result)]
        exhausted = [f"{label} {format_percent(share)}" for label, share in shares if share >= 0.0005]
        if exhausted:
            way = f" ({name_way(result, view.policies)})" if len(view.policies.results) > 1 else ""
            parts.append(f"{join_names(exhausted)}{way}")
    if not parts:
        return f"{view.client_name} nearly always had something left of {_name_drawn(view)}."
    return f"The part of the time in which {view.client_name} had nothing left: {'; '.join(parts)}."


def compute_height(view: PolicyView, width: float) -> float:
    """Return the height of the chart in inches."""
    count = sum(len(_list_rows(view, result)) for result in view.policies.results)
    strips = max(0, count * (STRIP_HEIGHT_IN + STRIP_GAP_IN) - STRIP_GAP_IN)
    return measure_heading(_compose_heading(view), width) + strips + compute_axis_height(view.whole)


def paint(sheet: Sheet, box: Box, view: PolicyView) -> None:
    """Draw a strip for each way to enforce and each policy."""
    rows = [(result, row) for result in view.policies.results for row in _list_rows(view, result)]
    rest = sheet.write_heading(box, _compose_heading(view)).inset(bottom=compute_axis_height(view.whole))
    if not rows:
        return
    margin = measure_scale([_get_burst(row) for _, row in rows])
    for (result, row), strip in zip(rows, rest.split_rows(len(rows), STRIP_GAP_IN), strict=True):
        burst, color, middle = _get_burst(row), view.colors[row.label], strip.top + LABEL_PEN.line / 2
        times, left, share = _sample(view, row)
        way = f"{name_way(result, view.policies)}: " if len(view.policies.results) > 1 else ""
        note = f"empty {format_percent(share)} of the time" if share >= 0.0005 else ""
        sheet.write(strip.right, middle, note, align="right", width=strip.width)
        name_width = strip.width - LABEL_PEN.measure(note) - 0.1
        sheet.write(strip.left, middle, f"{way}{name_policy(row)}", LABEL_PEN, color, width=name_width)
        axes = sheet.add_axes(strip.inset(left=margin, top=STRIP_NAME_IN), view.whole.length, 1.08 * burst)
        sheet.set_time_ticks(axes, view.whole, labeled=strip.bottom > rest.bottom - 0.01)
        sheet.set_count_ticks(axes, [0, burst])
        places, values = downsample(times, left, split_time(view.whole.end, CURVE_PARTS, view.whole.begin))
        axes.fill_between(view.whole.scale(places), values, color=color, alpha=0.3, linewidth=0)
        axes.plot(view.whole.scale(places), values, color=color, linewidth=1.2)
        axes.axhline(burst, color=sheet.theme.ink, linewidth=1, linestyle=DASHED)


def _list_rows(view: PolicyView, result: JointResult) -> list[PolicyResult]:
    """Return the policies that apply to a request of the client, and charge it at once."""
    return [
        row
        for row in result.policies
        if row.policy is not None and row.policy.asked.settlement is None and _find_key(view, row) is not None
    ]


def _get_burst(row: PolicyResult) -> int:
    assert row.policy is not None  # noqa: S101  (`_list_rows` leaves out the whole)
    return row.policy.asked.policy.quota.burst


def _find_key(view: PolicyView, row: PolicyResult) -> int | None:
    """Return the key that a policy charges for the client's first request; None without one."""
    assert row.policy is not None  # noqa: S101
    asked = row.policy.asked
    clients = asked.select(view.traffic.clients == view.most_denied)
    places = np.flatnonzero(clients)
    return int(asked.traffic.request_keys[places[0]]) if len(places) else None


def _sample(view: PolicyView, row: PolicyResult) -> tuple[Integers, NDArray[np.float64], float]:
    """Return times, the quota left at each, and the part of the time in which nothing was left.

    A request that only other policies denied is a hit of cost 0.
    """
    assert row.policy is not None  # noqa: S101
    asked, traffic = row.policy.asked, row.policy.asked.traffic
    places = np.flatnonzero(traffic.request_keys == _find_key(view, row))[:MAX_REPLAYED]
    charges = np.where(row.policy.charged | ~row.policy.decisions["allowed"], traffic.costs, 0)
    moments = traffic.origin + split_time(view.whole.end, 3 * CURVE_PARTS, view.whole.begin)
    algorithm, burst = asked.policy.algorithm, asked.policy.quota.burst
    levels = sample_levels(algorithm, traffic.clock_times[places], charges[places], moments)
    left = levels.level if counts_remaining(asked.policy) else burst - levels.level
    return levels.times - traffic.origin, np.asarray(np.clip(left, 0, burst), np.float64), levels.exhausted_ratio()


def _name_drawn(view: PolicyView) -> str:
    """Name the policies that are drawn: those whose costs are settled later are not."""
    settled = any(part.settlement is not None for part in view.policies.parts)
    return "every policy that charges at once" if settled else "every policy"


def _compose_heading(view: PolicyView) -> str:
    owner = view.client_name if len(view.traffic.names) > 1 else "the client"
    return f"The quota that {owner} has left in {_name_drawn(view)}. The dashed lines are the full bursts."
