"""HTML page of a tuning: its report, and sliders for the rate and the burst."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from ratelab.lab.decisions import Progress
from ratelab.lab.tune import Analysis
from ratelab.lab.tune.curves import Grid, choose_unit, measure_curves, measure_grid
from ratelab.lab.tune.outliers import MAX_OUTLIERS
from ratelab.report.charts import draw_tuning
from ratelab.report.html.page import Provenance, build_picture, render_template
from ratelab.report.numbers import format_percent, format_quota, format_rate_in
from ratelab.report.tables import Cell, Table
from ratelab.report.tune import WEEKDAYS, describe_tuned_traffic, describe_tuning
from ratelab.report.tune_tables import build_needs_table, build_outliers_table

MAX_CLIENTS_OF_PAGE = 200
"""Clients that the page can name when a slider moves: those with the largest needs at the recommended rate."""


def render_tuning(
    analysis: Analysis,
    title: str,
    notes: Sequence[str],
    warnings: Sequence[str],
    provenance: Provenance,
    progress: Progress = lambda _: None,
) -> str:
    """Return the page of a tuning; `notes` are those on the source."""
    tuning = analysis.tuning
    heading, *findings = chain(*describe_tuning(analysis, warnings))
    return render_template(
        "tune.html",
        provenance,
        "tune.js",
        title=format_quota(tuning.recommended.policy.quota),
        subject=title,
        heading=heading,
        findings=findings,
        inputs=[describe_tuned_traffic(tuning), *notes],
        picture=build_picture(
            "Burst by rate", lambda theme, layout: draw_tuning(tuning, theme, layout=layout, bare=True)
        ),
        needs=build_needs_table(tuning),
        outliers=build_outliers_table(analysis, MAX_OUTLIERS),
        hours=build_hours_table(analysis),
        data=_serialize_grid(analysis, measure_grid(tuning, progress)),
    )


def build_hours_table(analysis: Analysis) -> Table | None:
    """Return the largest need that the recommended burst covers, by hour and day; None without hours."""
    if not analysis.variation.hours:
        return None
    needs = {(row.weekday, row.hour): row.ordinary for row in analysis.variation.hours}
    return Table(
        "Largest need below the recommended burst, by hour of the week in UTC",
        ["hour", *(weekday[:3] for weekday in WEEKDAYS)],
        [
            (f"{hour}:00", [Cell(f"{needs.get((weekday, hour), 0) or '-'}") for weekday in range(7)])
            for hour in range(24)
        ],
    )


def _serialize_grid(analysis: Analysis, grid: Grid) -> dict[str, Any]:
    """Return the values that the script of the page shows."""
    tuning, best = analysis.tuning, analysis.tuning.recommended.policy.quota
    needs = np.stack([tuning.frontier.find_needs(rate) for rate in grid.rates])
    requests = tuning.traffic.key_requests
    place = grid.rates.index(best)
    largest = np.argsort(-needs[place], kind="stable")[:MAX_CLIENTS_OF_PAGE]
    curves = measure_curves(tuning, grid.rates)
    return {
        "offered": tuning.offered,
        "clients": tuning.clients,
        "rates": [format_rate_in(rate, choose_unit(best)) for rate in grid.rates],
        "bursts": list(grid.bursts),
        "start": [place, grid.bursts.index(best.burst)],
        "clientsDenied": grid.clients_denied.tolist(),
        "requestsDenied": grid.requests_denied.tolist(),
        "curves": [
            {"name": format_percent(float(share)) if share else "none", "bursts": column}
            for share, column in curves.bursts.items()
        ],
        "listed": [
            {
                "name": tuning.traffic.name_key(key),
                "requests": int(requests[key]),
                "needs": needs[:, key].tolist(),
            }
            for key in largest.tolist()
        ],
    }
