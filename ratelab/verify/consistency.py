"""Consistency of responses with the simulation, although the server's decision times are unknown."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from random import Random
from typing import NamedTuple

from ratelab.algorithms.plugins import attribute_errors
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, Algorithm, Row, State
from ratelab.verify.schedule import Response

MAX_EARLY_NS = 10_000_000
"""Nanoseconds by which a response may precede the end of its delay: the timers of servers are coarse."""

MAX_STATES = 32
"""Possible states of one key that are tracked at a time."""

MAX_OVERTAKEN = 8
"""Concurrent admitted requests that a denied request may have overtaken."""


class PossibleDecision(NamedTuple):
    """A decision, and one of the times at which it may have been made."""

    now: int
    row: Row


class Consistency(NamedTuple):
    """The responses to one request that the algorithm permits after the earlier responses to its key."""

    consistent: bool
    """Whether the actual response is one of them."""
    reliable: bool
    """Whether all responses to the key up to this one are consistent; if not, the limits below mean nothing."""
    min_remaining: int
    """Limits of `r` in `RateLimit`, which is 0 for a denied request."""
    max_remaining: int
    earliest_retry: int | None
    """Limits of the time at which a denied request would be admitted; None if it cannot have been denied."""
    latest_retry: int | None


def matches(decision: PossibleDecision, response: Response) -> bool:
    """Return whether the response agrees with a decision: admitted after its delay, or denied."""
    allowed, _, _, _, delay = decision.row
    if allowed:
        return response.admitted and response.received_ns >= decision.now + delay - MAX_EARLY_NS
    return response.denied


def check_consistency(algorithm: Algorithm, traffic: Traffic, responses: Sequence[Response]) -> list[Consistency]:
    """Check each response against all states that its key may have been in; `responses` are in the traffic's order.

    The server may have made a decision at any time between request and response, less the request's delay. Each
    time leads to a state. States that agree with the response are tracked further, up to `MAX_STATES` of them; if
    none agrees, all are. Concurrent requests may have been decided in any order, so they share their limits.
    """
    requests_by_key: dict[int, list[int]] = {}
    for index, key in enumerate(traffic.request_keys.tolist()):
        requests_by_key.setdefault(key, []).append(index)
    found: dict[int, Consistency] = {}
    with attribute_errors(algorithm):
        for indices in requests_by_key.values():
            observations = _order_observations({index: responses[index] for index in indices})
            groups = _track_states(algorithm, observations.values())
            found |= zip(observations, chain.from_iterable(map(_share_limits, groups)), strict=True)
    return [found[index] for index in range(len(responses))]


class _Observation(NamedTuple):
    """A response, and the earliest and the latest time of its decision."""

    response: Response
    earliest: int
    latest: int


class _Hypothesis(NamedTuple):
    """A possible state of a key, and the time of its last step."""

    state: State
    now: int


class _Successor(NamedTuple):
    """A possible state of a key, and the decision that led to it."""

    state: State
    decision: PossibleDecision


def _order_observations(responses: Mapping[int, Response]) -> dict[int, _Observation]:
    """Return the observations of a key by request, in a possible order of their decisions.

    Admitted requests are in the order of their responses. The n-th decision cannot have been made before n requests
    had been sent; it does not matter which, since an admission changes the state in the same way for each. Denied
    requests change nothing, so they come after concurrent ones.
    """
    admitted = sorted(
        (index for index in responses if responses[index].admitted), key=lambda n: responses[n].received_ns
    )
    sent = sorted(responses[index].sent_ns for index in admitted)
    first = {
        index: _Observation(responses[index], earliest, responses[index].received_ns)
        for index, earliest in zip(admitted, sent, strict=True)
    }
    others = {
        index: _Observation(response, response.sent_ns, response.received_ns)
        for index, response in responses.items()
        if not response.admitted
    }
    return dict(
        sorted((first | others).items(), key=lambda item: item[1].earliest if item[0] in first else item[1].latest)
    )


def _track_states(algorithm: Algorithm, observations: Collection[_Observation]) -> Iterator[list[Consistency]]:
    """Yield the consistency of a key's observations in their order, one list for each group of concurrent ones.

    A denied request may also have been decided before admitted ones of its group, in an earlier state.
    """
    start = end = next(iter(observations)).earliest
    states = [_Hypothesis(algorithm.start(start), start)]
    overtaken: deque[list[_Hypothesis]] = deque(maxlen=MAX_OVERTAKEN)
    concurrent: list[Consistency] = []
    reliable = True
    for observation in observations:
        if observation.earliest > end:
            yield concurrent
            concurrent = []
            overtaken.clear()
        response = observation.response
        successors = list(_step_all(algorithm, states, observation))
        earlier = [_step_all(algorithm, past, observation) for past in overtaken if response.denied]
        agreeing = [successor for successor in successors if matches(successor.decision, response)]
        reliable = reliable and bool(agreeing)
        end = max(end, *(successor.decision.now for successor in successors))
        possible = [successor.decision for successor in chain(agreeing or successors, *earlier)]
        concurrent.append(_find_limits(possible, bool(agreeing), reliable))
        if response.admitted:
            overtaken.append(states)
        states = _merge_states(algorithm, agreeing or successors)
    yield concurrent


def _step_all(algorithm: Algorithm, states: Sequence[_Hypothesis], observation: _Observation) -> Iterator[_Successor]:
    """Yield the successors of `states`, stepped at several times of the observation's interval.

    For an admitted request, the interval begins when the state admits it.
    """

    def step(state: State, now: int) -> _Successor:
        stepped = list(state)
        return _Successor(stepped, PossibleDecision(now, algorithm.step(stepped, now, 1)))

    response, earliest, latest = observation
    steps = max(1, MAX_STATES // len(states) - 1)
    for state, now in states:
        successor = step(state, max(now, earliest))
        begin, (allowed, _, retry_after, _, _) = successor.decision
        if response.admitted and not allowed and begin + retry_after <= latest:
            successor = step(state, begin + retry_after)
        yield successor
        begin, row = successor.decision
        end = latest - row[4]
        if end > begin:
            yield from (step(state, begin + (end - begin) * number // steps) for number in range(1, steps + 1))


def _merge_states(algorithm: Algorithm, successors: Sequence[_Successor]) -> list[_Hypothesis]:
    """Return the states that differ at one common time; if there are too many, a deterministic sample of them."""
    now = max(successor.decision.now for successor in successors)
    distinct: dict[tuple[int, ...], _Hypothesis] = {}
    for state, decision in successors:
        stepped = list(state)
        algorithm.step(stepped, now, 0)
        distinct.setdefault(tuple(stepped), _Hypothesis(state, decision.now))
    return [distinct[key] for key in Random(0).sample(sorted(distinct), min(MAX_STATES, len(distinct)))]


def _find_limits(decisions: Sequence[PossibleDecision], consistent: bool, reliable: bool) -> Consistency:
    remaining = [row[1] if row[0] else 0 for _, row in decisions]
    retries = [now + row[2] for now, row in decisions if not row[0] and row[2] != NEVER]
    return Consistency(
        consistent, reliable, min(remaining), max(remaining), min(retries, default=None), max(retries, default=None)
    )


def _share_limits(concurrent: Sequence[Consistency]) -> Iterator[Consistency]:
    """Yield the members of a group with the limits of the whole group."""
    reliable = concurrent[-1].reliable
    min_remaining = min(member.min_remaining for member in concurrent)
    max_remaining = max(member.max_remaining for member in concurrent)
    retries = [time for member in concurrent for time in member[4:] if time is not None]
    limits = (min_remaining, max_remaining, min(retries, default=None), max(retries, default=None))
    for member in concurrent:
        yield Consistency(member.consistent, reliable, *limits)
