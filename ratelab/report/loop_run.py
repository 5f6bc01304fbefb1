"""Run of clients that react to their answers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ratelab.lab import LOOP_CHARTS
from ratelab.lab.closed_loop.figures import LoopComparison
from ratelab.report import loop_findings, loop_tables, loops
from ratelab.report.numbers import format_quota
from ratelab.report.runs import BaseRun, describe_clients
from ratelab.report.timeline import TimelineRow, render_lines
from ratelab.report.verdicts import VerdictText, describe_verdicts, list_lines, serialize_verdict

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ratelab.lab.scenarios import Scenario
    from ratelab.report.tables import Table


@dataclass(frozen=True, eq=False)
class LoopRun(BaseRun):
    """A comparison of algorithms or variants, or a run without a limiter, with clients that react to their answers."""

    comparison: LoopComparison
    variants: tuple[Scenario, ...] = ()
    """The scenario of each case, unless the traffic was recorded."""

    charts = LOOP_CHARTS
    figures = loops.LOOP_FIGURES

    @property
    def event_columns(self) -> tuple[str, ...]:
        """The names in each event."""
        variant = () if self.comparison.results[0].variant is None else ("variant",)
        return (*variant, *loops.LOOP_EVENT_COLUMNS)

    @property
    def subject(self) -> str:
        """The title and the quota."""
        name, quotas = self.title.partition(": ")[0], self.comparison.quotas
        if len(self.comparison.cases) > 1:
            return f"{name}: {len(self.comparison.cases)} variants"
        return f"{name} at {format_quota(quotas[0])}" if quotas else f"{name} without a limiter"

    def serialize(self) -> dict[str, Any]:
        """Return the JSON object of the run."""
        document = loops.serialize_loops(self.comparison, self.source, self.most_denied)
        for row, verdict in zip(document["results"], self.verdicts, strict=False):
            row["verdict"] = serialize_verdict(verdict)
        return document

    def list_rows(self) -> list[dict[str, Any]]:
        """Return a row for each algorithm."""
        return [loops.serialize_loop_result(result) for result in self.comparison.results]

    def list_events(self) -> Iterator[dict[str, Any]]:
        """Yield every try against each algorithm, with its decision and its result."""
        return loops.list_tries(self.comparison)

    def describe(self) -> list[str]:
        """Describe the first tries, the quota, the server, the faults and the clients."""
        clients = [describe_clients(scenario) for scenario in self.variants] or [[]]
        pairs = zip(self.comparison.cases, clients, strict=True)
        described = [loop_findings.describe_case(case, lines) for case, lines in pairs]
        return loop_findings.describe_cases(self.comparison, described)

    def describe_clients(self) -> list[str]:
        """Return nothing, since the clients of each variant are described."""
        return []

    def list_assumptions(self) -> list[str]:
        """Describe why the traffic differs between algorithms."""
        return loop_findings.describe_loop_assumption(self.comparison)

    def summarize(self) -> list[str]:
        """Return the findings: recovery, requests served, tries, times to success, wasted work and the quota."""
        return loop_findings.summarize_loops(self.comparison)

    def describe_verdicts(self) -> list[VerdictText]:
        """Describe the faults of each row, and the changes that help."""
        return describe_verdicts(self.verdicts)

    def list_verdict_lines(self, width: int) -> list[str]:
        """Return the verdicts as lines of a terminal, after a blank line and a heading."""
        lines = [line for text in self.describe_verdicts() for line in list_lines(text, width)]
        return ["", "Verdict", *lines] if lines else []

    def build_table(self) -> Table:
        """Return the figures of each algorithm that matter to the choice."""
        return loop_tables.build_loops_table(self.comparison)

    def build_figures_table(self) -> Table:
        """Return all figures of all algorithms."""
        return loop_tables.build_loop_figures_table(self.comparison)

    def build_clients_table(self, limit: int) -> Table | None:
        """Return the part of its requests that each client got served."""
        return loop_tables.build_loop_clients_table(self.comparison, limit)

    def render_timeline(self, width: int) -> RenderableType:
        """Render a line for each algorithm; the comparison must have kept its outcomes."""
        pairs = zip(self.comparison.results, self.comparison.outcomes, strict=True)
        rows = [TimelineRow(result.label, outcome.traffic, outcome.admissions) for result, outcome in pairs]
        return render_lines(rows, width)

    def list_meanings(self) -> list[tuple[str, str, str]]:
        """Return the name, the header and the meaning of each figure, with its source."""
        return [
            (
                name,
                loop_tables.format_loop_header(name, self.comparison),
                ". ".join(filter(None, (figure.meaning, figure.source))),
            )
            for name, figure in self.figures.items()
        ]

    def list_page_charts(self) -> list[str]:
        """Return the parts of the picture, each with its finding; that of the lesson first."""
        lesson = self.scenario.chart if self.scenario else ""
        return sorted(self.charts[1:], key=lambda chart: chart != lesson)
