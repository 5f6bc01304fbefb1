"""Run of several policies together."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ratelab.lab import POLICY_CHARTS
from ratelab.lab.policies.figures import PolicyComparison
from ratelab.report import policies, policy_tables
from ratelab.report.runs import BaseRun
from ratelab.report.timeline import render_lines

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ratelab.report.tables import Table


class PolicyRun(BaseRun):
    """A comparison of several policies together."""

    comparison: PolicyComparison
    charts = POLICY_CHARTS
    event_columns = policies.POLICY_EVENT_COLUMNS
    figures = policies.FIGURES

    @property
    def subject(self) -> str:
        """The title and the number of policies."""
        return f"{self.title.partition(': ')[0]}: {len(self.comparison.parts)} policies"

    def serialize(self) -> dict[str, Any]:
        """Return the JSON object of the run."""
        return policies.serialize_policies(self.comparison, self.source, self.most_denied)

    def list_rows(self) -> list[dict[str, Any]]:
        """Return a row for the whole and each policy, for each way to enforce them."""
        return policies.list_rows(self.comparison)

    def list_events(self) -> Iterator[dict[str, Any]]:
        """Yield every request with the decision by all policies, the policy that bound it and all that denied it."""
        return policies.list_events(self.comparison)

    def describe(self) -> list[str]:
        """Describe the traffic and each policy."""
        return policies.describe_policies(self.comparison)

    def list_assumptions(self) -> list[str]:
        """Describe the ways to enforce policies, and clients that do not react."""
        return policies.describe_policy_assumption(self.comparison)

    def summarize(self) -> list[str]:
        """Return the findings: the denials and their causes, burned quota, exceeded quotas and shadow policies."""
        return policies.summarize_policies(self.comparison)

    def build_table(self) -> Table:
        """Return the figures of the whole and of each policy that matter to the choice."""
        return policy_tables.build_policies_table(self.comparison)

    def build_figures_table(self) -> Table:
        """Return all figures of the whole and of each policy."""
        return policy_tables.build_policy_figures_table(self.comparison)

    def build_clients_table(self, limit: int) -> Table | None:
        """Return the denials of each client that was denied."""
        return policy_tables.build_policy_clients_table(self.comparison, limit)

    def render_timeline(self, width: int) -> RenderableType:
        """Render a line for each way to enforce the policies, and for each policy."""
        return render_lines(policies.list_timeline_rows(self.comparison), width)

    def list_meanings(self) -> list[tuple[str, str, str]]:
        """Return the name, the header and the meaning of each figure."""
        return [
            (name, figure.header.format(window="its window"), figure.meaning)
            for name, figure in policies.FIGURES.items()
        ]

    def list_page_charts(self) -> list[str]:
        """Return the charts of the policies and, with several clients, those of the clients."""
        clients = ["fairness"] if len(self.comparison.traffic.names) > 1 else []
        denied = any(result.whole.result.denied for result in self.comparison.results)
        return self.put_lesson_first(["policies", "left", *clients, *(["denials"] if clients and denied else [])])
