"""Many runs as a folder of pages: one that shows each lesson with its figure, and one for each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ratelab.lab.counter_estimate import CLAIMED_DIFFERENCE, CLAIMED_WRONG, Estimate
from ratelab.report.accuracy import percent
from ratelab.report.html.page import Made, Picture, pictures, render_page, render_template
from ratelab.report.html.tables import Cell, Table
from ratelab.report.summary import Run, listed

NEAR_ENOUGH = 2
"""The claim holds where the estimate is wrong no more than this many times as often as claimed."""

CHANCE = 3
"""Wrong requests that tell nothing: so few may be chance, and where no more are to be expected, none may be, too."""

FEWEST = 10_000
"""Requests of the smallest traffic to be told of."""


class Held(NamedTuple):
    """One traffic, how good the estimate was on it, and what a limiter that goes by it came to."""

    name: str
    requests: int
    keys: int
    estimate: Estimate
    differing: float | None
    """The share of its decisions that differ from the exact log's."""

    @property
    def wrong(self) -> int:
        """Requests on the wrong side of the limit."""
        return self.estimate.wrongly_allowed + self.estimate.wrongly_limited

    @property
    def holds(self) -> bool | None:
        """Whether the claim does; None if that cannot be told from so few requests."""
        expected = CLAIMED_WRONG * self.requests
        if self.wrong > NEAR_ENOUGH * expected + CHANCE:
            return False
        return True if expected > CHANCE else None


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
    return render_template(
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
        note=f"* wrong no more than {NEAR_ENOUGH} times as often as claimed, ! more often, - not to be told",
    )


def _cells(one: Held) -> list[Cell]:
    told, times = one.estimate, one.estimate.wrong_ratio / CLAIMED_WRONG
    mark = "" if one.holds is None else "best" if one.holds else "worst"
    return [
        Cell(f"{one.requests:,}", one.requests),
        Cell(f"{one.keys:,}", one.keys),
        Cell(percent(told.near_ratio), told.near_ratio),
        Cell(percent(told.mean_difference), told.mean_difference),
        Cell(percent(told.wrong_ratio), told.wrong_ratio, mark),
        Cell("-" if one.holds is None else _times(times), times),
        Cell(f"{told.keys_missed:,}", told.keys_missed),
        Cell(f"{told.keys_blamed:,}", told.keys_blamed),
        Cell("-" if one.differing is None else percent(one.differing), one.differing or 0),
    ]


def _verdict(found: Sequence[Held]) -> list[str]:
    """Say where the claim holds, where that cannot be told and where it does not, and what that does not mean."""
    holding, failing, unknown = ([one for one in found if one.holds is held] for held in (True, False, None))
    told = []
    if holding:
        told.append(f"It holds on {listed([_counted(one) for one in holding])}.")
    if unknown:
        told.append(
            f"It may hold on {listed([_counted(one) for one in unknown])}: at the share claimed, no more than {CHANCE} "
            "would be wrong there, so that fewer says little."
        )
    far = [one for one in (*holding, *unknown) if _strays(one)]
    if far:
        names = listed([f"{one.name} ({percent(one.differing or 0)})" for one in far])
        told.append(
            f"Even so, a limiter that goes by it decides otherwise than the exact log more often than that on {names}: "
            "it counts only what it admits, so whoever is denied is always at the limit."
        )
    if failing:
        worst = [f"{one.name} ({_times(one.estimate.wrong_ratio / CLAIMED_WRONG)})" for one in failing]
        told.append(f"It does not hold on {listed(worst)}: the estimate is wrong that many times as often as claimed.")
    return [*told, *_uneven(failing)]


def _counted(one: Held) -> str:
    return f"{one.name} ({one.wrong:,} of {one.requests:,} requests on the wrong side)"


def _strays(one: Held) -> bool:
    """Say whether a limiter differs from the log more often than the estimate is claimed to be wrong."""
    return (one.differing or 0) * one.requests > NEAR_ENOUGH * CLAIMED_WRONG * one.requests + CHANCE


def _uneven(failing: Sequence[Held]) -> list[str]:
    """Say where traffic comes so unevenly that even distance from the limit does not help."""
    uneven = [one for one in failing if one.estimate.mean_difference > NEAR_ENOUGH * CLAIMED_DIFFERENCE]
    if not uneven:
        return []
    names, near = listed([one.name for one in uneven]), max(one.estimate.near_ratio for one in uneven)
    return [
        f"On {names} the estimate is also off by over {NEAR_ENOUGH} times the {percent(CLAIMED_DIFFERENCE)} claimed, "
        f"with {percent(near) if near else 'none'} of the requests near the limit: "
        "they come in bursts, and the counter takes those of the previous window as spread evenly over it."
    ]


def _times(ratio: float) -> str:
    return f"{ratio:,.0f}x" if ratio >= 10 else f"{ratio:.2g}x"


RESERVED = INDEX, CLAIM = "index", "sliding-counter"
"""The stems of the files that are of no run."""


class GalleryEntry(NamedTuple):
    """What the first page shows of a run."""

    name: str
    page: str
    lesson: str | None
    description: str
    picture: Picture


def render_gallery(runs: Sequence[Run], stems: Sequence[str], made: Made) -> Iterator[tuple[str, str]]:
    """Yield each page's file name and what it holds; `stems` name the runs' files, none of `RESERVED`."""
    entries = []
    for run, stem in zip(runs, stems, strict=True):
        drawn = list(pictures(run))
        description = run.scenario.description if run.scenario else run.title
        lesson = run.scenario.lesson if run.scenario else None
        entries.append(GalleryEntry(run.name, f"{stem}.html", lesson, description, drawn[0]))
        yield f"{stem}.html", render_page(run, drawn, made, f"{INDEX}.html")
    found = held(runs)
    if found:
        yield f"{CLAIM}.html", claim_page(found, made, f"{INDEX}.html")
    claim = f"{CLAIM}.html" if found else None
    yield f"{INDEX}.html", render_template("gallery.html", made, entries=entries, claim=claim)
