"""Small outcomes of closed loops, written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ratelab import create
from ratelab.algorithms import Policy
from ratelab.lab.closed_loop.behavior import Behavior, Fault, Population
from ratelab.lab.closed_loop.outcome import PENDING, LoopOutcome, Requests, Tries
from ratelab.lab.spill import Integers
from ratelab.lab.traffic import Traffic

MS = 10**6


class Request(NamedTuple):
    """A request; times are in milliseconds."""

    client: int
    started: int
    ended: int
    """-1 if it is pending."""
    tries: int
    result: int


class Try(NamedTuple):
    """A try, sent when it reaches the limiter; times are in milliseconds."""

    at: int
    request: int
    number: int
    result: int
    allowed: bool = True
    wasted: bool = False


def make_outcome(
    requests: Sequence[Request],
    tries: Sequence[Try],
    duration: int,
    faults: Sequence[tuple[int, int]] = (),
    policy: Policy | None = None,
    clients: int = 1,
) -> LoopOutcome:
    """Return an outcome; the faults are outages. Times are in milliseconds."""
    names = tuple(f"client-{number}" for number in range(clients))
    owners = [requests[each.request].client for each in tries]
    traffic = Traffic(
        _column([each.at * MS for each in tries]),
        _column(owners),
        np.ones(len(tries), np.int64),
        names,
        np.arange(clients),
        duration * MS,
    )
    population = Population(
        traffic[0:0],
        (Behavior(),),
        np.zeros(clients, np.int64),
        0,
        faults=tuple(Fault("outage", begin * MS, end * MS) for begin, end in faults),
    )
    ended = [each.at * MS if each.result < PENDING else -1 for each in tries]
    return LoopOutcome(
        policy=policy,
        population=population,
        traffic=traffic,
        admissions={
            "allowed": np.array([each.allowed for each in tries], np.bool_),
            "delay_ns": np.zeros(len(tries), np.int64),
        },
        tries=Tries(
            _column([each.request for each in tries]),
            np.array([each.number for each in tries], np.int32),
            traffic.times,
            _column(ended),
            np.array([each.result for each in tries], np.int8),
            _column([-1] * len(tries)),
            np.array([each.wasted for each in tries], np.bool_),
        ),
        requests=Requests(
            _column([each.client for each in requests]),
            _column([each.started * MS for each in requests]),
            _column([-1 if each.ended < 0 else each.ended * MS for each in requests]),
            np.array([each.tries for each in requests], np.int32),
            np.array([each.result for each in requests], np.int8),
        ),
        locally_rejected=0,
        events=0,
    )


def make_policy() -> Policy:
    """Return a policy for outcomes whose decisions are made up."""
    return create("token-bucket", "2/s", 2)


def _column(values: Sequence[int]) -> Integers:
    return np.array(values, np.int64)
