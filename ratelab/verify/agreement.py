"""Agreement of a live endpoint's responses with the simulation of the same requests."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple, Self

import numpy as np

from ratelab.algorithms import Policy
from ratelab.lab.decisions import Decisions
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.verify.consistency import PossibleDecision, check_consistency, matches
from ratelab.verify.header_checks import HeaderError, check_headers
from ratelab.verify.schedule import Response


class Difference(NamedTuple):
    """A request whose response differs from the simulation."""

    request: int
    """Its number in the order of arrival, from 1."""
    at_ns: int
    """Nanoseconds after the start of the traffic."""
    client: str
    simulated: str
    """`admitted` or `denied`."""
    answered: str
    """`admitted`, `denied`, `admitted early`, `status 503`, or the reason for the absence of a response."""
    close_call: bool
    """Whether the response is correct for some decision time between request and response."""


class Percentiles(NamedTuple):
    """Percentiles of durations by the nearest-rank method, in nanoseconds."""

    p50: int
    p90: int
    p99: int
    max: int

    @classmethod
    def of(cls, durations: Iterable[int]) -> Self | None:
        """Return the percentiles of `durations`; None if there are none."""
        ordered = sorted(durations)
        ranks = (ceil(len(ordered) * percent / 100) for percent in (50, 90, 99, 100))
        return cls(*(ordered[rank - 1] for rank in ranks)) if ordered else None


@dataclass(frozen=True)
class Agreement:
    """The agreement of a server's responses with the simulation."""

    requests: int
    agreeing: int
    differences: tuple[Difference, ...]
    header_errors: tuple[HeaderError, ...]
    failures: int
    """Requests that were neither admitted nor denied: without a response, or with another status."""
    used_keys: int
    """Keys that were not new to the server: their first response leaves less than the simulation of a new key."""
    latency: Percentiles | None
    """Time from request to response, less the simulated delay."""
    lateness: Percentiles | None
    """Time from a request's place in the schedule to its sending."""

    @property
    def close_calls(self) -> int:
        """The number of differences that are close calls."""
        return sum(difference.close_call for difference in self.differences)

    @property
    def holds(self) -> bool:
        """Whether all responses agree, except close calls, and all header fields are correct."""
        return self.close_calls == len(self.differences) and not self.header_errors


def compare_responses(policy: Policy, traffic: Traffic, responses: Sequence[Response]) -> Agreement:
    """Compare `responses`, one for each request of `traffic`, with a replay; the traffic's origin is the start time.

    A response agrees if it denies like the simulation, or if it admits like the simulation and not before the end of
    the delay. Requests of one key at one instant may be decided in any order, so only the number of admitted ones
    must agree.
    """
    decisions = _match_simultaneous(traffic, replay(policy, traffic).rows, responses)
    expected = [
        PossibleDecision(now, row) for now, row in zip(traffic.clock_times.tolist(), decisions.tolist(), strict=True)
    ]
    consistency = check_consistency(policy.algorithm, traffic, responses)
    differences = tuple(
        _describe_difference(traffic, index, decision, response, consistency[index].consistent)
        for index, (decision, response) in enumerate(zip(expected, responses, strict=True))
        if not matches(decision, response)
    )
    lateness = (max(0, response.sent_ns - now) for (now, _), response in zip(expected, responses, strict=True))
    return Agreement(
        requests=len(responses),
        agreeing=len(responses) - len(differences),
        differences=differences,
        header_errors=check_headers(traffic, consistency, responses),
        failures=sum(not response.admitted and not response.denied for response in responses),
        used_keys=_count_used_keys(traffic, expected, responses),
        latency=Percentiles.of(_measure_latencies(expected, responses)),
        lateness=Percentiles.of(lateness),
    )


def _match_simultaneous(traffic: Traffic, decisions: Decisions, responses: Sequence[Response]) -> Decisions:
    """Assign decisions within each group of simultaneous requests: the first admitted one gets the shortest delay."""
    matched = decisions.copy()
    for group in _group_simultaneous(traffic):
        if len(group) > 1:
            simulated = sorted(group, key=lambda n: (not decisions["allowed"][n], decisions["delay_ns"][n]))
            answered = sorted(group, key=lambda n: (not responses[n].admitted, responses[n].received_ns))
            matched[answered] = decisions[simulated]
    return matched


def _group_simultaneous(traffic: Traffic) -> Iterator[list[int]]:
    """Yield the requests of each key and instant, by key and time."""
    keys = traffic.request_keys
    order = np.lexsort((traffic.times, keys))
    begins = (np.diff(keys[order]) != 0) | (np.diff(traffic.times[order]) != 0)
    for group in np.split(order, np.flatnonzero(begins) + 1):
        yield group.tolist()


def _describe_difference(
    traffic: Traffic, index: int, decision: PossibleDecision, response: Response, close_call: bool
) -> Difference:
    allowed = decision.row[0]
    if response.admitted:
        answered = "admitted early" if allowed else "admitted"
    elif response.denied:
        answered = "denied"
    else:
        answered = f"status {response.status}" if response.status else response.error
    return Difference(
        index + 1,
        int(traffic.times[index]),
        traffic.names[traffic.clients[index]],
        "admitted" if allowed else "denied",
        answered,
        close_call,
    )


def _count_used_keys(traffic: Traffic, expected: Sequence[PossibleDecision], responses: Sequence[Response]) -> int:
    """Count the keys whose first requests, all concurrent, left less of the quota than simulated.

    A response without `remaining` is no evidence of use, so its key does not count.
    """
    first: dict[int, int] = {}
    answered: dict[int, list[float]] = {}
    simulated: dict[int, list[int]] = {}
    rows = zip(traffic.request_keys.tolist(), expected, responses, strict=True)
    for index, (key, decision, response) in enumerate(rows):
        if response.sent_ns <= responses[first.setdefault(key, index)].received_ns:
            answered.setdefault(key, []).append(inf if response.remaining is None else response.remaining)
            simulated.setdefault(key, []).append(decision.row[1])
    return sum(max(answered[key]) < max(simulated[key]) for key in first)


def _measure_latencies(expected: Sequence[PossibleDecision], responses: Sequence[Response]) -> Iterator[int]:
    """Yield the time that each response took beyond the simulated delay."""
    for decision, response in zip(expected, responses, strict=True):
        if response.status:
            delay = decision.row[4] if response.admitted else 0
            yield max(0, response.received_ns - response.sent_ns - delay)
