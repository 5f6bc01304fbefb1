"""Queries about the requests of some keys, whose answers can be joined to that about all keys."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple, Protocol

import numpy as np

from ratelab.algorithms import Policy, build_policy, traits_of
from ratelab.algorithms.fixed_window import FixedWindow
from ratelab.algorithms.sliding_counter import SlidingCounter
from ratelab.algorithms.sliding_log import SlidingLog
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.decisions import ADMISSION_FIELDS, Progress
from ratelab.lab.replay import replay
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Booleans, Traffic, select_keys
from ratelab.lab.tune.blocks import measure_needs
from ratelab.lab.tune.frontier import Frontier
from ratelab.lab.tune.population import NeedCounts
from ratelab.quota import LARGEST, Quota

USUAL_REPLAYS = 7
"""About how many replays of the same traffic a tuning makes; it decides whether to compile them."""


class Span(NamedTuple):
    """A part of the time, in nanoseconds since the traffic began."""

    begin: int | None = None
    end: int | None = None

    def select(self, traffic: Traffic) -> Traffic:
        """Return the requests from the beginning to before the end."""
        first, last = (
            default if time is None else int(np.searchsorted(traffic.times, time))
            for time, default in ((self.begin, 0), (self.end, len(traffic)))
        )
        return traffic[first:last]


WHOLE_TIME = Span()


class TunedRequests:
    """The requests of some keys, about which queries are asked."""

    def __init__(self, traffic: Traffic, frontier: Frontier, good: Booleans, places: Integers | None = None) -> None:
        """Take the requests and their frontier; `good` are the keys that no quota may deny.

        `places` order the keys among all, by their first appearance; by default, they are numbers from 0.
        """
        self.traffic = traffic
        self.frontier = frontier
        self.good = good
        self.places = np.arange(traffic.key_count) if places is None else places
        self.progress: Progress = lambda _: None
        """Called with the amount of further work done."""
        self._parts = {WHOLE_TIME: traffic}
        self._needs: dict[tuple[Quota, Span], Integers] = {}

    def select(self, span: Span) -> Traffic:
        """Return the requests of a part of the time."""
        if span not in self._parts:
            self._parts[span] = span.select(self.traffic)
        return self._parts[span]

    def find_needs(self, rate: Quota, span: Span) -> Integers:
        """Return the need of each key at a rate within a part of the time."""
        if span == WHOLE_TIME:
            return self.frontier.find_needs(rate)
        if (rate, span) not in self._needs:
            self._needs[rate, span] = measure_needs(self.select(span), rate, self.progress)
        return self._needs[rate, span]


class Query(Protocol):
    """A query, which can be pickled."""

    def answer(self, tuned: TunedRequests) -> Any:
        """Return the answer for some keys, as JSON."""

    def join(self, answers: Sequence[Any]) -> Any:
        """Return the answer for all keys."""


# --- denials


def find_deniable(policy: Policy, frontier: Frontier) -> Booleans:
    """Return the keys that a policy may deny something; all others are denied nothing.

    Algorithms of windows deny nothing to a key that requests at most the burst in any two windows. That is at most its
    need at a quarter of the rate, and the half of a burst that this rate grants in two windows.
    """
    quota, kind = policy.quota, type(policy.algorithm)
    if traits_of(kind).admits_need:
        return frontier.find_needs(quota) > quota.burst
    if (
        kind not in (FixedWindow, SlidingLog, SlidingCounter)
        or quota.limit > quota.period
        or 4 * quota.period > LARGEST
    ):
        return np.ones(len(frontier), np.bool_)
    return 2 * frontier.find_needs(Quota(quota.limit, 4 * quota.period)) + 2 > quota.burst


def find_denied(policy: Policy, traffic: Traffic) -> tuple[Booleans, int]:
    """Replay `traffic`; return which keys are denied at least once, and how many requests are."""
    was_denied = np.zeros(traffic.key_count, np.bool_)
    if not len(traffic):
        return was_denied, 0
    allowed = replay(policy, traffic, ADMISSION_FIELDS, replays=USUAL_REPLAYS).decisions["allowed"]
    denied = 0
    for part, batch in traffic.batches():
        was_denied[batch.request_keys[~allowed[part]]] = True
        denied += int(np.count_nonzero(~allowed[part]))
    return was_denied, denied


def find_denied_keys(policy: Policy, tuned: TunedRequests) -> Booleans:
    """Return which keys a policy denies something."""
    deniable = find_deniable(policy, tuned.frontier)
    if traits_of(policy.algorithm).admits_need:
        return deniable
    return find_denied(policy, select_keys(tuned.traffic, deniable))[0]


class Denials(NamedTuple):
    """Whom a policy denies."""

    offered: int
    """The requests of the part of the time."""
    clients: int
    """The keys that sent them."""
    clients_denied: int
    good_denied: int
    """The denied keys that no quota may deny."""
    requests_denied: int


@dataclass(frozen=True)
class CountDenied:
    """Whom a policy denies within a part of the time."""

    policy: Policy
    span: Span = WHOLE_TIME
    covered: tuple[Quota, int] | None = None
    """A rate and a need: only clients whose need at this rate is at most that count."""

    def answer(self, tuned: TunedRequests) -> Denials:
        """Replay the policy."""
        traffic = tuned.select(self.span)
        selected = find_deniable(self.policy, tuned.frontier)
        if self.covered is not None:
            rate, most = self.covered
            selected &= tuned.find_needs(rate, self.span) <= most
        was_denied, denied = find_denied(self.policy, select_keys(traffic, selected))
        return Denials(
            offered=len(traffic),
            clients=int(np.count_nonzero(traffic.key_requests)),
            clients_denied=int(np.count_nonzero(was_denied)),
            good_denied=int(np.count_nonzero(was_denied & tuned.good)),
            requests_denied=denied,
        )

    def join(self, answers: Sequence[Sequence[int]]) -> Denials:
        """Add the counts."""
        return Denials(*map(sum, zip(*answers, strict=True)))


@dataclass(frozen=True)
class CountDeniedByBurst:
    """The number of clients and requests that a token bucket denies with each of these rising bursts."""

    rate: Quota
    bursts: tuple[int, ...]

    def answer(self, tuned: TunedRequests) -> list[tuple[int, int]]:
        """Replay the clients that need more than each burst."""
        needs, asked = tuned.frontier.find_needs(self.rate), tuned.traffic
        counts = []
        for burst in self.bursts:
            asked = select_keys(asked, needs > burst)
            denied = find_denied(build_policy(TokenBucket, Quota.of(self.rate, burst)), asked)[1]
            counts.append((int(np.count_nonzero(needs > burst)), denied))
            tuned.progress(1)
        return counts

    def join(self, answers: Sequence[Sequence[Sequence[int]]]) -> Integers:
        """Return the counts of clients and of requests, a row for each burst."""
        counts: Integers = np.array(answers, np.int64).sum(axis=0)
        return counts


# --- needs


@dataclass(frozen=True)
class CountNeeds:
    """The needs of clients at a rate within a part of the time."""

    rate: Quota
    span: Span

    def answer(self, tuned: TunedRequests) -> list[list[int]]:
        """Measure the needs."""
        return NeedCounts.count(tuned.find_needs(self.rate, self.span), tuned.good).serialize()

    def join(self, answers: Sequence[Sequence[Sequence[int]]]) -> NeedCounts:
        """Add the counts of each need."""
        return NeedCounts.join(answers)


@dataclass(frozen=True)
class CountAlignedNeeds:
    """The needs of clients at a rate if all requests of a whole unit of time are at its start."""

    rate: Quota
    unit: int

    def answer(self, tuned: TunedRequests) -> list[list[int]]:
        """Measure the needs."""
        needs = measure_needs(align(tuned.traffic, self.unit), self.rate, tuned.progress)
        return NeedCounts.count(needs, tuned.good).serialize()

    def join(self, answers: Sequence[Sequence[Sequence[int]]]) -> NeedCounts:
        """Add the counts of each need."""
        return NeedCounts.join(answers)


def align(traffic: Traffic, unit: int) -> Traffic:
    """Return traffic with all requests of a whole unit of time at its start."""
    times, origin = traffic.allocate(np.int64), traffic.origin - traffic.origin % unit
    for part, batch in traffic.batches():
        times[part] = (batch.clock_times - origin) // unit * unit
    return replace(traffic, times=times, origin=origin)
