"""The page that holds what is claimed of the sliding counter against what was measured, traffic by traffic."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ratelab.lab.estimate import CLAIMED_DIFFERENCE, CLAIMED_WRONG, Estimate
from ratelab.report.card import percent
from ratelab.report.findings import listed
from ratelab.report.html.rendering import Made, rendered
from ratelab.report.html.tables import Cell, Table
from ratelab.report.run import Run

NEAR_ENOUGH = 2
"""The claim holds where the estimate is wrong no more than this many times as often as claimed."""


FEWEST = 10_000
"""Requests of the smallest traffic to be told of: on fewer, a share as small as the one claimed is not to be seen."""


class Held(NamedTuple):
    """One traffic, how good the estimate was on it, and what a limiter that goes by it came to."""

    name: str
    requests: int
    keys: int
    estimate: Estimate
    differing: float | None
    """The share of its decisions that differ from the exact log's."""

    @property
    def holds(self) -> bool:
        """Whether the claim does."""
        return self.estimate.wrong_ratio <= NEAR_ENOUGH * CLAIMED_WRONG


def held(runs: Sequence[Run]) -> list[Held]:
    """Return the runs with an estimate and enough requests, the best first."""
    found = []
    for run in runs:
        estimate, traffic = run.comparison.estimate, run.comparison.traffic
        if estimate is not None and len(traffic) >= FEWEST:
            keys = len(set(traffic.keys.tolist()))
            found.append(Held(run.name, len(traffic), keys, estimate, _differing(run)))
    return sorted(found, key=lambda one: (one.estimate.wrong_ratio, one.differing or 0))


def claim_page(found: Sequence[Held], made: Made, home: str) -> str:
    """Return the page; `home` is the one that leads to it."""
    claim = {"wrong": percent(CLAIMED_WRONG), "difference": percent(CLAIMED_DIFFERENCE)}
    fewest = f"{FEWEST:,}"
    return rendered(
        "claim.html", made, claim=claim, fewest=fewest, table=_table(found), verdict=_verdict(found), home=home
    )


def _differing(run: Run) -> float | None:
    counter = next(one for one in run.comparison.results if one.algorithm == "sliding-counter")
    if counter.over_admitted is None or counter.over_denied is None:
        return None
    return (counter.over_admitted + counter.over_denied) / counter.offered


def _table(found: Sequence[Held]) -> Table:
    headers = ["traffic", "requests", "keys", "near the limit", "off by", "wrong side", "times the claim"]
    return Table(
        "The estimate on each traffic, and a limiter that goes by it; the best first",
        [*headers, "keys missed", "keys blamed", "limiter differs"],
        [(one.name, _cells(one)) for one in found],
        sortable=True,
        note=f"* wrong no more than {NEAR_ENOUGH} times as often as claimed, ! more often",
    )


def _cells(one: Held) -> list[Cell]:
    told, times = one.estimate, one.estimate.wrong_ratio / CLAIMED_WRONG
    return [
        Cell(f"{one.requests:,}", one.requests),
        Cell(f"{one.keys:,}", one.keys),
        Cell(percent(told.near_ratio), told.near_ratio),
        Cell(percent(told.mean_difference), told.mean_difference),
        Cell(percent(told.wrong_ratio), told.wrong_ratio, "best" if one.holds else "worst"),
        Cell(_times(times), times),
        Cell(f"{told.keys_missed:,}", told.keys_missed),
        Cell(f"{told.keys_blamed:,}", told.keys_blamed),
        Cell("-" if one.differing is None else percent(one.differing), one.differing or 0),
    ]


def _verdict(found: Sequence[Held]) -> list[str]:
    holding, failing = [one for one in found if one.holds], [one for one in found if not one.holds]
    told = []
    if holding:
        far = [one.name for one in holding if (one.differing or 0) > NEAR_ENOUGH * CLAIMED_WRONG]
        near = max(one.estimate.near_ratio for one in holding)
        told.append(
            f"It holds on {listed([one.name for one in holding])}: no more than {percent(near)} of their requests came "
            "with the real rate within a tenth of the limit."
        )
        if far:
            most = max(one.differing or 0 for one in holding)
            told.append(
                f"Even so, a limiter that goes by it decides otherwise than the exact log more often than that on "
                f"{listed(far)}, with up to {percent(most)} of the requests: it counts only what it admits, so whoever "
                "is denied is always at the limit."
            )
    if failing:
        worst = [f"{one.name} ({_times(one.estimate.wrong_ratio / CLAIMED_WRONG)})" for one in failing]
        told.append(f"It does not hold on {listed(worst)}: the estimate is wrong that many times as often as claimed.")
        uneven = [one.name for one in failing if one.estimate.mean_difference > NEAR_ENOUGH * CLAIMED_DIFFERENCE]
        if uneven:
            told.append(
                f"On {listed(uneven)} the estimate is also off by more than {NEAR_ENOUGH} times the "
                f"{percent(CLAIMED_DIFFERENCE)} claimed: requests come in bursts, and the counter takes those of the "
                "previous window as spread evenly over it."
            )
    return told


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x"
