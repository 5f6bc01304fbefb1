"""Figures of an outcome: their meanings, units and computation.

Sums are exact: they add up integers or use `math.fsum`. So a figure depends neither on the batches in which requests
are counted nor on the processor, and the same run prints the same bytes on every machine.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ratelab.algorithms import Policy
from ratelab.lab.decisions import Columns, Outcome
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic, split_batches
from ratelab.lab.windows import Rows, Window, departures, fullest_window
from ratelab.quota import NS_PER_S, Quota

DEFAULT_CLIENT_TIMEOUT = 10 * NS_PER_S
"""Nanoseconds after which many clients give up waiting for a response."""

Unit = Literal["count", "ratio", "percent", "seconds", "rate", "flag", "name"]


Condition = Literal["clients", "delays", "no timeouts", "timeouts", "accuracy"]
"""Several clients, delayed requests, none or some that are delayed beyond the client timeout, `--accuracy`."""


class Figure(NamedTuple):
    """Description of a figure, from which tables, legends, JSON and CSV are made."""

    meaning: str
    unit: Unit
    """The unit of its value; a `percent` is a ratio that tables show as a percentage, a `rate` is per second."""
    header: str
    """The header of its column in tables, in which `{window}` stands for the quota's window; empty for no column."""
    part_of: str
    """The figure of which a count is a part: tables show its share of it too."""
    better: Literal["lower", "higher"] | None
    """Which values are better; None if that depends on the purpose."""
    target: float | None
    """A value beyond which no value is better."""
    only_with: Condition | None
    """The property of a run without which the figure has no column."""
    source: str = ""
    """The publication that defines it."""


def figure(
    meaning: str,
    unit: Unit = "count",
    header: str = "",
    part_of: str = "",
    better: Literal["lower", "higher"] | None = None,
    target: float | None = None,
    only_with: Condition | None = None,
    source: str = "",
) -> dict[str, Figure]:
    """Return the metadata of a dataclass field that is a figure."""
    return {"figure": Figure(meaning, unit, header, part_of, better, target, only_with, source)}


def list_figures(kind: type) -> dict[str, Figure]:
    """Return the figures of a dataclass by name, in the order of its fields."""
    return {entry.name: entry.metadata["figure"] for entry in fields(kind) if "figure" in entry.metadata}


@dataclass(frozen=True, eq=False)
class Result:
    """Figures of one outcome. To add one, add a field here, and compute it in `measure`."""

    algorithm: str
    offered: int = field(metadata=figure("requests"))
    admitted: int = field(
        metadata=figure("requests admitted, at once or after a wait", header="admitted", only_with="no timeouts")
    )
    denied: int = field(metadata=figure("requests denied", header="denied", part_of="offered"))
    delayed: int = field(
        metadata=figure("requests admitted after a wait in a queue", header="delayed", only_with="delays")
    )
    admit_ratio: float = field(metadata=figure("admitted divided by offered", "ratio"))
    peak_in_window: int = field(
        metadata=figure("the largest cost let through for one key in any window", header="most in {window}")
    )
    overshoot: float = field(
        metadata=figure(
            "peak_in_window divided by burst: above 1, the quota was exceeded",
            "ratio",
            better="lower",
            target=1,
        )
    )
    mean_delay: float = field(metadata=figure("the mean wait of an admitted request, in seconds", "seconds"))
    max_delay: float = field(
        metadata=figure(
            "the longest wait of an admitted request, in seconds",
            "seconds",
            header="longest wait",
            better="lower",
            only_with="delays",
        )
    )
    burstiness: float | None = field(
        metadata=figure(
            "coefficient of variation of the gaps between departures: 0 if even, 1 if random, larger for bursts",
            "ratio",
        )
    )
    fairness: float | None = field(
        metadata=figure(
            "Jain's index of the admitted shares of the clients: 1 if all are equal, 1/n if one client gets everything",
            "ratio",
            better="higher",
        )
    )
    over_admitted: int | None = field(
        metadata=figure(
            "requests admitted that the exact sliding log denies",
            header="over-admitted",
            better="lower",
            only_with="accuracy",
        )
    )
    """None if the exact log cannot hold the burst."""
    over_denied: int | None = field(
        metadata=figure(
            "requests denied that the exact sliding log admits",
            header="over-denied",
            better="lower",
            only_with="accuracy",
        )
    )
    """None if the exact log cannot hold the burst."""
    state_bytes_per_key: int = field(metadata=figure("eight bytes for each number in the state of a key"))
    clients: int = field(metadata=figure("clients that sent requests"))
    clients_denied: int = field(
        metadata=figure("clients denied at least once", header="clients denied", part_of="clients", only_with="clients")
    )
    clients_denied_ratio: float = field(metadata=figure("clients_denied divided by clients", "percent"))
    in_time: int = field(
        metadata=figure(
            "requests admitted at once, or after a wait within the client timeout",
            header="admitted in time",
            only_with="timeouts",
        )
    )
    timed_out: int = field(
        metadata=figure(
            "requests admitted after a wait longer than the client timeout",
            header="too late",
            only_with="timeouts",
        )
    )
    client_offered: Integers
    """The number of requests of each client, by its index in `Traffic.names`."""
    client_admitted: Integers
    """The number of admitted requests of each client."""
    fullest: Window | None = None
    """The window of `peak_in_window`; None if no request was admitted."""


