"""A sweep as a table, and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from ratelab.lab.sweep import Swept
from ratelab.lab.traffic import Traffic
from ratelab.report.rows import quota_object


def swept_rows(results: Sequence[Swept]) -> list[dict[str, Any]]:
    """Return one row for each result, the quota's parts among its figures."""
    rows = []
    for result in results:
        figures = {name: value for name, value in asdict(result).items() if name not in ("algorithm", "quota")}
        rows.append({"algorithm": result.algorithm, **quota_object(result.quota), **figures})
    return rows


def swept_object(traffic: Traffic, results: Sequence[Swept], source: dict[str, Any]) -> dict[str, Any]:
    """Return a sweep as `--json` prints it; `source` says what the traffic came from."""
    told = {"offered": len(traffic), "duration": traffic.duration / 1e9}
    return {"version": 1, **source, **told, "results": swept_rows(results)}


def swept_table(results: Sequence[Swept]) -> Table:
    """Return a row for each quota and a column for each algorithm: the percentages of requests and clients denied."""
    table = Table(box=None, padding=(0, 1, 0, 0), pad_edge=False, header_style="bold")
    table.add_column("rate", no_wrap=True)
    table.add_column("burst", justify="right", no_wrap=True)
    algorithms = list(dict.fromkeys(result.algorithm for result in results))
    for name in algorithms:
        table.add_column(name.replace("-", "-\n"), justify="right", min_width=9)
    quotas = dict.fromkeys(result.quota for result in results)
    found = {(result.quota, result.algorithm): _shares(result) for result in results}
    for quota in quotas:
        table.add_row(quota.rate, f"{quota.burst:,}", *(found[quota, name] for name in algorithms))
    return table


def _shares(result: Swept) -> str:
    if not result.denied:
        return "0"
    return f"{_percent(result.denied_ratio)}/{_percent(result.clients_denied_ratio)}"


def _percent(ratio: float) -> str:
    """Write a share with three digits, and never as nothing or all if it is not."""
    return "100" if ratio == 1 else f"{min(99.9, max(0.01, 100 * ratio)):.3g}"
