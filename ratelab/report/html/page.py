"""HTML page of a run, and a gallery of the pages of several runs."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import sha256
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from ratelab.report.accuracy import (
    build_accuracy_table,
    build_differing_table,
    describe_differences,
    describe_estimate,
)
from ratelab.report.charts import LAYOUTS, SUBJECTS, THEME_NAMES, draw, render_figure
from ratelab.report.charts.style import THEMES
from ratelab.report.equal_protection import build_equal_table, describe_equal_protection
from ratelab.report.expectations import build_checks_table
from ratelab.report.numbers import bind_units
from ratelab.report.runs import BaseRun
from ratelab.report.summary import Run
from ratelab.report.tables import Cell, Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ratelab.lab.comparison import Comparison
    from ratelab.report.verdicts import VerdictText

TEMPLATES = Path(__file__).parent / "templates"

INDEX_STEM = "index"
"""File stem of the first page of a gallery."""

PUBLISHED_STEM = "published"
"""File stem of the page of published figures, and the name of that page of the manual."""

RESERVED_STEMS = INDEX_STEM, PUBLISHED_STEM
"""File stems in a gallery that no run may have."""

MAX_LISTED_CLIENTS = 1000
"""Clients that a table of a page lists, so that the page stays small."""


class Provenance(NamedTuple):
    """The command and the version of ratelab that write a page."""

    command: str
    version: str


class Image(NamedTuple):
    """A chart of one layout, light and dark."""

    light: str
    dark: str
    width: int
    height: int


class Picture(NamedTuple):
    """A chart, of which a page shows the image for the reader's screen and color scheme."""

    title: str
    """Its finding."""
    subject: str
    wide: Image
    narrow: Image

    @property
    def alt(self) -> str:
        """A sentence for readers who cannot see it."""
        return f"{self.subject}: {self.title}"


def draw_pictures(run: BaseRun) -> Iterator[Picture]:
    """Yield the pictures of a run: first the chart of its lesson, then the charts that suit every run."""
    for chart in run.list_page_charts():
        yield draw_picture(run, chart)


def draw_picture(run: BaseRun, chart: str) -> Picture:
    """Draw one chart of a run for both layouts and both themes."""
    return build_picture(
        SUBJECTS[chart], lambda theme, layout: draw(run.comparison, chart, theme, layout=layout, bare=True)
    )


def build_picture(subject: str, draw_chart: Callable[[str, str], Figure]) -> Picture:
    """Draw a chart for both layouts and both themes; `draw_chart` takes the theme and the layout."""
    figures = {(layout, theme): draw_chart(theme, layout) for layout in LAYOUTS for theme in THEME_NAMES}
    images = []
    for layout in LAYOUTS:
        light, dark = (_inline(render_figure(figures[layout, theme], "webp")) for theme in THEME_NAMES)
        width, height = (round(100 * inches) for inches in figures[layout, THEME_NAMES[0]].get_size_inches())
        images.append(Image(light, dark, width, height))
    title = str(figures[LAYOUTS[0], THEME_NAMES[0]].get_label())
    return Picture(title, subject, *images)


def _inline(data: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(data).decode()}"


# --- a page


@dataclass(frozen=True)
class Page:
    """The content of a page; its strings are plain text."""

    title: str
    """The title of the window."""
    subject: str
    """The traffic, above the heading."""
    heading: str
    """The main finding."""
    lesson: str | None
    findings: list[str]
    inputs: Sequence[str]
    pictures: Sequence[Picture]
    results: Table
    clients: Table | None
    figures: Table
    meanings: Sequence[tuple[str, str, str]]
    """The name, the header in tables and the meaning of each figure."""
    text: str | None
    """The scenario file."""
    home: str | None
    """Address of the page that links to this one."""
    verdicts: Sequence[VerdictText] = ()
    """Empty for clients that do not react to their answers."""
    expectations: Table | None = None
    accuracy_table: Table | None = None
    """None for runs that have no exact log to be compared with."""
    accuracy: Sequence[str] = ()
    differing: Table | None = None
    equal: Table | None = None
    equal_findings: Sequence[str] = ()


def render_page(run: BaseRun, pictures: Sequence[Picture], provenance: Provenance, home: str | None = None) -> str:
    """Return the page of a run as HTML; `home` is the address of the page that links to it."""
    return render_template("page.html", provenance, page=_build_page(run, pictures, home))


def _build_page(run: BaseRun, pictures: Sequence[Picture], home: str | None) -> Page:
    scenario = run.scenario
    heading, *findings = run.summarize()
    page = Page(
        title=run.subject,
        subject=run.title,
        heading=heading,
        lesson=scenario.lesson if scenario else None,
        findings=findings,
        inputs=[*run.describe(), *run.describe_clients(), *run.notes, *run.list_assumptions()],
        pictures=pictures,
        results=run.build_table(),
        clients=run.build_page_clients_table(MAX_LISTED_CLIENTS),
        figures=run.build_figures_table(),
        meanings=run.list_meanings(),
        text=scenario.text if scenario else None,
        home=home,
        verdicts=run.describe_verdicts(),
        expectations=build_checks_table(run.checks, run.figures),
    )
    return _add_accuracy(page, run.comparison) if isinstance(run, Run) else page


