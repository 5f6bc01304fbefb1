"""A sweep as a table, and as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from rich.table import Table

from ratelab.lab.sweep import Swept
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota
from ratelab.report.serialize import quota_object

MAX_DENIED_RATIO = 0.01
"""The share of requests that a quota may deny and still be enough."""


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


def finding(results: Sequence[Swept]) -> str:
    """Say which is the least quota that denies few requests, and what the least of all denies."""
    if not results[0].offered:
        return "There were no requests, so there is nothing to deny."
    made = _by_quota(results)
    least, most = next(iter(made)), next(reversed(made))
    if not any(one.denied for one in results):
        return f"{least} denied nothing{', and neither did any other quota' if len(made) > 1 else ''}."
    enough = least_enough(results)
    if enough is None:
        return f"{'Even ' if len(made) > 1 else ''}{most} denied {_summarize(made[most])}."
    if enough == least:
        return f"{'Even ' if len(made) > 1 else ''}{least} denied no more than {_summarize(made[least])}."
    who = "every algorithm" if len(made[least]) > 1 else results[0].algorithm
    return (
        f"{enough} is the lowest quota tried with which {who} denied at most {100 * MAX_DENIED_RATIO:g} % of requests; "
        f"{least} denied {_summarize(made[least])}."
    )


def least_enough(results: Sequence[Swept]) -> Quota | None:
    """Return the lowest quota with which every algorithm denies few requests, if there is one."""
    made = _by_quota(results).items()
    return next((quota for quota, each in made if max(one.denied_ratio for one in each) <= MAX_DENIED_RATIO), None)


def _by_quota(results: Sequence[Swept]) -> dict[Quota, list[Swept]]:
    """Return each quota's results, the lowest rate and of that the least burst first."""
    made: dict[Quota, list[Swept]] = {}
    for one in sorted(results, key=lambda one: (one.quota.limit / one.quota.period, one.quota.burst)):
        made.setdefault(one.quota, []).append(one)
    return made


def _summarize(results: Sequence[Swept]) -> str:
    """Say what share of requests and clients one quota denied, from the mildest algorithm to the harshest."""
    requests = f"{_between([one.denied_ratio for one in results])} % of requests"
    if results[0].clients < 2:
        return requests
    return f"{requests} and, at least once, {_between([one.clients_denied_ratio for one in results])} % of clients"


def _between(ratios: Sequence[float]) -> str:
    ends = (_percent(ratio) if ratio else "0" for ratio in (min(ratios), max(ratios)))
    return " to ".join(dict.fromkeys(ends))


def _shares(result: Swept) -> str:
    if not result.denied:
        return "0"
    return f"{_percent(result.denied_ratio)}/{_percent(result.clients_denied_ratio)}"


def _percent(ratio: float) -> str:
    """Write a share with three digits, and never as nothing or all if it is not."""
    return "100" if ratio == 1 else f"{min(99.9, max(0.01, 100 * ratio)):.3g}"
