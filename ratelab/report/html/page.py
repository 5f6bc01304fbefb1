"""One run as one page: what was asked, what each algorithm did, how accurate it was, and how to do it again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ratelab.report import accuracy
from ratelab.report.equal_protection import equal_findings
from ratelab.report.html import tables
from ratelab.report.html.drawn import Picture
from ratelab.report.html.rendering import Made, rendered
from ratelab.report.html.tables import Table
from ratelab.report.summary import Run, findings
from ratelab.report.tables import heading

MOST_WORDS = 30
"""Clients of a scenario that are told of in words."""


@dataclass(frozen=True)
class Page:
    """What a page tells, as text."""

    heading: str
    description: str | None
    lesson: str | None
    findings: Sequence[str]
    asked: Sequence[str]
    pictures: Sequence[Picture]
    results: Table
    accuracy: Table
    accuracy: Sequence[str]
    differing: Table | None
    equal: Table | None
    equal_findings: Sequence[str]
    clients: Table | None
    text: str | None
    home: str | None


def page(run: Run, pictures: Sequence[Picture], made: Made, home: str | None = None) -> str:
    """Return the page of a run; `home` is the page that leads to it, if there is one."""
    return rendered("page.html", made, page=_told(run, pictures, home))


def _told(run: Run, pictures: Sequence[Picture], home: str | None) -> Page:
    comparison, scenario = run.comparison, run.scenario
    equalised = comparison.equalised
    return Page(
        heading=scenario.name if scenario else run.title,
        description=scenario.description if scenario else None,
        lesson=scenario.lesson if scenario else None,
        findings=findings(comparison, many_clients=run.most_denied is not None),
        asked=[*_asked(run), *run.notes],
        pictures=pictures,
        results=tables.results(comparison),
        accuracy=tables.card(comparison),
        accuracy=[*accuracy.differing(comparison), *accuracy.estimated(comparison)],
        differing=tables.differing(comparison),
        equal=tables.equal(comparison),
        equal_findings=equal_findings(comparison, equalised) if equalised else [],
        clients=tables.clients(comparison),
        text=scenario.text if scenario else None,
        home=home,
    )


def _asked(run: Run) -> list[str]:
    """Say who sent what, and what was granted."""
    told = heading(run.comparison).splitlines()
    if run.scenario is None:
        return told
    from ratelab.lab.scenarios.describe import in_words  # needs pydantic, which a replay does not

    clients = run.scenario.clients
    more = [f"and {len(clients) - MOST_WORDS:,} more"] if len(clients) > MOST_WORDS else []
    return [*told, *map(in_words, clients[:MOST_WORDS]), *more]
