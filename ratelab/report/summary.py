"""Comparisons at one quota: the traffic, the quota and the findings as sentences, the figures as tables, and runs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ratelab.lab import CHARTS
from ratelab.lab.accuracy import Accuracy
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Figure, Result, list_figures
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota, about
from ratelab.report import serialize
from ratelab.report.numbers import (
    format_moment,
    format_part,
    format_quota,
    format_seconds,
    format_share,
    group_by_value,
    is_dated,
    join_names,
    pluralize,
)
from ratelab.report.runs import BaseRun
from ratelab.report.tables import SIGNS, Cell, Table, build_column, build_count, make_rows, select_columns
from ratelab.report.timeline import render_timeline

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ratelab.lab.comparison import Comparison


def describe_run(traffic: Traffic, quota: Quota) -> str:
    """Return two lines: the requests and clients of the traffic, and the quota."""
    owner = "key" if _count_keys(traffic) < len(traffic.names) else "client"
    granted = f"{format_quota(quota)} (window {about(quota.window)})"
    return f"{describe_traffic(traffic)}\nquota for each {owner}: {granted}"


def describe_traffic(traffic: Traffic) -> str:
    """Return the number of requests and clients, and the duration: `30 requests from 1 client in 10 s`."""
    keys = _count_keys(traffic)
    shared = f" sharing {pluralize(keys, 'key')}" if keys < len(traffic.names) else ""
    clients = f"{pluralize(len(traffic.names), 'client')}{shared}"
    return f"{pluralize(len(traffic), 'request')} from {clients} in {about(traffic.duration)}"


def describe_assumption(comparison: Comparison) -> list[str]:
    """Describe what the comparison assumes about denied clients; nothing if none is denied."""
    if not any(result.denied for result in comparison.results):
        return []
    return ["clients in the lab do not react to a denial: a denied request is not sent again"]


def _count_keys(traffic: Traffic) -> int:
    return len(np.unique(traffic.keys))


def summarize(comparison: Comparison, many_clients: bool = False) -> list[str]:
    """Return the findings of a comparison: how well the quota was kept, and what that cost the clients."""
    if not len(comparison.traffic):
        return ["There were no requests, so there is nothing to compare."]
    sentences = [describe_protection(comparison), *describe_fullest(comparison), describe_denials(comparison)]
    if many_clients and any(result.denied for result in comparison.results):
        sentences.append(describe_denied_clients(comparison))
    return sentences


def describe_protection(comparison: Comparison) -> str:
    """Describe how well the quota was kept: name every algorithm that let more through."""
    return describe_peaks(
        comparison.quota, [(result.algorithm, result.peak_in_window) for result in comparison.results]
    )


def describe_peaks(quota: Quota, peaks: Sequence[tuple[str, int]]) -> str:
    """Describe the largest cost that each algorithm let through in a window, compared with the quota."""
    burst, window = quota.burst, about(quota.window)
    peak = max(peak for _, peak in peaks)
    if peak == 0:
        return f"No algorithm let any request through; the quota is {burst:,} in a window of {window}."
    if peak <= burst:
        return f"No algorithm let more than {peak:,} through in any window of {window}; the quota is {burst:,}."
    (first, names), *others = group_by_value((name, peak) for name, peak in peaks if peak > burst)
    clauses = [f"{names} let {first:,} through in a window of {window}", *(f"{group} {n:,}" for n, group in others)]
    within = [name for name, peak in peaks if peak <= burst]
    kept = f"; {join_names(within)} stayed within it" if within else ""
    return f"{join_names(clauses)}, above the quota of {burst:,}{kept}."


def describe_fullest(comparison: Comparison) -> list[str]:
    """Describe which key had the fullest window of all, and when; nothing if the quota was kept or has one key."""
    traffic, fullest = comparison.traffic, comparison.fullest
    if fullest is None or fullest.cost <= comparison.quota.burst or traffic.key_count < 2:
        return []
    return [f"The fullest window is that of {traffic.name_key(fullest.key)}, {_format_begin(traffic, fullest.begin)}."]


def _format_begin(traffic: Traffic, begin: int) -> str:
    moment = format_moment(traffic, begin)
    if is_dated(traffic):
        return f"from {moment} on"
    return f"{moment} after the beginning" if begin else "at the beginning"


def describe_denials(comparison: Comparison) -> str:
    """Describe how many requests were denied, how many were delayed, and how many cost more than the burst."""
    results, offered = comparison.results, len(comparison.traffic)
    denied = group_by_value((result.algorithm, result.denied) for result in results)
    most = denied[0][0]
    if most == 0:
        clause = f"All {offered:,} requests were admitted" if offered > 1 else "The only request was admitted"
    elif len(denied) == 1 and (len(results) > 1 or most == offered):
        clause = f"{_name_all(results)} denied {format_part(most, offered, 'request')}"
    else:
        clause = f"Of {pluralize(offered, 'request')}, {_list_shares(denied, offered)}"
    delays = "".join(describe_delays(comparison, result) for result in results if result.delayed)
    return " ".join([f"{clause}{delays}.", *describe_oversized_requests(comparison)])


def describe_delays(comparison: Comparison, result: Result) -> str:
    """Describe how many requests an algorithm delayed, and how many for too long, as the end of a sentence."""
    delayed = f"; {result.algorithm} delayed {result.delayed:,} by up to {format_seconds(result.max_delay)}"
    if not result.timed_out:
        return delayed
    count = "all" if result.timed_out == result.delayed else f"{result.timed_out:,}"
    return f"{delayed}, {count} of them beyond the client timeout of {about(comparison.client_timeout)}"


def describe_oversized_requests(comparison: Comparison) -> list[str]:
    """Describe how many requests cost more than the burst; return nothing if there are none, or some are admitted."""
    burst = comparison.quota.burst
    count = comparison.traffic.count_costlier(burst)
    if not 0 < count <= min(result.denied for result in comparison.results):
        return []
    costs = "costs" if count == 1 else "cost"
    return [f"{pluralize(count, 'request')} {costs} more than the burst of {burst:,} and can never be admitted."]


def describe_denied_clients(comparison: Comparison) -> str:
    """Describe how many clients each algorithm denied at least once."""
    results, clients = comparison.results, int(np.count_nonzero(comparison.traffic.client_requests))
    denied = group_by_value((result.algorithm, result.clients_denied) for result in results)
    if len(denied) == 1 and len(results) > 1:
        return f"{_name_all(results)} denied {format_part(denied[0][0], clients, 'client')} at least once."
    return f"Of {pluralize(clients, 'client')}, {_list_shares(denied, clients, ' at least once')}."


def _name_all(results: Sequence[Result]) -> str:
    return "Every algorithm" if len(results) > 1 else results[0].algorithm


def _list_shares(denied: Sequence[tuple[int, str]], whole: int, adverb: str = "") -> str:
    """List the algorithms with the number of denials, the largest first: `a denied 3 (3 %), b and c none`."""
    (most, names), *others = denied
    return ", ".join(
        [f"{names} denied {format_share(most, whole)}{adverb}"]
        + [f"{group} {format_share(count, whole)}" for count, group in others]
    )


# --- tables


LEADING_COLUMNS = ("admitted", "in_time", "delayed", "timed_out", "denied")
"""Figures whose columns come first."""


def build_comparison_table(comparison: Comparison) -> Table:
    """Return the figures of each algorithm that matter to the choice; those beyond a limit are marked."""
    results, quota, timeout = comparison.results, comparison.quota, comparison.client_timeout
    selected = select_columns(Result, comparison)
    figures = {name: selected[name] for name in (*LEADING_COLUMNS, *selected) if name in selected}
    columns = {name: _build_result_column(results, name, figure) for name, figure in figures.items()}
    limits = {"peak_in_window": quota.burst, "max_delay": timeout / 1e9}
    for name in limits.keys() & columns.keys():
        columns[name] = _mark_above(columns[name], [getattr(result, name) > limits[name] for result in results])
    return Table(
        "Figures of each algorithm",
        ["algorithm", *(figure.header for figure in figures.values())],
        make_rows([result.algorithm for result in results], [*columns.values()]),
        note=_describe_limits(comparison),
    )


def _describe_limits(comparison: Comparison) -> str:
    """Return the meaning of the marks, with the limits; the quota even if nothing exceeds it."""
    quota, results = comparison.quota, comparison.results
    grant = f"quota of {quota.burst:,} in any {about(quota.window)}"
    limits = [f"above the {grant}"] if any(result.peak_in_window > quota.burst for result in results) else []
    if any(result.timed_out for result in results):
        limits.append(f"longer than the client timeout of {about(comparison.client_timeout)}")
    meaning = f"{SIGNS['above']} {', or '.join(limits)}" if limits else ""
    return meaning if grant in meaning else f"{meaning} ({grant})" if meaning else f"With a {grant}."


def _build_result_column(results: Sequence[Result], name: str, figure: Figure, with_marks: bool = False) -> list[Cell]:
    wholes = [getattr(result, figure.part_of) for result in results] if figure.part_of else []
    return build_column(figure, [getattr(result, name) for result in results], with_marks, wholes)


def _mark_above(cells: Sequence[Cell], above: Sequence[bool]) -> list[Cell]:
    return [replace(cell, mark="above") if is_above else cell for cell, is_above in zip(cells, above, strict=True)]


def build_figures_table(comparison: Comparison) -> Table:
    """Return all figures of all algorithms: a row for each figure, with its name in JSON and CSV."""
    results = comparison.results
    rows = [(name, _build_result_column(results, name, figure, True)) for name, figure in list_figures(Result).items()]
    marked = any(cell.mark for _, cells in rows for cell in cells)
    return Table(
        "All figures",
        ["figure", *(result.algorithm for result in results)],
        rows,
        note=f"{SIGNS['best']} best  {SIGNS['worst']} worst" if marked else "",
    )


def build_clients_table(comparison: Comparison, limit: int, denied_only: bool = True) -> Table | None:
    """Return the denials of each client by each algorithm, for at most `limit` clients, the most denied first.

    None if there are fewer than two clients, or none to list.
    """
    traffic, results = comparison.traffic, comparison.results
    denied = np.array([result.client_offered - result.client_admitted for result in results])
    ranked = np.lexsort((-denied[0], -denied.max(axis=0))).tolist()
    caption = "Requests denied, by client, the most denied first"
    if denied_only or len(ranked) > limit:
        count = int(np.count_nonzero(denied.any(axis=0)))
        ranked = ranked[:count]
        shown = f"the {limit:,} most denied of " if count > limit else ""
        caption = f"Requests denied, by client: {shown}the {pluralize(count, 'client')} with denials"
    if len(traffic.names) < 2 or not ranked:
        return None
    counts = np.vstack([traffic.client_requests, denied])
    return Table(
        caption,
        ["client", "offered", *(result.algorithm for result in results)],
        [(traffic.names[index], [*map(build_count, counts[:, index].tolist())]) for index in ranked[:limit]],
        sortable=True,
        cut_names=True,
    )


# --- runs


class Run(BaseRun):
    """A comparison of algorithms at one quota."""

    comparison: Comparison
    charts = CHARTS
    event_columns = serialize.EVENT_COLUMNS
    figures = list_figures(Result)

    @property
    def subject(self) -> str:
        """The title and the quota."""
        return f"{self.title.partition(': ')[0]} at {format_quota(self.comparison.quota)}"

    def serialize(self) -> dict[str, Any]:
        """Return the JSON object of the run."""
        return serialize.serialize_comparison(self.comparison, self.source, self.most_denied)

    def list_rows(self) -> list[dict[str, Any]]:
        """Return a row for each algorithm."""
        return serialize.serialize_results(self.comparison)

    def list_events(self) -> Iterator[dict[str, Any]]:
        """Yield every request with every algorithm's decision."""
        return serialize.list_events(self.comparison)

    def describe(self) -> list[str]:
        """Describe the traffic and the quota."""
        return describe_run(self.comparison.traffic, self.comparison.quota).splitlines()

    def list_assumptions(self) -> list[str]:
        """Describe what the comparison assumes about denied clients."""
        return describe_assumption(self.comparison)

    def summarize(self) -> list[str]:
        """Return the findings: how well the quota was kept, and what that cost the clients."""
        return summarize(self.comparison, many_clients=self.most_denied is not None)

    def build_table(self) -> Table:
        """Return the figures of each algorithm that matter to the choice."""
        return build_comparison_table(self.comparison)

    def build_figures_table(self) -> Table:
        """Return all figures of all algorithms."""
        return build_figures_table(self.comparison)

    def build_clients_table(self, limit: int) -> Table | None:
        """Return the denials of each client that was denied, by each algorithm."""
        return build_clients_table(self.comparison, limit)

    def build_page_clients_table(self, limit: int) -> Table | None:
        """Return the denials of each client, also of those that were not denied."""
        return build_clients_table(self.comparison, limit, denied_only=False)

    def render_timeline(self, width: int) -> RenderableType:
        """Render a line for each algorithm."""
        return render_timeline(self.comparison, width)

    def list_meanings(self) -> list[tuple[str, str, str]]:
        """Return the name, the header and the meaning of each figure, also of those that pages add."""
        kinds = [Result, Accuracy, *([EqualResult] if self.comparison.equal_protection else [])]
        window = about(self.comparison.quota.window)
        return [
            (name, figure.header.format(window=window), figure.meaning)
            for kind in kinds
            for name, figure in list_figures(kind).items()
        ]

    def list_page_charts(self) -> list[str]:
        """Return the comparison and the level; with several clients, those of the clients too."""
        clients = ["fairness"] if len(self.comparison.traffic.names) > 1 else []
        denials = ["denials"] if clients and any(result.denied for result in self.comparison.results) else []
        return self.put_lesson_first(["comparison", "level", *clients, *denials])