def measure(
    outcome: Outcome,
    reference: Outcome | None,
    client_timeout: int = DEFAULT_CLIENT_TIMEOUT,
    let_through: Columns | None = None,
) -> Result:
    """Compute the figures of an outcome; `reference` is that of the exact sliding log.

    A delay of more than `client_timeout` nanoseconds is too long for clients. If other policies decide too, windows
    hold the requests that all of them let through, and when.
    The window and the burst are those of the reference's quota, if there is a reference. Figures that compare decision
    by decision are None unless both outcomes share their traffic.
    """
    traffic, decisions = outcome.traffic, outcome.decisions
    quota = outcome.policy.quota if reference is None else reference.policy.quota
    exact = reference.decisions if reference is not None and reference.traffic is traffic else None
    counts = count_decisions(traffic, decisions, exact, client_timeout)
    departed = departures(traffic, decisions if let_through is None else let_through)
    fullest = fullest_window(departed, traffic.key_count, quota.window)
    return build_result(outcome.policy, quota, traffic, counts, fullest, measure_gaps(departed))


def build_result(
    policy: Policy, quota: Quota, traffic: Traffic, counts: DecisionCounts, fullest: Window | None, gaps: Gaps
) -> Result:
    """Compute the figures of a policy from counts and extremes of its decisions; `quota` has the window and burst."""
    peak = fullest.cost if fullest else 0
    client_offered = traffic.client_requests
    clients = int(np.count_nonzero(client_offered))
    clients_denied = int(np.count_nonzero(client_offered - counts.client_admitted))
    return Result(
        algorithm=policy.name,
        offered=len(traffic),
        admitted=counts.admitted,
        denied=len(traffic) - counts.admitted,
        delayed=counts.delayed,
        admit_ratio=round(counts.admitted / max(1, len(traffic)), 4),
        peak_in_window=peak,
        overshoot=round(peak / quota.burst, 4),
        mean_delay=round(float(counts.total_delay) / max(1, counts.admitted) / 1e9, 6),
        max_delay=round(counts.max_delay / 1e9, 6),
        burstiness=gaps.variation,
        fairness=compute_fairness(client_offered, counts.client_admitted),
        over_admitted=counts.over_admitted,
        over_denied=counts.over_denied,
        state_bytes_per_key=8 * len(policy.algorithm.start(0)),
        clients=clients,
        clients_denied=clients_denied,
        clients_denied_ratio=round(clients_denied / max(1, clients), 6),
        in_time=counts.admitted - counts.timed_out,
        timed_out=counts.timed_out,
        client_offered=client_offered,
        client_admitted=counts.client_admitted,
        fullest=fullest,
    )


@dataclass(eq=False)
class DecisionCounts:
    """DecisionCounts of requests by decision, and their delays in nanoseconds."""

    client_admitted: Integers
    admitted: int = 0
    delayed: int = 0
    total_delay: int = 0
    max_delay: int = 0
    timed_out: int = 0
    over_admitted: int | None = None
    """None, as `over_denied`, if the decisions are not compared with those of the exact log."""
    over_denied: int | None = None


