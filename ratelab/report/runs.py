"""Runs: comparisons and their sources, as commands print them and pages show them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from ratelab.lab.metrics import Figure
from ratelab.report.expectations import serialize_checks

if TYPE_CHECKING:
    from rich.console import RenderableType

    from ratelab.lab.closed_loop.verdict import LoopVerdict
    from ratelab.lab.scenarios import Scenario
    from ratelab.lab.scenarios.expectations import Check
    from ratelab.report.tables import Table
    from ratelab.report.verdicts import VerdictText


MAX_DESCRIBED_CLIENTS = 30
"""Clients of a scenario that are described in words."""


@dataclass(frozen=True, eq=False)
class BaseRun(ABC):
    """A comparison and its source, as commands and pages show it."""

    comparison: Any
    source: dict[str, Any]
    """The first items of the JSON object; the very first is the name of the traffic."""
    title: str
    notes: tuple[str, ...] = ()
    """Notes on the source, one to a line."""
    most_denied: int | None = None
    """The number of most-denied clients to list; None for a scenario, whose clients are all in the JSON."""
    scenario: Scenario | None = None
    """The scenario, unless the traffic was recorded."""
    checks: tuple[Check, ...] = ()
    """The expectations of the scenario, with the values of each row."""
    verdicts: tuple[LoopVerdict, ...] = ()
    """The verdict on each row, if clients react to their answers."""

    charts: ClassVar[tuple[str, ...]]
    """The charts that show such a run; the first by default."""
    figures: ClassVar[Mapping[str, Figure]]
    """The figures of all rows, by name."""

    @property
    def name(self) -> str:
        """The name of the traffic."""
        return str(next(iter(self.source.values())))

    @property
    @abstractmethod
    def subject(self) -> str:
        """The title and the subject of the comparison, for the title of a window."""

    # --- plain values

    @property
    @abstractmethod
    def event_columns(self) -> tuple[str, ...]:
        """The names in each event."""

    @abstractmethod
    def serialize(self) -> dict[str, Any]:
        """Return the JSON object of the run."""

    @abstractmethod
    def list_rows(self) -> list[dict[str, Any]]:
        """Return the rows of the table as CSV."""

    @abstractmethod
    def list_events(self) -> Iterator[dict[str, Any]]:
        """Yield every request with its decisions, in the order of arrival."""

    def serialize_all(self) -> dict[str, Any]:
        """Return the JSON object of the run, with the expectations if there are any."""
        return {**self.serialize(), **({"expectations": serialize_checks(self.checks)} if self.checks else {})}

    # --- sentences and tables

    @abstractmethod
    def describe(self) -> list[str]:
        """Describe the traffic and its limits, a line for each."""

    def describe_clients(self) -> list[str]:
        """Describe the clients of a scenario for a page."""
        return describe_clients(self.scenario) if self.scenario else []

    @abstractmethod
    def list_assumptions(self) -> list[str]:
        """Describe the assumptions of the comparison, a line for each."""

    @abstractmethod
    def summarize(self) -> list[str]:
        """Return the findings as sentences, the main one first."""

    def describe_verdicts(self) -> list[VerdictText]:
        """Return the verdicts on clients that react to their answers; nothing for others."""
        return []

    def list_verdict_lines(self, width: int) -> list[str]:  # noqa: ARG002
        """Return the verdicts as lines of a terminal; nothing without any."""
        return []

    @abstractmethod
    def build_table(self) -> Table:
        """Return the figures that matter to the choice."""

    @abstractmethod
    def build_figures_table(self) -> Table:
        """Return all figures: a row for each, with its name in JSON and CSV."""

    @abstractmethod
    def build_clients_table(self, limit: int) -> Table | None:
        """Return a row for each of at most `limit` clients with denials; None for fewer than two clients."""

    def build_page_clients_table(self, limit: int) -> Table | None:
        """Return the table of clients for a page."""
        return self.build_clients_table(limit)

    @abstractmethod
    def render_timeline(self, width: int) -> RenderableType:
        """Render the decisions over time, on lines of `width` columns."""

    @abstractmethod
    def list_meanings(self) -> list[tuple[str, str, str]]:
        """Return the name, the header in tables and the meaning of each figure."""

    # --- charts

    @abstractmethod
    def list_page_charts(self) -> list[str]:
        """Return the charts of a page: the chart of the lesson, then those that suit every run of this kind."""

    def put_lesson_first(self, charts: Iterable[str]) -> list[str]:
        """Return charts after that of the scenario's lesson, if it shows such a run."""
        lesson = [self.scenario.chart] if self.scenario and self.scenario.chart in self.charts else []
        return list(dict.fromkeys([*lesson, *charts]))


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
