"""Many runs as a folder of pages: one that shows each lesson with its figure, and one for each run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ratelab.report.html.claim import claim_page, held
from ratelab.report.html.drawn import Picture, pictures
from ratelab.report.html.page import page
from ratelab.report.html.rendering import Made, rendered
from ratelab.report.summary import Run

RESERVED = INDEX, CLAIM = "index", "sliding-counter"
"""The stems of the files that are of no run."""


class Entry(NamedTuple):
    """What the first page shows of a run."""

    name: str
    page: str
    lesson: str | None
    description: str
    picture: Picture


def gallery(runs: Sequence[Run], stems: Sequence[str], made: Made) -> Iterator[tuple[str, str]]:
    """Yield each page's file name and what it holds; `stems` name the runs' files, none of `RESERVED`."""
    entries = []
    for run, stem in zip(runs, stems, strict=True):
        drawn = list(pictures(run))
        description = run.scenario.description if run.scenario else run.title
        lesson = run.scenario.lesson if run.scenario else None
        entries.append(Entry(run.name, f"{stem}.html", lesson, description, drawn[0]))
        yield f"{stem}.html", page(run, drawn, made, f"{INDEX}.html")
    found = held(runs)
    if found:
        yield f"{CLAIM}.html", claim_page(found, made, f"{INDEX}.html")
    claim = f"{CLAIM}.html" if found else None
    yield f"{INDEX}.html", rendered("gallery.html", made, entries=entries, claim=claim)
