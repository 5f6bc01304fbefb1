"""One run as one page: what was asked, what each algorithm did, how accurate it was, and how to do it again."""

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

from ratelab.report import accuracy
from ratelab.report.charts import draw, render_figure
from ratelab.report.charts.style import THEMES
from ratelab.report.equal_protection import equal_findings
from ratelab.report.html import tables
from ratelab.report.html.tables import Table
from ratelab.report.serialize import MEANINGS
from ratelab.report.summary import Run, findings
from ratelab.report.tables import heading

TEMPLATES = Path(__file__).parent / "templates"


class Made(NamedTuple):
    """How a page came to be."""

    command: str
    """What was typed."""
    version: str
    """Of ratelab."""


def render_template(template: str, made: Made, **values: Any) -> str:
    """Return the page that `template` makes of `values`."""
    return _environment().get_template(template).render(made=made, **values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["breakable"] = _breakable
    script = (TEMPLATES / "sort.js").read_text(encoding="utf-8")
    digest = b64encode(sha256(script.encode()).digest()).decode()
    environment.globals |= {
        "style": Markup(environment.get_template("style.css").render(THEMES)),  # noqa: S704  (our own text)
        "script": Markup(script),  # noqa: S704
        "script_hash": f"sha256-{digest}",
        "meanings": MEANINGS,
    }
    return environment


def _breakable(name: str) -> Markup:
    """Let a figure's name be broken after its underscores."""
    return Markup("_<wbr>").join(escape(part) for part in name.split("_"))


class Picture(NamedTuple):
    """One chart, as the two images that a page chooses from."""

    alt: str
    """What it shows, for who cannot see it."""
    light: str
    dark: str
    width: int
    height: int


def pictures(run: Run) -> Iterator[Picture]:
    """Yield the charts that a page shows of `run`: that of its lesson first, then the others that tell more."""
    lesson = [run.scenario.chart] if run.scenario else []
    many = ["fairness"] if len(run.comparison.traffic.names) > 1 else []
    for chart in dict.fromkeys([*lesson, "comparison", "level", *many]):
        yield picture(run, chart)


def picture(run: Run, chart: str) -> Picture:
    """Draw one chart of `run`."""
    light, dark = (draw(run.comparison, chart, theme) for theme in ("light", "dark"))
    width, height = (round(100 * inches) for inches in light.get_size_inches())
    alt = f"Chart of the {chart}: {light.get_label()}"
    return Picture(alt, _inline(render_figure(light, "webp")), _inline(render_figure(dark, "webp")), width, height)


def _inline(data: bytes) -> str:
    return f"data:image/webp;base64,{b64encode(data).decode()}"


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
    card: Table
    accuracy: Sequence[str]
    differing: Table | None
    equal: Table | None
    equal_findings: Sequence[str]
    clients: Table | None
    text: str | None
    home: str | None


def render_page(run: Run, pictures: Sequence[Picture], made: Made, home: str | None = None) -> str:
    """Return the page of a run; `home` is the page that leads to it, if there is one."""
    return render_template("page.html", made, page=_render_run(run, pictures, home))


def _render_run(run: Run, pictures: Sequence[Picture], home: str | None) -> Page:
    comparison, scenario = run.comparison, run.scenario
    protection = comparison.equal_protection
    return Page(
        heading=scenario.name if scenario else run.title,
        description=scenario.description if scenario else None,
        lesson=scenario.lesson if scenario else None,
        findings=findings(comparison, many_clients=run.most_denied is not None),
        asked=[*_asked(run), *run.notes],
        pictures=pictures,
        results=tables.results(comparison),
        card=tables.card(comparison),
        accuracy=[*accuracy.differing(comparison), *accuracy.estimated(comparison)],
        differing=tables.differing(comparison),
        equal=tables.equal(comparison),
        equal_findings=equal_findings(comparison, protection) if protection else [],
        clients=tables.clients(comparison),
        text=scenario.text if scenario else None,
        home=home,
    )


def _asked(run: Run) -> list[str]:
    """Say who sent what, and what was granted."""
    told = heading(run.comparison.traffic, run.comparison.quota).splitlines()
    if run.scenario is None:
        return told
    from ratelab.lab.scenarios import describe_client  # needs pydantic, which a replay does not

    clients = run.scenario.clients
    more = [f"and {len(clients) - MOST_WORDS:,} more"] if len(clients) > MOST_WORDS else []
    return [*told, *map(describe_client, clients[:MOST_WORDS]), *more]
