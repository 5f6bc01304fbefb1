"""What a comparison shows, in one or two plain sentences."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from ratelab.lab.comparison import Comparison
from ratelab.lab.metrics import Result
from ratelab.quota import Quota, about

if TYPE_CHECKING:
    from ratelab.lab.comparison import Comparison
    from ratelab.lab.scenarios import Scenario


def findings(comparison: Comparison, many_clients: bool = False) -> list[str]:
    """Return what an engineer should take away: how well the quota was kept, and what it cost the clients."""
    if not len(comparison.traffic):
        return ["There were no requests, so there is nothing to compare."]
    anybody_denied = any(result.denied for result in comparison.results)
    reach = [_reach(comparison)] if many_clients and anybody_denied else []
    return [protection(comparison), price(comparison), *reach]


def protection(comparison: Comparison) -> str:
    """Say how well the quota was kept."""
    burst, window = comparison.quota.burst, about(comparison.quota.window)
    worst = max(result.peak_in_window for result in comparison.results)
    if worst == 0:
        return f"No algorithm let anything through, where the quota is {burst:,} within {window}."
    if worst <= burst:
        return f"No algorithm let more than {_most(worst)} through in any {window}, where the quota is {burst:,}."
    leaders = [result.algorithm for result in comparison.results if result.peak_in_window == worst]
    kept = [result.algorithm for result in comparison.results if result.peak_in_window <= burst]
    faithful = f"; {listed(kept)} kept to it" if kept else ""
    return f"{listed(leaders)} let {worst:,} through within {window} where the quota is {burst:,}{faithful}."


def price(comparison: Comparison) -> str:
    """Say how many requests were denied, how many had to wait, and how many no wait could help."""
    results = comparison.results
    least, most = min(result.denied for result in results), max(result.denied for result in results)
    offered = len(comparison.traffic)
    if most == 0:
        told = f"All {offered:,} requests were admitted" if offered > 1 else "The one request was admitted"
    elif least == most and (len(results) > 1 or most == offered):
        told = f"{_everyone(results)} denied {_part(most, offered, 'request')}"
    else:
        lenient = [result.algorithm for result in results if result.denied == least]
        strict = [result.algorithm for result in results if result.denied == most]
        fewest = f", {listed(lenient)} {f'{least:,}' if least else 'none'}" if least < most else ""
        told = f"Of {counted(offered, 'request')}, {listed(strict)} denied {most:,}{fewest}"
    queues = [result for result in results if result.delayed]
    return " ".join([f"{told}{''.join(map(queued, queues))}.", *hopeless(comparison)])


def hopeless(comparison: Comparison) -> list[str]:
    """Say how many requests cost more than the burst, if any do and no algorithm of somebody's own admits them."""
    burst = comparison.quota.burst
    count = comparison.traffic.count_costlier(burst)
    if not 0 < count <= min(result.denied for result in comparison.results):
        return []
    costs = "costs" if count == 1 else "cost"
    return [f"{counted(count, 'request')} {costs} more than the burst of {burst:,} and can never be admitted."]


def _reach(comparison: Comparison) -> str:
    """Say how many of the clients noticed, by the harshest and by the mildest algorithms."""
    results, clients = comparison.results, int(np.count_nonzero(comparison.traffic.client_requests))
    counts = sorted({result.clients_denied for result in results}, reverse=True)
    if len(counts) == 1 < len(results):
        return f"{_everyone(results)} denied {_part(counts[0], clients, 'client')} at least once."
    told = []
    for count in (counts[0], counts[-1])[: len(counts)]:
        names = [result.algorithm for result in results if result.clients_denied == count]
        share = f"{count:,} ({100 * count / max(1, clients):.3g} %)"
        told.append(f"{share} by {listed(names)}")
    return f"Of {counted(clients, 'client')}, denied at least once: {'; '.join(told)}."


def _everyone(results: Sequence[Result]) -> str:
    """Name all algorithms at once."""
    return "Every algorithm" if len(results) > 1 else results[0].algorithm


def _part(some: int, whole: int, noun: str) -> str:
    """Write how many of all: `7 of 20 requests`, `all 20 requests`, `the one request`."""
    if some < whole:
        return f"{some:,} of {counted(whole, noun)}"
    return f"all {counted(whole, noun)}" if whole > 1 else f"the one {noun}"


def queued(result: Result) -> str:
    """Say how many of an algorithm's requests had to wait, as the end of a sentence."""
    return f"; {result.algorithm} made {result.delayed:,} wait, up to {seconds(result.max_delay)}"


def granted(quota: Quota) -> str:
    """Write a rate for people: `2/s`, `1,000/min`."""
    count, _, period = quota.rate.partition("/")
    return f"{int(count):,}/{period}"


def counted(number: int, noun: str) -> str:
    """Write a number of things: `1 request`, `2,000 requests`."""
    return f"{number:,} {noun}{'s' * (number != 1)}"


def seconds(value: float) -> str:
    """Write a time as shortly as a person wants it: `0`, `4us`, `0.2s`, `1.97s`, `59s`, `26.6 days`."""
    if 0 < value < 0.01 or value >= 1000:
        return about(round(value * 1e9))
    return f"{value:.0f}s" if value >= 10 else f"{value:.2f}".rstrip("0").rstrip(".") + "s" * (value > 0)


def _most(number: int) -> str:
    return "one" if number == 1 else f"{number:,}"


def listed(names: list[str]) -> str:
    """Write names as a sentence does: `a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


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
