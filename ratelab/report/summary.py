"""Summaries of comparisons: the traffic, the quota and the findings as sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ratelab.lab.metrics import Result
from ratelab.lab.traffic import Traffic
from ratelab.quota import Quota, about

if TYPE_CHECKING:
    from ratelab.lab.comparison import Comparison
    from ratelab.lab.scenarios import Scenario


@dataclass(frozen=True, eq=False)
class Run:
    """A comparison and its source, as commands and pages show it."""

    comparison: Comparison
    source: dict[str, Any]
    """The first items of the JSON object; the very first is the name of the traffic."""
    title: str
    notes: tuple[str, ...] = ()
    """Notes on the source, one to a line."""
    most_denied: int | None = None
    """The number of most-denied clients to list; None for a scenario, whose clients are all in the JSON."""
    scenario: Scenario | None = None
    """The scenario, unless the traffic was recorded."""

    @property
    def name(self) -> str:
        """The name of the traffic."""
        return str(next(iter(self.source.values())))


def describe_run(traffic: Traffic, quota: Quota) -> str:
    """Return two lines: the requests and clients of the traffic, and the quota."""
    owner = "key" if _count_keys(traffic) < len(traffic.names) else "client"
    granted = f"{format_rate(quota)}, burst {quota.burst:,} (window {about(quota.window)})"
    return f"{describe_traffic(traffic)}\nquota for each {owner}: {granted}"


def describe_traffic(traffic: Traffic) -> str:
    """Return the number of requests and clients, and the duration: `30 requests from 1 client in 10s`."""
    keys = _count_keys(traffic)
    shared = f" sharing {pluralize(keys, 'key')}" if keys < len(traffic.names) else ""
    clients = f"{pluralize(len(traffic.names), 'client')}{shared}"
    return f"{pluralize(len(traffic), 'request')} from {clients} in {about(traffic.duration)}"


def _count_keys(traffic: Traffic) -> int:
    return len(np.unique(traffic.keys))


def summarize(comparison: Comparison, many_clients: bool = False) -> list[str]:
    """Return the findings of a comparison: how well the quota was kept, and what that cost the clients."""
    if not len(comparison.traffic):
        return ["There were no requests, so there is nothing to compare."]
    sentences = [describe_protection(comparison), describe_denials(comparison)]
    if many_clients and any(result.denied for result in comparison.results):
        sentences.append(_describe_denied_clients(comparison))
    return sentences


def describe_protection(comparison: Comparison) -> str:
    """Describe how well the quota was kept."""
    burst, window = comparison.quota.burst, about(comparison.quota.window)
    peak = max(result.peak_in_window for result in comparison.results)
    if peak == 0:
        return f"No algorithm let any request through; the quota is {burst:,} in a window of {window}."
    if peak <= burst:
        return f"No algorithm let more than {peak:,} through in any window of {window}; the quota is {burst:,}."
    highest = [result.algorithm for result in comparison.results if result.peak_in_window == peak]
    within = [result.algorithm for result in comparison.results if result.peak_in_window <= burst]
    others = f"; {join_names(within)} stayed within it" if within else ""
    return f"{join_names(highest)} let {peak:,} through in a window of {window}, above the quota of {burst:,}{others}."


def describe_denials(comparison: Comparison) -> str:
    """Describe how many requests were denied, how many were delayed, and how many cost more than the burst."""
    results, offered = comparison.results, len(comparison.traffic)
    least, most = min(result.denied for result in results), max(result.denied for result in results)
    if most == 0:
        clause = f"All {offered:,} requests were admitted" if offered > 1 else "The only request was admitted"
    elif least == most and (len(results) > 1 or most == offered):
        clause = f"{_name_all(results)} denied {_format_part(most, offered, 'request')}"
    else:
        lenient = [result.algorithm for result in results if result.denied == least]
        strict = [result.algorithm for result in results if result.denied == most]
        fewest = f", {join_names(lenient)} {format_count(least)}" if least < most else ""
        clause = f"Of {pluralize(offered, 'request')}, {join_names(strict)} denied {most:,}{fewest}"
    delays = "".join(describe_delays(result) for result in results if result.delayed)
    return " ".join([f"{clause}{delays}.", *describe_oversized_requests(comparison)])


def describe_delays(result: Result) -> str:
    """Describe how many requests an algorithm delayed, as the end of a sentence."""
    return f"; {result.algorithm} delayed {result.delayed:,} by up to {format_seconds(result.max_delay)}"


def describe_oversized_requests(comparison: Comparison) -> list[str]:
    """Describe how many requests cost more than the burst; return nothing if there are none, or some are admitted."""
    burst = comparison.quota.burst
    count = comparison.traffic.count_costlier(burst)
    if not 0 < count <= min(result.denied for result in comparison.results):
        return []
    costs = "costs" if count == 1 else "cost"
    return [f"{pluralize(count, 'request')} {costs} more than the burst of {burst:,} and can never be admitted."]


def _describe_denied_clients(comparison: Comparison) -> str:
    """Describe how many clients were denied at least once, by the strictest and by the most lenient algorithms."""
    results, clients = comparison.results, int(np.count_nonzero(comparison.traffic.client_requests))
    least, most = (choose(result.clients_denied for result in results) for choose in (min, max))
    if least == most and len(results) > 1:
        return f"{_name_all(results)} denied {_format_part(most, clients, 'client')} at least once."
    strict = [result.algorithm for result in results if result.clients_denied == most]
    clause = f"Of {pluralize(clients, 'client')}, {join_names(strict)} denied {_format_share(most, clients)}"
    if least == most:
        return f"{clause} at least once."
    lenient = [result.algorithm for result in results if result.clients_denied == least]
    return f"{clause} at least once, {join_names(lenient)} {_format_share(least, clients)}."


def _name_all(results: Sequence[Result]) -> str:
    return "Every algorithm" if len(results) > 1 else results[0].algorithm


def _format_part(part: int, whole: int, noun: str) -> str:
    """Format a part of a whole: `7 of 20 requests`, `all 20 requests`, `the only request`."""
    if part < whole:
        return f"{part:,} of {pluralize(whole, noun)}"
    return f"all {pluralize(whole, noun)}" if whole > 1 else f"the only {noun}"


def _format_share(count: int, whole: int) -> str:
    """Format a count with its share of a whole: `2 (0.114 %)`, `none`."""
    return f"{count:,} ({100 * count / max(1, whole):.3g} %)" if count else "none"


def format_count(count: int) -> str:
    """Format a count, with `none` for 0."""
    return f"{count:,}" if count else "none"


def format_rate(quota: Quota) -> str:
    """Format the rate of a quota: `2/s`, `1,000/min`."""
    count, _, period = quota.rate.partition("/")
    return f"{int(count):,}/{period}"


def format_seconds(value: float) -> str:
    """Format a time in its most readable unit: `0`, `4us`, `0.2s`, `1.97s`, `59s`, `26.6 days`."""
    if 0 < value < 0.01 or value >= 1000:
        return about(round(value * 1e9))
    return f"{value:.0f}s" if value >= 10 else f"{value:.2f}".rstrip("0").rstrip(".") + "s" * (value > 0)


def pluralize(count: int, noun: str) -> str:
    """Format a count of things: `1 request`, `2,000 requests`."""
    return f"{count:,} {noun}{'s' * (count != 1)}"


def join_names(names: Sequence[str]) -> str:
    """Join names as in a sentence: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
