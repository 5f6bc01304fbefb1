"""What a live endpoint answered, held against what the simulation decides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from math import ceil, inf
from typing import NamedTuple, Self

import numpy as np

from ratelab.lab.decisions import Decisions
from ratelab.lab.replay import replay
from ratelab.lab.traffic import Traffic
from ratelab.limiter import Algorithm
from ratelab.verify.client import Response
from ratelab.verify.consistency import PossibleDecision, leeways, matches
from ratelab.verify.header_checks import HeaderError, faults


class Difference(NamedTuple):
    """A request that was answered otherwise than simulated."""

    request: int
    """Its number in the order of arrival, from 1."""
    at: int
    """Nanoseconds since the traffic began."""
    client: str
    simulated: str
    """`admitted` or `denied`."""
    answered: str
    """`admitted`, `denied`, `admitted early`, `status 503`, or why there was no answer."""
    close_call: bool
    """Whether the algorithm may have decided so at a time between the request's sending and its answer."""


class Spread(NamedTuple):
    """How durations are spread, in nanoseconds: each is the smallest that so much of them do not exceed."""

    p50: int
    p90: int
    p99: int
    max: int

    @classmethod
    def of(cls, durations: Iterable[int]) -> Self | None:
        """Return the nearest-rank percentiles; None of nothing."""
        ordered = sorted(durations)
        return cls(*(ordered[ceil(len(ordered) * share / 100) - 1] for share in (50, 90, 99, 100))) if ordered else None


@dataclass(frozen=True)
class Agreement:
    """How well a server's answers agree with the simulation of the same requests."""

    requests: int
    agreeing: int
    differing: tuple[Difference, ...]
    faults: tuple[HeaderError, ...]
    errors: int
    """Requests that were neither admitted nor denied: no answer, or another status."""
    used: int
    """Keys of which something had been used before: the first answer leaves less than is left of a new one."""
    latency: Spread | None
    """From sending to answering, less the delay that the request had to wait."""
    lateness: Spread | None
    """How much later than planned the requests were sent."""

    @property
    def close_calls(self) -> int:
        """Of `differing`, those that the times of sending and answering may explain."""
        return sum(one.close_call for one in self.differing)

    @property
    def holds(self) -> bool:
        """Whether all answers are as simulated, close calls aside, and all their fields as they should be."""
        return self.close_calls == len(self.differing) and not self.faults


def agree(algorithm: Algorithm, traffic: Traffic, answers: Sequence[Response]) -> Agreement:
    """Hold `answers`, one for each request of `traffic`, whose origin is when it began to be played, against a replay.

    An answer agrees if the request was admitted, not before the end of its simulated delay, or denied, as simulated.
    Requests of one key at one instant may be decided in any order, so only how many are admitted must agree.
    """
    decisions = _paired(traffic, replay(algorithm, traffic), answers)
    views = [
        PossibleDecision(now, row) for now, row in zip(traffic.clock_times.tolist(), decisions.tolist(), strict=True)
    ]
    leeway = leeways(algorithm, traffic, answers)
    differing = tuple(
        _difference(traffic, index, view, answer, leeway[index].explains)
        for index, (view, answer) in enumerate(zip(views, answers, strict=True))
        if not matches(view, answer)
    )
    return Agreement(
        requests=len(answers),
        agreeing=len(answers) - len(differing),
        differing=differing,
        faults=faults(traffic, leeway, answers),
        errors=sum(not answer.admitted and not answer.denied for answer in answers),
        used=_used(traffic, views, answers),
        latency=Spread.of(_latencies(views, answers)),
        lateness=Spread.of(max(0, answer.sent_ns - view.now) for view, answer in zip(views, answers, strict=True)),
    )


def _groups(traffic: Traffic) -> Iterator[list[int]]:
    """Yield the requests of each key and instant, key by key in the order of time."""
    keys = traffic.request_keys
    order = np.lexsort((traffic.times, keys))
    begins = (np.diff(keys[order]) != 0) | (np.diff(traffic.times[order]) != 0)
    for group in np.split(order, np.flatnonzero(begins) + 1):
        yield group.tolist()


def _paired(traffic: Traffic, decisions: Decisions, answers: Sequence[Response]) -> Decisions:
    """Give each request of a group the decision that suits its answer: to the first admitted the shortest delay."""
    paired = decisions.copy()
    for group in _groups(traffic):
        if len(group) > 1:
            made = sorted(group, key=lambda n: (not decisions["allowed"][n], decisions["delay_ns"][n]))
            told = sorted(group, key=lambda n: (not answers[n].admitted, answers[n].answered_ns))
            paired[told] = decisions[made]
    return paired


def _difference(traffic: Traffic, index: int, view: PossibleDecision, answer: Response, explained: bool) -> Difference:
    simulated = "admitted" if view.row[0] else "denied"
    if answer.admitted:
        answered = "admitted early" if view.row[0] else "admitted"
    elif answer.denied:
        answered = "denied"
    else:
        answered = f"status {answer.status}" if answer.status else answer.error
    at = int(traffic.times[index])
    return Difference(index + 1, at, traffic.names[traffic.clients[index]], simulated, answered, explained)


def _used(traffic: Traffic, views: Sequence[PossibleDecision], answers: Sequence[Response]) -> int:
    """Count the keys of which none of the first requests, those under way together, was told what a new key has left.

    A request that was not told what is left tells nothing, so its key does not count.
    """
    first: dict[int, int] = {}
    told: dict[int, list[float]] = {}
    simulated: dict[int, list[int]] = {}
    for index, (key, view, answer) in enumerate(zip(traffic.request_keys.tolist(), views, answers, strict=True)):
        if answer.sent_ns <= answers[first.setdefault(key, index)].answered_ns:
            told.setdefault(key, []).append(inf if answer.remaining is None else answer.remaining)
            simulated.setdefault(key, []).append(view.row[1])
    return sum(max(told[key]) < max(simulated[key]) for key in first)


def _latencies(views: Sequence[PossibleDecision], answers: Sequence[Response]) -> Iterator[int]:
    """Yield how long each answer took, beyond the delay that was simulated."""
    for view, answer in zip(views, answers, strict=True):
        if answer.status:
            delay = view.row[4] if answer.admitted else 0
            yield max(0, answer.answered_ns - answer.sent_ns - delay)
