"""View of several policies for their charts: a strip for each way to enforce them, and a color for each policy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from ratelab.lab.comparison import Comparison
from ratelab.lab.decisions import Outcome
from ratelab.lab.metrics import Result
from ratelab.lab.policies.figures import JointResult, PolicyComparison, PolicyResult
from ratelab.report.charts.canvas import LABEL_PEN, Box, Sheet
from ratelab.report.charts.style import THEMES, assign_colors
from ratelab.report.charts.text import make_legible
from ratelab.report.charts.view import MAX_NAME_IN, ComparisonView
from ratelab.report.policy_tables import name_policy

SWATCH_IN, ENTRY_GAP_IN = 0.12, 0.25
"""Width of the colored square of an entry of the legend, and the distance between entries."""


@dataclass(frozen=True, eq=False)
class PolicyView(ComparisonView):
    """A comparison of ways to enforce policies; its results are those of all policies together."""

    policies: PolicyComparison

    @classmethod
    def of(cls, policies: PolicyComparison, theme: str) -> PolicyView:
        """Return the view for a theme."""
        first = policies.parts[0].policy
        outcomes, results = [], []
        for result in policies.results:
            name = name_way(result, policies)
            outcomes.append(Outcome(first, policies.traffic, result.outcome.decisions))
            results.append(_rename(result, name))
        comparison = Comparison(
            policies.traffic, tuple(outcomes), None, tuple(results), client_timeout=policies.client_timeout
        )
        return cls(comparison, theme, policies)

    @property
    def has_quota(self) -> bool:
        """Whether all results have the same quota."""
        return False

    @cached_property
    def colors(self) -> dict[str, str]:
        """The color of each strip, and of each policy."""
        rows = self.policies.results[0].policies
        ink = THEMES[self.theme].ink
        ways = {result.algorithm: ink for result in self.results}
        return {**assign_colors([row.label for row in rows], self.theme), **ways}

    @cached_property
    def end(self) -> int:
        """The end of the time in nanoseconds: that of the traffic, or the last departure."""
        traffic = self.traffic
        delays = (result.outcome.decisions["delay_ns"] for result in self.policies.results)
        return max(1, traffic.duration, *(int((traffic.times + delay).max(initial=0)) for delay in delays))

    @cached_property
    def most_denied(self) -> int:
        """The client that was denied most, or else the one with the most requests."""
        denied = np.max([result.client_offered - result.client_admitted for result in self.results], axis=0)
        counts = denied if denied.any() else self.traffic.client_requests
        return int(counts.argmax())

    @property
    def client_name(self) -> str:
        """The name of that client, truncated."""
        return LABEL_PEN.truncate(make_legible(self.traffic.names[self.most_denied]), MAX_NAME_IN)

    def list_enforcing(self, result: JointResult) -> list[tuple[int, PolicyResult]]:
        """Return the policies of a result that enforce, with their numbers."""
        return [(n, row) for n, row in enumerate(result.policies) if row.policy is None or not row.policy.is_shadow]


def name_way(result: JointResult, policies: PolicyComparison) -> str:
    """Return the name of a way to enforce policies; of a single one, that of the whole."""
    return result.outcome.semantics if len(policies.results) > 1 else result.whole.label


def _rename(result: JointResult, name: str) -> Result:
    return replace(result.whole.result, algorithm=name)


def measure_legend(names: list[str], width: float) -> float:
    """Return the height of a legend."""
    return len(_break_legend(names, width)) * LABEL_PEN.line + 0.06


def write_legend(sheet: Sheet, box: Box, entries: list[tuple[str, str]]) -> Box:
    """Write names behind squares of their colors; return the rest of the box, below them."""
    colors = dict(entries)
    lines = _break_legend([name for name, _ in entries], box.width)
    for number, line in enumerate(lines):
        left, middle = box.left, box.top + (number + 0.5) * LABEL_PEN.line
        for name in line:
            square = Box(left, middle - SWATCH_IN / 2, SWATCH_IN, SWATCH_IN)
            axes = sheet.add_axes(square, 1, 1)
            axes.set_axis_off()
            axes.barh(0.5, 1, 1, color=colors[name])
            sheet.write(left + SWATCH_IN + 0.06, middle, name, LABEL_PEN, sheet.theme.ink, width=box.width)
            left += _measure_entry(name)
    return box.inset(top=measure_legend([name for name, _ in entries], box.width))


def _measure_entry(name: str) -> float:
    return SWATCH_IN + 0.06 + LABEL_PEN.measure(make_legible(name)) + ENTRY_GAP_IN


def _break_legend(names: list[str], width: float) -> list[list[str]]:
    lines: list[list[str]] = []
    room = 0.0
    for name in names:
        if not lines or _measure_entry(name) > room:
            lines.append([])
            room = width + ENTRY_GAP_IN
        lines[-1].append(name)
        room -= _measure_entry(name)
    return lines


def list_entries(view: PolicyView, extra: tuple[tuple[str, str], ...] = ()) -> list[tuple[str, str]]:
    """Return the names and the colors of the policies that enforce, after those of `extra`."""
    rows = view.list_enforcing(view.policies.results[0])
    return [*extra, *((name_policy(row), view.colors[row.label]) for _, row in rows)]
