"""What a report is about."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ratelab.lab.comparison import Comparison
    from ratelab.lab.scenarios import Scenario


@dataclass(frozen=True, eq=False)
class Run:
    """A comparison, what it came from and what to say about that."""

    comparison: Comparison
    source: dict[str, Any]
    """What `--json` says first: the traffic's name before all else."""
    title: str
    notes: tuple[str, ...] = ()
    most_denied: int | None = None
    """How many clients to tell of; None for a scenario's few, which are all told in the JSON."""
    scenario: Scenario | None = None
    """The scenario that was run, if it was one."""

    @property
    def name(self) -> str:
        """The traffic's name."""
        return str(next(iter(self.source.values())))
