"""Page of the league: packages by promises, each broken cell with a reproduction."""

from __future__ import annotations

from typing import Any, NamedTuple

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from league import HOME, Package, complete, read_packages
from reproduce import find_reproduction, read_outputs

from ratelab.judge import PROMISES

KEPT, BROKEN, OPEN, OTHER = "kept", "broken", "open", "n/a"

MEANINGS = {
    KEPT: "kept in every trial of the judge",
    BROKEN: "broken, as a reproduction with the package alone shows on the real clock",
    OPEN: "the judge reports a fault on the fake clock that no reproduction has confirmed",
    OTHER: "does not apply to the package, or cannot be measured",
}


class Cell(NamedTuple):
    """A promise of a variant."""

    promise: str
    state: str
    reason: str


class Row(NamedTuple):
    """A variant with its cells."""

    variant: str
    cells: list[Cell]


class Reproduction(NamedTuple):
    """A script and its output."""

    promise: str
    code: str
    output: str
    date: str
    version: str
    reasons: list[str]
    """The findings of the judge on each variant with this fault."""

    @property
    def subject(self) -> str:
        """The promise that is broken."""
        return PROMISES[self.promise]


class Section(NamedTuple):
    """A package on the page."""

    package: Package
    version: str
    rows: list[Row]
    reproductions: list[Reproduction]

    @property
    def totals(self) -> list[Cell]:
        """The promises of the package: broken if it is in any of its variants, and kept if it is in one at least."""
        cells = []
        for place, promise in enumerate(PROMISES):
            column = [row.cells[place] for row in self.rows]
            state = next(state for state in (BROKEN, OPEN, KEPT, OTHER) if any(cell.state == state for cell in column))
            cells.append(Cell(promise, state, next(cell.reason for cell in column if cell.state == state)))
        return cells


def build_sections(results: dict[str, Any]) -> list[Section]:
    """Return the packages of recorded results."""
    packages, outputs = {package.name: package for package in read_packages()}, read_outputs()
    sections = []
    for name, package in packages.items():
        variants = [result for result in results["variants"] if result["package"] == name]
        if variants:
            rows = [Row(result["variant"], _make_cells(package, result, outputs)) for result in variants]
            sections.append(Section(package, variants[0]["version"], rows, _list_reproductions(name, rows, outputs)))
    return sections


def _make_cells(package: Package, result: dict[str, Any], outputs: dict[str, Any]) -> list[Cell]:
    cells = []
    for promise, cell in complete(package, result["variant"], result["promises"]).items():
        confirmed = (
            f"{package.name}-{promise}" in outputs
            and find_reproduction(package.name, promise)
            and package.find_adapter(result["variant"]) not in package.unconfirmed.get(promise, ())
            and not (promise == "clock" and "Redis" in result["variant"])  # the scripts set no clock of a server
        )
        state = {True: KEPT, False: BROKEN if confirmed else OPEN, None: OTHER}[cell["kept"]]
        cells.append(Cell(promise, state, cell["reason"] or PROMISES[promise]))
    return cells


def _list_reproductions(name: str, rows: list[Row], outputs: dict[str, Any]) -> list[Reproduction]:
    found = []
    for place, promise in enumerate(PROMISES):
        broken = [row for row in rows if row.cells[place].state == BROKEN]
        path = find_reproduction(name, promise)
        if broken and path is not None:
            reasons = [f"{row.variant}: {row.cells[place].reason}" for row in broken]
            found.append(Reproduction(promise, path.read_text("utf-8"), reasons=reasons, **outputs[path.stem]))
    return found


def count_states(results: dict[str, Any]) -> dict[str, int]:
    """Return the number of variants, and how many of them break each promise."""
    rows = [row for section in build_sections(results) for row in section.rows]
    broken = {promise: sum(row.cells[place].state == BROKEN for row in rows) for place, promise in enumerate(PROMISES)}
    return {"variants": len(rows), **broken}


def render_page(results: dict[str, Any]) -> str:
    """Return the HTML page, one file."""
    environment = Environment(
        loader=FileSystemLoader(HOME), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    sections = build_sections(results)
    return environment.get_template("page.html").render(
        sections=sections,
        subjects=PROMISES,
        meanings=MEANINGS,
        date=results["date"],
        python=results["python"],
        counts=count_states(results),
        variants=sum(len(section.rows) for section in sections),
    )


def render_table(results: dict[str, Any]) -> str:
    """Return the packages with their promises by state, as a Markdown table."""
    states = (BROKEN, OPEN, OTHER)
    lines = ["| package | version | broken | open | not applicable |", "|---|---|---|---|---|"]
    for section in build_sections(results):
        lists = [", ".join(cell.promise for cell in section.totals if cell.state == state) or "-" for state in states]
        name = f"[{section.package.name}]({section.package.link})"
        lines.append(f"| {name} | {section.version} | {' | '.join(lists)} |")
    return "\n".join(lines)