def count_decisions(traffic: Traffic, decisions: Columns, exact: Columns | None, client_timeout: int) -> DecisionCounts:
    """Count the requests of `traffic` by decision, and by difference from the decisions of the exact log."""
    counts, over_admitted, over_denied = DecisionCounts(np.zeros(len(traffic.names), np.int64)), 0, 0
    for part, batch in traffic.batches():
        allowed = decisions["allowed"][part]
        delays = decisions["delay_ns"][part][allowed]
        np.add.at(counts.client_admitted, batch.clients[allowed], 1)
        counts.admitted += len(delays)
        counts.delayed += int(np.count_nonzero(delays))
        counts.total_delay += sum_exactly(delays)
        counts.timed_out += int(np.count_nonzero(delays > client_timeout))
        counts.max_delay = max(counts.max_delay, int(delays.max(initial=0)))
        if exact is not None:
            exactly_allowed = exact["allowed"][part]
            over_admitted += int(np.count_nonzero(allowed & ~exactly_allowed))
            over_denied += int(np.count_nonzero(exactly_allowed & ~allowed))
    if exact is not None:
        counts.over_admitted, counts.over_denied = over_admitted, over_denied
    return counts


class Gaps(NamedTuple):
    """Gaps between neighbouring departures of all keys: their number, and exact sums in nanoseconds."""

    number: int
    total: int
    squares: int

    @property
    def variation(self) -> float | None:
        """The coefficient of variation of the gaps; None below two gaps.

        It is 0 for even departures, 1 for a Poisson process and larger for bursts. Cox and Lewis, "The Statistical
        Analysis of Series of Events" (1966), section 4.
        """
        if self.number < 2 or self.total == 0:
            return None
        return round(math.sqrt(self.number * self.squares - self.total**2) / self.total, 4)


def measure_gaps(departed: Rows) -> Gaps:
    """Sum the gaps between departures, and their squares."""
    count = total = squares = 0
    last = np.empty(0, np.int64)
    for part in split_batches(len(departed)):
        times = np.append(last, departed[part]["time"])
        last, gaps = times[-1:], np.diff(times)
        count, total, squares = count + len(gaps), total + sum_exactly(gaps), squares + sum_squares_exactly(gaps)
    return Gaps(count, total, squares)


def compute_fairness(offered: Integers, admitted: Integers) -> float | None:
    """Return Jain's index of the clients' admitted shares of their requests; None without requests.

    The index of n shares x is (sum x)**2 / (n * sum x**2). Jain, Chiu and Hawe, "A quantitative measure of fairness
    and discrimination" (DEC-TR-301, 1984).
    """
    senders = offered > 0
    shares: NDArray[np.float64] = admitted[senders] / offered[senders]
    if not len(shares):
        return None
    squares = math.fsum(np.square(shares).tolist())
    return 1.0 if squares == 0 else round(math.fsum(shares.tolist()) ** 2 / (len(shares) * squares), 4)


_LIMB_BITS = 21
"""Size of the limbs that numbers are cut into; the products of 2**20 pairs of limbs add up to less than 2**63."""


def sum_exactly(values: Integers) -> int:
    """Return the sum of at most 2**31 integers, none below 0."""
    return (int((values >> 31).sum()) << 31) + int((values & (2**31 - 1)).sum())


def sum_squares_exactly(values: Integers) -> int:
    """Return the sum of the squares of at most 2**20 integers, none below 0."""
    shifts = (0, _LIMB_BITS, 2 * _LIMB_BITS)
    limbs = {shift: values >> shift & (2**_LIMB_BITS - 1) for shift in shifts}
    used = {shift: limb for shift, limb in limbs.items() if limb.any()}
    return sum(int(left @ right) << low + high for low, left in used.items() for high, right in used.items())


def sum_floats_exactly(values: NDArray[np.float64]) -> Fraction:
    """Return the sum of at most 2**31 floats, none below 0: that of their 53-bit mantissas for each exponent."""
    mantissas, exponents = np.frexp(values)
    digits = (mantissas * 2.0**53).astype(np.int64)
    return sum(
        (
            sum_exactly(digits[exponents == exponent]) * Fraction(2) ** (exponent - 53)
            for exponent in np.unique(exponents).tolist()
        ),
        Fraction(0),
    )
