"""Report of `ratelab judge`: a table for the terminal, a page, and Markdown with a badge."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

from rich.console import Group, JustifyMethod, RenderableType
from rich.table import Table as RichTable
from rich.text import Text

from ratelab.judge import PROMISES, Judgement, Promise
from ratelab.report.html.page import Provenance, render_template
from ratelab.report.numbers import pluralize
from ratelab.report.tables import Cell, Table

MANUAL_URL = "https://github.com/ratelab/ratelab/blob/main/ratelab/docs/judge.md"

STATES = {True: "kept", False: "BROKEN", None: "not applicable"}

_STATE_STYLES = {True: "green", False: "bold red", None: "dim"}

_COLORS = {True: "red", False: "brightgreen"}
"""Of the badge, by whether a promise is broken."""

_FIGURES = {
    "bound": "at most {admitted} admitted in {span}; the bound is {bound:g}",
    "due": "{granted:,} of {requests:,} requests granted",
    "wait": "sufficient after {denials} denials; at most {excess:g} s too long",
    "retrying": "admitted again within {denied_for:g} s",
    "flood": "{names:,} names freed no exhausted client",
    "clock": "admitted within {locked_out:g} s of a step back; nothing extra",
    "threads": "exact in {schedules} schedules of {hits} hits",
    "several": "{admitted} of {expected} requests admitted",
    "store": "{open} of {hits} hits admitted while it was down; none charged twice",
}
"""Sentences on promises that are kept, by name."""

ROW_HEADERS = ("at", "client", "hits", "allowed", "retry after", "")


def describe_promise(promise: Promise) -> str:
    """Return the finding on a promise as a phrase."""
    window = promise.figures.get("window")
    span = f"{window:.4g} s" if window else "one instant"
    return promise.reason or _FIGURES[promise.name].format_map({**promise.figures, "span": span})


def describe_timeline(promise: Promise) -> str:
    """Return a caption of the failing timeline, with the limits of the candidate."""
    limits = promise.figures.get("limits") or ([promise.figures] if "period" in promise.figures else [])
    texts = [f"{each['limit']} in {each['period']:g} s" for each in limits]
    quota = f", with a limit of {' and one of '.join(texts)}" if texts else ""
    return f"the shortest failing timeline{quota}"


def summarize_judgement(judgement: Judgement) -> str:
    """Return how many promises are kept and broken, and which are broken."""
    kept, broken, other = ([each.name for each in judgement.promises if each.kept is state] for state in STATES)
    parts = [f"keeps {pluralize(len(kept), 'promise')}"]
    if broken:
        parts.append(f"breaks {', '.join(broken)}")
    if other:
        parts.append(f"{len(other)} not applicable")
    return f"{judgement.target} {'; '.join(parts)}"


def render_judgement(judgement: Judgement) -> RenderableType:
    """Render the judgement for a terminal: the promises, then the shortest failing timeline of each broken one."""
    grid = _create_grid("promise", "", "finding")
    for promise in judgement.promises:
        state = Text(STATES[promise.kept], _STATE_STYLES[promise.kept])
        grid.add_row(promise.name, state, Text(describe_promise(promise)))
    parts: list[RenderableType] = [Text(summarize_judgement(judgement), style="bold"), Text(), grid]
    for promise in judgement.promises:
        if promise.timeline:
            rows = _create_grid(*ROW_HEADERS)
            for row in promise.timeline:
                rows.add_row(*map(Text, _format_row(row)))
            parts += [Text(), Text(f"{promise.name}: {describe_timeline(promise)}", style="bold"), rows]
    return Group(*parts)


def _create_grid(*headers: str) -> RichTable:
    grid = RichTable(box=None, padding=(0, 2, 0, 0), pad_edge=False, header_style="bold")
    for header in headers:
        justify: JustifyMethod = "right" if header in ("hits", "allowed", "retry after") else "left"
        grid.add_column(header, justify=justify, no_wrap=header is not headers[-1])
    return grid


def _format_row(row: dict[str, Any]) -> list[str]:
    """Return a row of a timeline as the texts of `ROW_HEADERS`."""
    at, until = _format_time(row["at"]), _format_time(row["until"])
    wait = "" if row["retry_after"] is None else f"{row['retry_after']:.6g} s"
    allowed = "" if row["allowed"] is None else f"{row['allowed']:,}"
    return [at if at == until else f"{at} to {until}", row["key"], f"{row['hits']:,}", allowed, wait, row["note"]]


def _format_time(seconds: float) -> str:
    return f"{round(seconds, 3):.9g} s"


def render_judgement_page(judgement: Judgement, provenance: Provenance) -> str:
    """Return the judgement as an HTML page."""
    timelines = [
        (promise.name, describe_promise(promise), _build_timeline_table(promise))
        for promise in judgement.promises
        if promise.timeline
    ]
    rows = [
        (
            promise.name,
            [
                Cell(STATES[promise.kept], is_name=True),
                Cell(describe_promise(promise), is_name=True),
            ],
        )
        for promise in judgement.promises
    ]
    return render_template(
        "judge.html",
        provenance,
        title=f"{judgement.target} judged",
        subject=" ".join(f"{name} {version}" for name, version in judgement.versions.items()),
        heading=summarize_judgement(judgement),
        results=Table("Findings", ["promise", "kept", "finding"], rows),
        timelines=timelines,
        definitions=[(promise.name, PROMISES[promise.name]) for promise in judgement.promises],
        manual=MANUAL_URL,
    )


def _build_timeline_table(promise: Promise) -> Table:
    rows = []
    for row in promise.timeline:
        at, *texts = _format_row(row)
        rows.append((at, [Cell(text, is_name=number in (0, 4)) for number, text in enumerate(texts)]))
    return Table(describe_timeline(promise).capitalize(), ROW_HEADERS, rows)


def render_markdown(judgement: Judgement) -> str:
    """Return the judgement as Markdown: a badge that links to the manual, and a table."""
    return "\n".join([_make_badge(judgement), "", *_list_markdown_rows(judgement), ""])


def _make_badge(judgement: Judgement) -> str:
    judged = [promise for promise in judgement.promises if promise.kept is not None]
    kept = sum(promise.kept is True for promise in judged)
    text = f"{kept} of {pluralize(len(judged), 'promise')} kept"
    color = _COLORS[judgement.is_broken] if judged else "lightgrey"
    path = "-".join(quote(part.replace("-", "--").replace("_", "__"), safe="") for part in ("ratelab judge", text))
    return f"[![ratelab judge: {text}](https://img.shields.io/badge/{path}-{color})]({MANUAL_URL})"


def _list_markdown_rows(judgement: Judgement) -> Iterator[str]:
    yield "| promise | | finding |"
    yield "|---|---|---|"
    for promise in judgement.promises:
        finding = describe_promise(promise).replace("|", "\\|")
        yield f"| `{promise.name}` | {STATES[promise.kept]} | {finding} |"
