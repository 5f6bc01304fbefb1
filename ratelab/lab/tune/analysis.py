"""Analysis of a tuning: its outliers, and how far its burst depends on days, hours and the resolution of times."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ratelab.algorithms import Policy
from ratelab.lab.traces import Trace, TraceOptions
from ratelab.lab.traces.merge import MINUTE_NS
from ratelab.lab.tune.outliers import Outlier, find_outliers, look_again
from ratelab.lab.tune.resampling import HourNeeds, NeedBand, compare_resolutions, measure_band, measure_hours
from ratelab.lab.tune.tuning import Candidate, Tuning, check_policy
from ratelab.quota import NS_PER_S, UNITS

MIN_HOURS_NS = UNITS["day"]
"""Length from which on a trace is split by hours and days."""


@dataclass(frozen=True, eq=False)
class Analysis:
    """A tuning, and what else the traffic says about it."""

    tuning: Tuning
    outlier_count: int
    """Clients that need more than the recommended burst."""
    outliers: list[Outlier]
    """Those of them that need most, in order."""
    denied_in_log: dict[str, int] | None = None
    """The number of requests in the log with each status of a limit; None if the log was not read twice."""
    bursts_within_second: dict[str, int] | None = None
    """The burst by how requests are placed within whole seconds; None if times are finer, or not from a log."""
    hours: tuple[HourNeeds, ...] = ()
    """Needs by hour of the week; none for a trace of less than a day, and for a scenario."""
    band: NeedBand | None = None
    check: Candidate | None = None
    """The denials of a policy to check."""

    @property
    def passed(self) -> bool:
        """Whether the policy to check denies no more clients than are tolerated."""
        check = self.check
        return check is None or check.clients_denied <= self.tuning.tolerate * self.tuning.clients


def analyze(tuning: Tuning, check: Policy | None = None) -> Analysis:
    """Find the outliers of a tuning, and count what the policy `check` denies."""
    count, outliers = find_outliers(tuning)
    return Analysis(tuning, count, outliers, check=None if check is None else check_policy(tuning, check))


def analyze_trace(
    tuning: Tuning,
    trace: Trace,
    paths: tuple[str, ...],
    options: TraceOptions,
    check: Policy | None = None,
    progress: Callable[[int], None] = lambda _: None,
) -> Analysis:
    """Analyze a tuning of a trace, which is read a second time; `progress` is called with the bytes read."""
    count, outliers = find_outliers(tuning)
    denied = None
    if "-" not in paths:
        outliers, inspection = look_again(outliers, paths, options, progress)
        denied = inspection.denied
    is_long = tuning.traffic.duration >= MIN_HOURS_NS
    bursts = None
    if trace.whole_seconds:
        unit = MINUTE_NS if any("whole minutes" in note for note in trace.notes) else NS_PER_S
        bursts = compare_resolutions(tuning, unit, options.within_second == "spread")
    return Analysis(
        tuning,
        count,
        outliers,
        denied_in_log=denied,
        bursts_within_second=bursts,
        hours=measure_hours(tuning) if is_long else (),
        band=measure_band(tuning) if is_long else None,
        check=None if check is None else check_policy(tuning, check),
    )
