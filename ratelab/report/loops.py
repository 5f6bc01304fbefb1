"""Closed loops as plain values for JSON and CSV: figures, series over time, clients and tries."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ratelab.lab.closed_loop.figures import LoopComparison, LoopResult
from ratelab.lab.metrics import list_figures
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic
from ratelab.limiter import ROW_FIELDS
from ratelab.report.charts.series import count_times
from ratelab.report.charts.time_axis import TimeAxis
from ratelab.report.numbers import is_dated
from ratelab.report.serialize import EVENT_BATCH, serialize_quota

LOOP_FIGURES = list_figures(LoopResult)
"""The figures of a closed loop, by name."""

LOOP_EVENT_COLUMNS = (
    *("at_ns", "client", "cost", "algorithm", "request", "number", "sent_ns"),
    *ROW_FIELDS,
    *("result", "ended_ns", "served_ns", "wasted"),
)
"""The columns of a row of events of a closed loop, one for each try."""

TRY_RESULTS = ("success", "denied", "error", "shed", "timeout", "pending", "abandoned")
"""The names of the results of tries, in the order of their numbers."""


def name_rows(comparison: LoopComparison) -> str:
    """Return the noun for the rows of a comparison."""
    return comparison.noun or ("algorithm" if comparison.results[0].variant is None else "variant")


def serialize_loops(
    comparison: LoopComparison, source: dict[str, Any], max_clients: int | None = None
) -> dict[str, Any]:
    """Return the whole comparison as `--json` prints it; `max_clients` limits the clients to the most denied."""
    return {
        "version": 1,
        **source,
        "duration": comparison.duration / 1e9,
        "results": [
            {
                **serialize_loop_result(result),
                "quota": None if result.policy is None else serialize_quota(result.policy.quota),
                "series": serialize_series(result),
                "per_client": [*_serialize_clients(result, max_clients)],
            }
            for result in comparison.results
        ],
    }


def serialize_loop_result(result: LoopResult) -> dict[str, Any]:
    """Return the name of the variant, if there are several, that of the algorithm and the figures."""
    variant = {} if result.variant is None else {"variant": result.variant}
    return {**variant, "algorithm": result.algorithm, **{name: getattr(result, name) for name in LOOP_FIGURES}}


def create_loop_axis(traffic: Traffic, duration: int) -> TimeAxis:
    """Return the time axis of a closed loop with these first tries, whose parts are those of its series."""
    return TimeAxis(0, duration, traffic.origin if is_dated(traffic) else None)


def serialize_series(result: LoopResult) -> dict[str, Any]:
    """Return what happened in each part of the time: first tries, arrivals at the limiter, denials and successes.

    `begins` are the beginnings of the parts in seconds. `goodput` are the successes a second.
    """
    edges = create_loop_axis(result.population.first_tries, result.population.duration).split()
    lengths = np.diff(edges) / 1e9
    return {
        "begins": (edges[:-1] / 1e9).tolist(),
        "first_tries": count_times(result.started, edges).tolist(),
        "arrivals": count_times(result.arrived, edges).tolist(),
        "denied": count_times(result.denied_at, edges).tolist(),
        "goodput": [round(rate, 4) for rate in (count_times(result.succeeded, edges) / lengths).tolist()],
    }


def _serialize_clients(result: LoopResult, limit: int | None) -> Iterator[dict[str, Any]]:
    for client in rank_clients(result.client_counts["denied"], limit):
        counts = {name: int(column[client]) for name, column in result.client_counts.items()}
        yield {"client": result.population.first_tries.names[client], **counts}


def rank_clients(denied: Integers, limit: int | None) -> list[int]:
    """Return all clients in their order, or with a limit as many of the most denied."""
    if limit is None:
        return [*range(len(denied))]
    ranked: list[int] = np.argsort(-denied, kind="stable")[:limit].tolist()
    return ranked


def list_tries(comparison: LoopComparison) -> Iterator[dict[str, Any]]:
    """Yield every try against each algorithm, in the order of arrival, with its decision and its result.

    Times are those of the clock, in nanoseconds; None if they never came. The comparison must have kept its outcomes.
    """
    for result, outcome in zip(comparison.results, comparison.outcomes, strict=True):
        traffic, tries = outcome.traffic, outcome.tries
        variant = {} if result.variant is None else {"variant": result.variant}
        columns: dict[str, NDArray[Any]] = {
            "at_ns": traffic.clock_times,
            "client": traffic.clients,
            "cost": traffic.costs,
            "request": tries.requests,
            "number": tries.numbers,
            **{name: outcome.decisions[name] for name in ROW_FIELDS},
            "result": tries.results,
            "wasted": tries.wasted,
        }
        times = {"sent_ns": tries.sent, "ended_ns": tries.ended, "served_ns": tries.served}
        for start in range(0, len(traffic), EVENT_BATCH):
            part = slice(start, start + EVENT_BATCH)
            batch: dict[str, list[Any]] = {name: column[part].tolist() for name, column in columns.items()}
            batch["client"] = [traffic.names[client] for client in batch["client"]]
            batch["result"] = [TRY_RESULTS[number] for number in batch["result"]]
            batch["algorithm"] = [result.algorithm] * len(batch["client"])
            batch |= {name: _list_clock_times(column[part], traffic.origin) for name, column in times.items()}
            for row in zip(*(batch[name] for name in LOOP_EVENT_COLUMNS), strict=True):
                yield {**variant, **dict(zip(LOOP_EVENT_COLUMNS, row, strict=True))}


def _list_clock_times(times: Integers, origin: int) -> list[int | None]:
    """Return clock times; None for times of -1, which never came."""
    return [None if time < 0 else time + origin for time in times.tolist()]
