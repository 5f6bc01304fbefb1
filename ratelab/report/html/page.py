"""HTML page of a run, and a gallery of the pages of several runs."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from ratelab.lab.accuracy import Accuracy
from ratelab.lab.equal_protection import EqualResult
from ratelab.lab.metrics import Result, list_figures
from ratelab.quota import about
from ratelab.report.accuracy import (
    build_accuracy_table,
    build_differing_table,
    describe_differences,
    describe_estimate,
)
from ratelab.report.charts import LAYOUTS, SUBJECTS, THEME_NAMES, draw, render_figure
from ratelab.report.charts.style import THEMES
from ratelab.report.equal_protection import build_equal_table, describe_equal_protection
from ratelab.report.numbers import bind_units, format_quota
from ratelab.report.summary import (
    Run,
    build_clients_table,
    build_comparison_table,
    build_figures_table,
    describe_assumption,
    describe_run,
    summarize,
)
from ratelab.report.tables import Table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from ratelab.lab.scenarios import Scenario
    from ratelab.report.policies import PolicyRun

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


def draw_pictures(run: Run | PolicyRun) -> Iterator[Picture]:
    """Yield the pictures of a run: first the chart of its lesson, then the charts that suit every run."""
    for chart in _list_charts(run):
        yield draw_picture(run, chart)


def _list_charts(run: Run | PolicyRun) -> list[str]:
    if not isinstance(run, Run):
        return _list_policy_charts(run)
    lesson = [run.scenario.chart] if run.scenario and run.scenario.chart in run.charts else []
    clients = ["fairness"] if len(run.comparison.traffic.names) > 1 else []
    denials = ["denials"] if clients and any(result.denied for result in run.comparison.results) else []
    return list(dict.fromkeys([*lesson, "comparison", "level", *clients, *denials]))


def _list_policy_charts(run: PolicyRun) -> list[str]:
    lesson = [run.scenario.chart] if run.scenario and run.scenario.chart in run.charts else []
    clients = ["fairness"] if len(run.comparison.traffic.names) > 1 else []
    denied = any(result.whole.result.denied for result in run.comparison.results)
    return list(dict.fromkeys([*lesson, "policies", "left", *clients, *(["denials"] if clients and denied else [])]))


def draw_picture(run: Run | PolicyRun, chart: str) -> Picture:
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
    accuracy_table: Table | None
    """None for several policies, which have no exact log to be compared with."""
    accuracy: Sequence[str]
    differing: Table | None
    equal: Table | None
    equal_findings: Sequence[str]
    clients: Table | None
    figures: Table
    meanings: Sequence[tuple[str, str, str]]
    """The name, the header in tables and the meaning of each figure."""
    text: str | None
    """The scenario file."""
    home: str | None
    """Address of the page that links to this one."""


def render_page(
    run: Run | PolicyRun, pictures: Sequence[Picture], provenance: Provenance, home: str | None = None
) -> str:
    """Return the page of a run as HTML; `home` is the address of the page that links to it."""
    if isinstance(run, Run):
        return render_template("page.html", provenance, page=_build_page(run, pictures, home))
    return render_template("page.html", provenance, page=_build_policies_page(run, pictures, home))


def _build_page(run: Run, pictures: Sequence[Picture], home: str | None) -> Page:
    comparison, scenario = run.comparison, run.scenario
    protection = comparison.equal_protection
    kinds = [Result, Accuracy, *([EqualResult] if protection else [])]
    heading, *findings = summarize(comparison, many_clients=run.most_denied is not None)
    return Page(
        title=f"{run.title.partition(': ')[0]} at {format_quota(comparison.quota)}",
        subject=run.title,
        heading=heading,
        lesson=scenario.lesson if scenario else None,
        findings=findings,
        inputs=[*_describe_inputs(run), *run.notes, *describe_assumption(comparison)],
        pictures=pictures,
        results=build_comparison_table(comparison),
        accuracy_table=build_accuracy_table(comparison),
        accuracy=[*describe_differences(comparison), *describe_estimate(comparison)],
        differing=build_differing_table(comparison, MAX_LISTED_CLIENTS),
        equal=build_equal_table(comparison),
        equal_findings=describe_equal_protection(comparison, protection) if protection else [],
        clients=build_clients_table(comparison, MAX_LISTED_CLIENTS, denied_only=False),
        figures=build_figures_table(comparison),
        meanings=[
            (name, figure.header.format(window=about(comparison.quota.window)), figure.meaning)
            for kind in kinds
            for name, figure in list_figures(kind).items()
        ],
        text=scenario.text if scenario else None,
        home=home,
    )


def _build_policies_page(run: PolicyRun, pictures: Sequence[Picture], home: str | None) -> Page:
    from ratelab.report import policies, policy_tables

    comparison, scenario = run.comparison, run.scenario
    heading, *findings = policies.summarize_policies(comparison)
    inputs = [*policies.describe_policies(comparison), *(describe_clients(scenario) if scenario else [])]
    return Page(
        title=f"{run.title.partition(': ')[0]}: {len(comparison.parts)} policies",
        subject=run.title,
        heading=heading,
        lesson=scenario.lesson if scenario else None,
        findings=findings,
        inputs=[*inputs, *run.notes, *policies.describe_policy_assumption(comparison)],
        pictures=pictures,
        results=policy_tables.build_policies_table(comparison),
        accuracy_table=None,
        accuracy=[],
        differing=None,
        equal=None,
        equal_findings=[],
        clients=policy_tables.build_policy_clients_table(comparison, MAX_LISTED_CLIENTS),
        figures=policy_tables.build_policy_figures_table(comparison),
        meanings=[
            (name, figure.header.format(window="its window"), figure.meaning)
            for name, figure in policies.FIGURES.items()
        ],
        text=scenario.text if scenario else None,
        home=home,
    )


def _describe_inputs(run: Run) -> list[str]:
    """Describe the traffic and the quota, and the clients of a scenario."""
    lines = describe_run(run.comparison.traffic, run.comparison.quota).splitlines()
    return lines if run.scenario is None else [*lines, *describe_clients(run.scenario)]


def describe_clients(scenario: Scenario) -> list[str]:
    """Describe the clients of a scenario, at most `MAX_DESCRIBED_CLIENTS`."""
    from ratelab.lab.scenarios import describe_client  # needs pydantic, which a replay does not

    rest = len(scenario.clients) - MAX_DESCRIBED_CLIENTS
    clients = scenario.clients[:MAX_DESCRIBED_CLIENTS]
    described = [describe_client(client) for client in clients]
    if scenario.limits is not None:
        from ratelab.lab.scenarios.policies import PolicyClient, describe_facts

        facts = [describe_facts(client) if isinstance(client, PolicyClient) else "" for client in clients]
        described = [f"{text}{more}" for text, more in zip(described, facts, strict=True)]
    return [*described, *([f"and {rest:,} more"] if rest > 0 else [])]


# --- a gallery


class GalleryEntry(NamedTuple):
    """A run as the first page of a gallery shows it."""

    name: str
    page: str
    """Address of its page."""
    lesson: str | None
    description: str
    picture: Picture


def render_gallery(
    runs: Sequence[Run | PolicyRun], stems: Sequence[str], provenance: Provenance
) -> Iterator[tuple[str, str]]:
    """Yield the name and the HTML of each file: a page for each run, called after its stem, and the first page."""
    entries, home = [], f"{INDEX_STEM}.html"
    for run, stem in zip(runs, stems, strict=True):
        pictures, page = list(draw_pictures(run)), f"{stem}.html"
        description = run.scenario.description if run.scenario else run.title
        lesson = run.scenario.lesson if run.scenario else None
        entries.append(GalleryEntry(run.name, page, lesson, description, pictures[0]))
        yield page, render_page(run, pictures, provenance, home)
    yield home, render_template("gallery.html", provenance, entries=entries)


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
