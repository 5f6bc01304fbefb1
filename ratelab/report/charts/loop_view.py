"""View of a closed loop for its charts: a color for each run, and a common time axis."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

from ratelab.lab.closed_loop.figures import LoopComparison, LoopResult
from ratelab.lab.closed_loop.outcome import NO_LIMIT
from ratelab.report.charts.style import THEMES, assign_colors, assign_variant_colors
from ratelab.report.charts.time_axis import TimeAxis, choose_step
from ratelab.report.loop_findings import describe_case, describe_cases
from ratelab.report.loops import create_loop_axis


@dataclass(frozen=True, eq=False)
class LoopView:
    """A comparison of runs of a closed loop, with the values that its charts share."""

    comparison: LoopComparison
    theme: str

    @property
    def results(self) -> tuple[LoopResult, ...]:
        """The figures of each run, in the order of drawing."""
        return self.comparison.results

    @cached_property
    def colors(self) -> dict[str, str]:
        """The color of each run, by its label."""
        labels = [result.label for result in self.results]
        if self.results[0].variant is not None:
            return assign_variant_colors(labels)
        return {**assign_colors(labels, self.theme), NO_LIMIT: THEMES[self.theme].ink}

    @property
    def names(self) -> list[tuple[str, str]]:
        """The label and the color of each run."""
        return [(result.label, self.colors[result.label]) for result in self.results]

    @cached_property
    def whole(self) -> TimeAxis:
        """The time of the longest run; if all is over before half of it, only until then."""
        traffic, duration = self.results[0].population.first_tries, self.comparison.duration
        last = max(
            int(times[-1]) for each in self.results for times in (each.arrived, each.succeeded, [0]) if len(times)
        )
        faults = [fault.end for result in self.results for fault in result.population.faults]
        used = max(last, 1, *faults)
        step = choose_step(used, 10)
        return create_loop_axis(traffic, duration if used > duration // 2 else min(duration, step * (used // step + 1)))


def list_loop_conditions(comparison: LoopComparison) -> list[str]:
    """Return the first tries, the quota, the server and the faults that all cases share, for the caption of a chart."""
    described = [describe_case(case, with_clients=False) for case in comparison.cases]
    zone = ["UTC"] if LoopView(comparison, "light").whole.origin is not None else []
    return [*describe_cases(comparison, described, with_variants=False), *zone]