def _add_accuracy(page: Page, comparison: Comparison) -> Page:
    """Add the comparison with the exact log, and that at equal protection if there is one."""
    protection = comparison.equal_protection
    return replace(
        page,
        accuracy_table=build_accuracy_table(comparison),
        accuracy=[*describe_differences(comparison), *describe_estimate(comparison)],
        differing=build_differing_table(comparison, MAX_LISTED_CLIENTS),
        equal=build_equal_table(comparison),
        equal_findings=describe_equal_protection(comparison, protection) if protection else [],
    )


# --- a gallery


class GalleryEntry(NamedTuple):
    """A run as the first page of a gallery shows it."""

    name: str
    page: str
    """Address of its page."""
    lesson: str | None
    description: str
    picture: Picture


def render_gallery(runs: Sequence[BaseRun], stems: Sequence[str], provenance: Provenance) -> Iterator[tuple[str, str]]:
    """Yield the name and the HTML of each file: a page for each run, called after its stem, and the first page.

    Runs of published figures are followed by a page that compares these.
    """
    entries, home = [], f"{INDEX_STEM}.html"
    for run, stem in zip(runs, stems, strict=True):
        pictures, page = list(draw_pictures(run)), f"{stem}.html"
        description = run.scenario.description if run.scenario else run.title
        lesson = run.scenario.lesson if run.scenario else None
        entries.append(GalleryEntry(run.name, page, lesson, description, pictures[0]))
        yield page, render_page(run, pictures, provenance, home)
    introduction, *sections = read_sections()
    pages = {entry.name: entry.page for entry in entries}
    published = f"{PUBLISHED_STEM}.html" if any(section.scenario in pages for section in sections) else None
    if published:
        yield (
            published,
            render_template(
                "published.html", provenance, home=home, pages=pages, introduction=introduction, sections=sections
            ),
        )
    yield home, render_template("gallery.html", provenance, entries=entries, published=published)


# --- published figures


class Section(NamedTuple):
    """A source and its figures."""

    title: str
    scenario: str
    """The name of the scenario that reproduces the figures; empty for the introduction."""
    paragraphs: list[Markup]
    table: Table | None


def read_sections() -> list[Section]:
    """Return the introduction and the sections of the manual page."""
    text = (files("ratelab") / "docs" / f"{PUBLISHED_STEM}.md").read_text(encoding="utf-8")
    return [_read_section(part) for part in re.split(r"^##? ", text, flags=re.MULTILINE)[1:]]


def _read_section(text: str) -> Section:
    title, *blocks = text.strip().split("\n\n")
    scenario = re.search(r"`([\w-]+)\.yaml`", text)
    table = next((block for block in blocks if block.startswith("|")), "")
    return Section(
        title,
        scenario[1] if scenario else "",
        [_format_inline(block) for block in blocks if not block.startswith(("|", "```"))],
        _read_table(table) if table else None,
    )


def _read_table(text: str) -> Table:
    headers, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines())
    names = {number for number, header in enumerate(headers) if header in ("run", "figure")}
    return Table(
        "Figures of the source and of ratelab",
        headers,
        [(row[0], [Cell(text, is_name=number in names) for number, text in enumerate(row[1:], 1)]) for row in rows],
    )


def _format_inline(text: str) -> Markup:
    """Return a paragraph of Markdown with its code and its links as HTML."""
    html = str(escape(" ".join(text.split())))
    html = re.sub(r"`([^`]+)`", r"<code>\1</code>", html)
    return Markup(re.sub(r"\[([^]]+)\]\(([^)]+)\)", r'<a href="\2">\1</a>', html))  # noqa: S704  (escaped above)


# --- templates


def render_template(template: str, provenance: Provenance, script: str = "sort.js", **values: Any) -> str:
    """Return a page; its only script is the file `script`."""
    source = (TEMPLATES / script).read_text(encoding="utf-8")
    digest = b64encode(sha256(source.encode()).digest()).decode()
    return (
        _load_environment()
        .get_template(template)
        .render(
            provenance=provenance,
            script=Markup(source),  # noqa: S704  (a file of this package)
            script_hash=f"sha256-{digest}",
            **values,
        )
    )


@cache
def _load_environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["bind_units"] = bind_units
    environment.globals |= {
        "style": Markup(environment.get_template("style.css").render(THEMES)),  # noqa: S704  (a file of this package)
    }
    return environment
