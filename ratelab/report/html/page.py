"""HTML page of a run, and a gallery of the pages of several runs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ratelab.lab.accuracy import Accuracy
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Result, list_figures
from ratelab.report.accuracy import (
    build_accuracy_table,
    build_differing_table,
    describe_differences,
    describe_estimate,
)
from ratelab.report.charts import draw, render_figure
from ratelab.report.charts.style import THEMES
from ratelab.report.equal_protection import build_equal_table, describe_equal_protection
from ratelab.report.summary import Run, describe_run, summarize
from ratelab.report.tables import Table, build_clients_table, build_comparison_table

TEMPLATES = Path(__file__).parent / "templates"

INDEX_STEM = "index"
"""File stem of the first page of a gallery; no run may have it."""

MAX_LISTED_CLIENTS = 1000
"""Clients that a table of a page lists, so that the page stays small."""

MAX_DESCRIBED_CLIENTS = 30
"""Clients of a scenario that a page describes in words."""


class Provenance(NamedTuple):
    """The command and the version of ratelab that write a page."""

    command: str
    version: str


class Picture(NamedTuple):
    """A chart as two images, of which a page shows the one for the reader's color scheme."""

    alt: str
    """A sentence for readers who cannot see it."""
    light: str
    dark: str
    width: int
    height: int


def draw_pictures(run: Run) -> Iterator[Picture]:
    """Yield the pictures of a run: first the chart of its lesson, then the charts that suit every run."""
    lesson = [run.scenario.chart] if run.scenario else []
    clients = ["fairness"] if len(run.comparison.traffic.names) > 1 else []
    for chart in dict.fromkeys([*lesson, "comparison", "level", *clients]):
        yield draw_picture(run, chart)


def draw_picture(run: Run, chart: str) -> Picture:
    """Draw one chart of a run for both themes."""
    light, dark = (draw(run.comparison, chart, theme) for theme in ("light", "dark"))
    width, height = (round(100 * inches) for inches in light.get_size_inches())
    alt = f"Chart of the {chart}: {light.get_label()}"
    return Picture(alt, _inline(render_figure(light, "webp")), _inline(render_figure(dark, "webp")), width, height)


def _inline(data: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(data).decode()}"


# --- a page


@dataclass(frozen=True)
class Page:
    """The content of a page; its strings are plain text."""

    heading: str
    description: str | None
    lesson: str | None
    findings: Sequence[str]
    inputs: Sequence[str]
    pictures: Sequence[Picture]
    results: Table
    accuracy_table: Table
    accuracy: Sequence[str]
    differing: Table | None
    equal: Table | None
    equal_findings: Sequence[str]
    clients: Table | None
    meanings: dict[str, str]
    text: str | None
    """The scenario file."""
    home: str | None
    """Address of the page that links to this one."""


def render_page(run: Run, pictures: Sequence[Picture], provenance: Provenance, home: str | None = None) -> str:
    """Return the page of a run as HTML; `home` is the address of the page that links to it."""
    return _render_template("page.html", provenance, page=_build_page(run, pictures, home))


def _build_page(run: Run, pictures: Sequence[Picture], home: str | None) -> Page:
    comparison, scenario = run.comparison, run.scenario
    protection = comparison.equal_protection
    kinds = [Result, Accuracy, *([EqualResult] if protection else [])]
    return Page(
        heading=scenario.name if scenario else run.title,
        description=scenario.description if scenario else None,
        lesson=scenario.lesson if scenario else None,
        findings=summarize(comparison, many_clients=run.most_denied is not None),
        inputs=[*_describe_inputs(run), *run.notes],
        pictures=pictures,
        results=build_comparison_table(comparison),
        accuracy_table=build_accuracy_table(comparison),
        accuracy=[*describe_differences(comparison), *describe_estimate(comparison)],
        differing=build_differing_table(comparison, MAX_LISTED_CLIENTS),
        equal=build_equal_table(comparison),
        equal_findings=describe_equal_protection(comparison, protection) if protection else [],
        clients=build_clients_table(comparison, MAX_LISTED_CLIENTS, denied_only=False),
        meanings={name: figure.meaning for kind in kinds for name, figure in list_figures(kind).items()},
        text=scenario.text if scenario else None,
        home=home,
    )


def _describe_inputs(run: Run) -> list[str]:
    """Describe the traffic and the quota, and the clients of a scenario."""
    lines = describe_run(run.comparison.traffic, run.comparison.quota).splitlines()
    if run.scenario is None:
        return lines
    from ratelab.lab.scenarios import describe_client  # needs pydantic, which a replay does not

    clients = run.scenario.clients
    rest = len(clients) - MAX_DESCRIBED_CLIENTS
    described = map(describe_client, clients[:MAX_DESCRIBED_CLIENTS])
    return [*lines, *described, *([f"and {rest:,} more"] if rest > 0 else [])]


# --- a gallery


class GalleryEntry(NamedTuple):
    """A run as the first page of a gallery shows it."""

    name: str
    page: str
    """Address of its page."""
    lesson: str | None
    description: str
    picture: Picture


def render_gallery(runs: Sequence[Run], stems: Sequence[str], provenance: Provenance) -> Iterator[tuple[str, str]]:
    """Yield the name and the HTML of each file: a page for each run, called after its stem, and the first page."""
    entries, home = [], f"{INDEX_STEM}.html"
    for run, stem in zip(runs, stems, strict=True):
        pictures, page = list(draw_pictures(run)), f"{stem}.html"
        description = run.scenario.description if run.scenario else run.title
        lesson = run.scenario.lesson if run.scenario else None
        entries.append(GalleryEntry(run.name, page, lesson, description, pictures[0]))
        yield page, render_page(run, pictures, provenance, home)
    yield home, _render_template("gallery.html", provenance, entries=entries)


# --- templates


def _render_template(template: str, provenance: Provenance, **values: Any) -> str:
    return _load_environment().get_template(template).render(provenance=provenance, **values)


@cache
def _load_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _make_breakable
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup(environment.get_template("style.css").render(THEMES)),  # noqa: S704  (a file of this package)
        "script": Markup(script),  # noqa: S704  (a file of this package)
        "script_hash": f"sha256-{digest}",
    }
    return environment


def _make_breakable(name: str) -> Markup:
    """Allow line breaks after the underscores of a figure's name."""
    return Markup("_<wbr>").join(escape(part) for part in name.replace("\N{SOFT HYPHEN}", "").split("_"))
