"""Figures of closed loops: what became of the requests of clients that react, and of the tries that they sent."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab.closed_loop.behavior import Fault, Population
from ratelab.lab.closed_loop.outcome import ERROR, GAVE_UP, PENDING, SHED, SUCCESS, TIMEOUT, LoopOutcome, run_loops
from ratelab.lab.comparison import check_names
from ratelab.lab.decisions import Progress
from ratelab.lab.metrics import compute_fairness, figure
from ratelab.lab.spill import Integers
from ratelab.lab.windows import Window, departures, fullest_window
from ratelab.quota import NS_PER_S, Quota

HERD_WINDOW = NS_PER_S // 10
"""Nanoseconds in which tries are counted to find herds."""

RECOVERED_PERCENT, RECOVERED_WINDOWS = 90, 3
"""The goodput at which a service has recovered, in percent of that before, and for how many windows."""

_BROOKER = 'Brooker, "Fixing retries with token buckets and circuit breakers" (2022)'
_BRONSON = 'Bronson et al., "Metastable Failures in Distributed Systems" (HotOS 2021)'
_OVERLOAD = 'Beyer et al., "Site Reliability Engineering" (2016), chapter 21'


@dataclass(frozen=True, eq=False)
class LoopCase:
    """Clients, and the policies that limit them, one at a time."""

    population: Population
    policies: tuple[Policy, ...]
    """Empty without a limiter."""
    variant: str | None = None
    """The name of a variant of a scenario."""


@dataclass(frozen=True, eq=False)
class LoopResult:
    """Figures of one outcome of a closed loop. To add one, add a field here, and compute it in `measure_loop`."""

    algorithm: str
    variant: str | None
    """The name of the variant of the scenario, if it has several."""
    label: str
    """The name of the row: that of the algorithm, of the variant or of both."""
    population: Population
    policy: Policy | None
    first_tries: int = field(metadata=figure("requests that clients began", header="requests"))
    attempts: int = field(metadata=figure("tries that reached the limiter, first tries included", header="tries"))
    amplification: float = field(
        metadata=figure(
            "attempts divided by first_tries", "ratio", "tries per request", better="lower", target=1, source=_BROOKER
        )
    )
    successes: int = field(
        metadata=figure("requests that were answered with success", "count", "served", "first_tries")
    )
    goodput: float = field(
        metadata=figure("successes a second of the duration", "rate", "goodput", better="higher", source=_OVERLOAD)
    )
    goodput_ratio: float = field(metadata=figure("successes divided by first_tries", "percent", better="higher"))
    success_ratio: float | None = field(
        metadata=figure("successes divided by the requests that ended", "percent", better="higher", source=_BROOKER)
    )
    """None if no request ended."""
    gave_up: int = field(
        metadata=figure("requests that clients gave up", header="gave up", part_of="first_tries", better="lower")
    )
    pending: int = field(metadata=figure("requests that had not ended at the end", header="pending"))
    denied: int = field(metadata=figure("tries that the limiter denied", header="denied", part_of="attempts"))
    errors: int = field(metadata=figure("tries that were answered with an error", header="errors", part_of="attempts"))
    shed: int = field(metadata=figure("tries that the server shed", header="shed", part_of="attempts"))
    timeouts: int = field(
        metadata=figure("tries that were not answered within the timeout", header="timeouts", part_of="attempts")
    )
    locally_rejected: int = field(
        metadata=figure(
            "tries that a client's own breaker or throttle rejected", header="rejected by clients", source=_OVERLOAD
        )
    )
    wasted: int = field(
        metadata=figure(
            "tries that were served after their caller had left",
            header="wasted",
            part_of="attempts",
            better="lower",
            source=_BRONSON,
        )
    )
    time_to_success_p50: float | None = field(
        metadata=figure(
            "the median time from the first try to success, in seconds",
            "seconds",
            "half within",
            better="lower",
        )
    )
    """None without successes, like the next."""
    time_to_success_p99: float | None = field(
        metadata=figure(
            "the 99th percentile of that time, by the nearest rank, in seconds",
            "seconds",
            "99 % within",
            better="lower",
        )
    )
    herd_peak: float | None = field(
        metadata=figure(
            "the most tries in any 100 ms divided by the mean of 100 ms",
            "ratio",
            "herd peak",
            better="lower",
            source='Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015)',
        )
    )
    """None without tries."""
    recovery_time: float | None = field(
        metadata=figure(
            "seconds from the end of the last fault until goodput is back at 90 % of that before the first, "
            "for three windows of 1/100 of the duration, at least 1 s each",
            "seconds",
            "recovery",
            better="lower",
            source=_BRONSON,
        )
    )
    """None without faults, or if it is never back."""
    metastable: bool = field(
        metadata=figure(
            "whether goodput is still under half of that before the faults in the last quarter of the time after them",
            "flag",
            source=_BRONSON,
        )
    )
    peak_in_window: int | None = field(
        metadata=figure("the largest cost let through for one key in any window", header="most in {window}")
    )
    """None without a limiter, like the next."""
    overshoot: float | None = field(
        metadata=figure(
            "peak_in_window divided by burst: above 1, the quota was exceeded", "ratio", better="lower", target=1
        )
    )
    fairness: float | None = field(
        metadata=figure(
            "Jain's index of the goodput ratios of the clients: 1 if all are equal, 1/n if one client gets everything",
            "ratio",
            better="higher",
            source='Jain, Chiu and Hawe, "A quantitative measure of fairness and discrimination" (DEC-TR-301, 1984)',
        )
    )
    clients: int = field(metadata=figure("clients that began requests"))
    client_counts: dict[str, Integers]
    """For each client, by its index: `first_tries`, `attempts`, `denied`, `successes` and `gave_up`."""
    started: Integers
    """The times at which requests began, in order, in nanoseconds like the next four."""
    arrived: Integers
    """The times at which tries reached the limiter, in order."""
    denied_at: Integers
    """Those of them that were denied."""
    succeeded: Integers
    """The times at which clients learned of their successes, in order."""
    times_to_success: Integers
    """From the first try to success, the shortest first."""
    requests_by_tries: dict[int, Integers]
    """The number of requests that ended with `SUCCESS` or `GAVE_UP`, or are `PENDING`, by their number of tries."""
    fullest: Window | None = None
    """The window of `peak_in_window`; None if no request was admitted."""


@dataclass(frozen=True, eq=False)
class LoopComparison:
    """Figures of clients that react: against several policies, or in several variants. Each has traffic of its own."""

    cases: tuple[LoopCase, ...]
    results: tuple[LoopResult, ...]
    """Those of all policies of the first case, then of the next."""
    noun: str = ""
    """The noun for its rows, if they are neither algorithms nor variants."""
    outcomes: tuple[LoopOutcome, ...] = ()
    """The tries behind each result; empty unless they were kept."""

    @property
    def quotas(self) -> list[Quota]:
        """The distinct quotas, without those of runs that have no limiter."""
        return list(dict.fromkeys(policy.quota for case in self.cases for policy in case.policies))

    @property
    def duration(self) -> int:
        """The longest duration in nanoseconds."""
        return max(case.population.duration for case in self.cases)

    @property
    def has_same_requests(self) -> bool:
        """Whether clients began as many requests in each run, as those with an open loop do."""
        return len({result.first_tries for result in self.results}) == 1


def compare_loops(cases: Sequence[LoopCase], progress: Progress = lambda _: None, keep: bool = False) -> LoopComparison:
    """Run the clients of each case against each of its policies; keep the tries if `keep`.

    Raises `InputError` if two policies of a case have the same name.
    """
    for case in cases:
        check_names(policy.name for policy in case.policies)
    results, kept = [], []
    pairs = [(case, policy) for case in cases for policy in case.policies or (None,)]
    outcomes = run_loops([(policy, case.population) for case, policy in pairs], progress)
    for (case, _), outcome in zip(pairs, outcomes, strict=True):
        label = case.variant
        if len(case.policies) > 1 or label is None:
            label = outcome.algorithm if label is None else f"{outcome.algorithm} ({label})"
        results.append(measure_loop(outcome, label, case.variant))
        if keep:
            kept.append(outcome)
    return LoopComparison(tuple(cases), tuple(results), outcomes=tuple(kept))


def measure_loop(outcome: LoopOutcome, label: str = "", variant: str | None = None) -> LoopResult:
    """Compute the figures of an outcome; by default, its label is the name of the algorithm."""
    policy, traffic, population = outcome.policy, outcome.traffic, outcome.population
    requests, tries, duration = outcome.requests, outcome.tries, population.duration
    done, gave_up = requests.results == SUCCESS, requests.results == GAVE_UP
    denied = ~outcome.admissions["allowed"]
    failed = np.bincount(tries.results, minlength=PENDING).tolist()
    successes = int(np.count_nonzero(done))
    ends = successes + int(np.count_nonzero(gave_up))
    succeeded = np.sort(requests.ended[done])
    times_to_success = np.sort(requests.ended[done] - requests.started[done])
    fullest = None
    if policy is not None:
        departed = departures(traffic, outcome.admissions)
        fullest = fullest_window(departed, traffic.key_count, policy.quota.window)
    peak = None if policy is None else fullest.cost if fullest else 0
    clients = {
        "first_tries": requests.clients,
        "attempts": traffic.clients,
        "denied": traffic.clients[denied],
        "successes": requests.clients[done],
        "gave_up": requests.clients[gave_up],
    }
    counts = {name: np.bincount(column, minlength=len(traffic.names)) for name, column in clients.items()}
    return LoopResult(
        algorithm=outcome.algorithm,
        variant=variant,
        label=label or outcome.algorithm,
        population=population,
        policy=policy,
        first_tries=len(requests),
        attempts=len(tries),
        amplification=round(len(tries) / max(1, len(requests)), 4),
        successes=successes,
        goodput=round(successes * NS_PER_S / duration, 4),
        goodput_ratio=round(successes / max(1, len(requests)), 6),
        success_ratio=round(successes / ends, 6) if ends else None,
        gave_up=ends - successes,
        pending=len(requests) - ends,
        denied=int(np.count_nonzero(denied)),
        errors=failed[ERROR],
        shed=failed[SHED],
        timeouts=failed[TIMEOUT],
        locally_rejected=outcome.locally_rejected,
        wasted=int(np.count_nonzero(tries.wasted)),
        time_to_success_p50=_find_percentile(times_to_success, 50),
        time_to_success_p99=_find_percentile(times_to_success, 99),
        herd_peak=compute_herd_peak(traffic.times, duration),
        recovery_time=compute_recovery_time(succeeded, population.faults, duration),
        metastable=is_metastable(succeeded, population.faults, duration),
        peak_in_window=peak,
        overshoot=None if policy is None or peak is None else round(peak / policy.quota.burst, 4),
        fairness=compute_fairness(counts["first_tries"], counts["successes"]),
        clients=int(np.count_nonzero(counts["first_tries"])),
        client_counts=counts,
        started=requests.started,
        arrived=traffic.times,
        denied_at=traffic.times[denied],
        succeeded=succeeded,
        times_to_success=times_to_success,
        requests_by_tries={
            result: np.bincount(requests.tries[requests.results == result]) for result in (SUCCESS, GAVE_UP, PENDING)
        },
        fullest=fullest,
    )


def _find_percentile(ordered: Integers, percent: int) -> float | None:
    """Return a percentile of durations by the nearest rank, in seconds; None without any."""
    return round(int(ordered[-(-percent * len(ordered) // 100) - 1]) / NS_PER_S, 6) if len(ordered) else None


def compute_herd_peak(times: Integers, duration: int) -> float | None:
    """Return the most of `times`, which are in order, in any 100 ms, divided by their mean number; None without any."""
    if not len(times):
        return None
    peak = int((np.searchsorted(times, times + HERD_WINDOW) - np.arange(len(times))).max())
    return round(peak * duration / (len(times) * min(HERD_WINDOW, duration)), 4)


def choose_recovery_window(duration: int) -> int:
    """Return the nanoseconds of the windows in which goodput is counted: 1/100 of the duration, but at least 1 s."""
    return max(NS_PER_S, duration // 100)


def compute_recovery_time(succeeded: Integers, faults: Sequence[Fault], duration: int) -> float | None:
    """Return the seconds from the end of the last fault to the first of three windows with enough successes.

    `succeeded` are the times of successes, in order. Return None without faults, if nothing succeeded before the first,
    or if goodput is never back.
    """
    if not faults:
        return None
    begin, end, window = min(fault.begin for fault in faults), _find_end(faults), choose_recovery_window(duration)
    before = int(np.searchsorted(succeeded, begin))
    if not before:
        return None
    enough = -(-RECOVERED_PERCENT * before * window // (100 * begin))
    edges = np.arange(end, duration + 1, window)
    is_back = np.diff(np.searchsorted(succeeded, edges)) >= enough
    for first in range(len(is_back) - RECOVERED_WINDOWS + 1):
        if is_back[first : first + RECOVERED_WINDOWS].all():
            return round(first * window / NS_PER_S, 6)
    return None


def is_metastable(succeeded: Integers, faults: Sequence[Fault], duration: int) -> bool:
    """Return whether goodput stays under half of that before the faults, late in the time after them.

    `succeeded` are the times of successes, in order; those of the last quarter of the time after the faults count.
    """
    if not faults or _find_end(faults) >= duration:
        return False
    begin, rest = min(fault.begin for fault in faults), duration - _find_end(faults)
    before = int(np.searchsorted(succeeded, begin))
    late = len(succeeded) - int(np.searchsorted(succeeded, duration - rest // 4))
    return 2 * late * begin < before * (rest // 4)


def _find_end(faults: Sequence[Fault]) -> int:
    return max(fault.end for fault in faults)
