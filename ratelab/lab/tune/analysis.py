"""Analysis of a tuning: its outliers, and how far its burst depends on days, hours and the resolution of times."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from ratelab.algorithms import Policy, traits_of
from ratelab.lab.decisions import Progress
from ratelab.lab.traces import Trace, TraceOptions
from ratelab.lab.traces.merge import MINUTE_NS
from ratelab.lab.tune.candidates import Candidate, count_denials
from ratelab.lab.tune.demand import run_steps
from ratelab.lab.tune.outliers import Inspect, Outlier, find_outliers, look_again
from ratelab.lab.tune.resampling import HourNeeds, NeedBand, compare_resolutions, measure_hours_and_days
from ratelab.lab.tune.tuning import Tuning
from ratelab.quota import NS_PER_S, UNITS

MIN_HOURS_NS = UNITS["day"]
"""Length from which on a trace is split by hours and days."""


class Variation(NamedTuple):
    """How the recommended burst depends on the times of requests; for an algorithm of windows, this is not known."""

    bursts_within_second: dict[str, int] | None = None
    """The burst by how requests are placed within whole seconds; None if times are finer, or not from a log."""
    hours: tuple[HourNeeds, ...] = ()
    """Needs by hour of the week; none for a trace of less than a day, and for a scenario."""
    band: NeedBand | None = None


UNKNOWN = Variation()


@dataclass(frozen=True, eq=False)
class Analysis:
    """A tuning, and what else the traffic says about it."""

    tuning: Tuning
    outlier_count: int
    """Clients that the recommended quota denies something."""
    outliers: list[Outlier]
    """Those of them that need most, in order."""
    denied_in_log: dict[str, int] | None = None
    """The number of requests in the log with each status of a limit; None if the log was not read twice."""
    variation: Variation = UNKNOWN
    check: Candidate | None = None
    """The denials of a policy to check."""

    @property
    def passed(self) -> bool:
        """Whether the policy to check denies no more clients than are tolerated."""
        check = self.check
        return check is None or check.clients_denied <= self.tuning.tolerate * self.tuning.clients


def analyze(
    tuning: Tuning, check: Policy | None = None, variation: Variation = UNKNOWN, inspect: Inspect | None = None
) -> Analysis:
    """Find the outliers of a tuning, and count what the policy `check` denies; `inspect` reads the log again."""
    count, outliers = find_outliers(tuning)
    denied = None
    if inspect is not None:
        outliers, inspection = look_again(outliers, inspect)
        denied = inspection.denied
    checked = None if check is None else run_steps(tuning.demand, [count_denials(check, tuning.frontier)])[0]
    return Analysis(tuning, count, outliers, denied, variation, checked)


def measure_variation(tuning: Tuning, trace: Trace, options: TraceOptions, progress: Progress) -> Variation:
    """Measure how the burst depends on the times of a trace.

    `progress` is called with the number of further requests handled, of `count_variation_work` in all.
    """
    policy, is_long = tuning.recommended.policy, _is_long(tuning)
    if not traits_of(policy.algorithm).admits_need:
        return UNKNOWN
    bursts, hours, band = UNKNOWN
    if trace.whole_seconds:
        unit = MINUTE_NS if any("whole minutes" in note for note in trace.notes) else NS_PER_S
        bursts = compare_resolutions(tuning, unit, options.within_second == "spread", progress)
    if is_long:
        hours, band = measure_hours_and_days(tuning, progress)
    return Variation(bursts, hours, band)


def count_variation_work(tuning: Tuning, trace: Trace) -> int:
    """Return how many requests `measure_variation` handles."""
    return len(tuning.traffic) * (bool(trace.whole_seconds) + _is_long(tuning))


def _is_long(tuning: Tuning) -> bool:
    return tuning.traffic.duration >= MIN_HOURS_NS
