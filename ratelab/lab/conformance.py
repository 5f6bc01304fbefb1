"""Contracts of every algorithm, checked on timelines that look for the edges."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ratelab.algorithms import traits_of
from ratelab.limiter import NEVER, Algorithm, Decision, State
from ratelab.quota import Quota


class Move(NamedTuple):
    """One request: its time, as an offset in nanoseconds from the next landmark, and its cost."""

    landmark: str
    offset: int
    cost: str


class Timeline(NamedTuple):
    """Requests of one key from `origin` on, in order."""

    quota: Quota
    origin: int
    moves: list[Move]


class DecidedRequest(NamedTuple):
    """One request, its decision, and the state of the key afterwards."""

    now: int
    cost: int
    decision: Decision
    after: list[int]


LANDMARKS = ("now", "unit", "share", "boundary", "windows", "retry", "reset")
COSTS = ("0", "1", "2", "half", "burst", "burst+1", "remaining", "remaining+1")
MOVES = [Move(*move) for move in itertools.product(LANDMARKS, (-1, 0, 1), COSTS)]
ORIGINS = (0, 12_345, 1_700_000_000_123_456_789)
RATES = ("2/s", "7/13s", "100/min", "999999937/h", "1/day", "1/3s", "3/10ns", "1/1ns", "3/1ns", "5/7ns")
BURSTS = (5, 7, 30, 3, 1, 2, 4, 3, 4, 6)
QUOTAS = [Quota.parse(rate, burst) for rate, burst in zip(RATES, BURSTS, strict=True)]


def run(algorithm: Algorithm, timeline: Timeline) -> Iterator[DecidedRequest]:
    """Decide the requests of `timeline`, each at its landmark, or at once if that has passed."""
    quota, now, moves = timeline
    state, decision, retry_at = algorithm.start(now), Decision(True, quota.burst, 0, 0, 0), now
    reset = now
    for move in moves:
        now = max(now, _landmarks(quota, now, retry_at, reset)[move.landmark] + move.offset)
        cost = _costs(quota.burst, decision.remaining)[move.cost]
        decision = Decision(*algorithm.step(state, now, cost))
        retry_at = now + decision.retry_after_ns if 0 < decision.retry_after_ns < NEVER else retry_at
        reset = now + decision.reset_after_ns
        yield DecidedRequest(now, cost, decision, list(state))


def _landmarks(quota: Quota, now: int, retry_at: int, reset: int) -> dict[str, int]:
    window = quota.window
    unit, share, windows = quota.period // quota.limit, 3 * window // 8, 5 * window // 2
    times = (now, now + unit, now + share, (now // window + 1) * window, now + windows, retry_at, reset)
    return dict(zip(LANDMARKS, times, strict=True))


def _costs(burst: int, remaining: int) -> dict[str, int]:
    return dict(zip(COSTS, (0, 1, 2, (burst + 1) // 2, burst, burst + 1, remaining, remaining + 1), strict=True))


class ContractError(AssertionError):
    """An algorithm breaks a contract."""


def _require(holds: bool) -> None:
    if not holds:
        raise ContractError


def decide_on_copy(algorithm: Algorithm, state: State, now: int, cost: int) -> Decision:
    """Decide a request on a copy of `state`."""
    return Decision(*algorithm.step(list(state), now, cost))


def returns_valid_fields(algorithm: Algorithm, timeline: Timeline) -> None:
    """Return a bool and four whole numbers: no wait if admitted, no delay if denied.

    An algorithm without `Traits.queues` returns no delay at all.
    """
    queues = traits_of(algorithm).queues
    for _, _, decision, _ in run(algorithm, timeline):
        _require([type(field) for field in decision.row] == [bool, int, int, int, int])
        _require(min(decision.row) >= 0)
        _require(not (decision.retry_after_ns if decision.allowed else decision.delay_ns))
        _require(queues or not decision.delay_ns)


def stays_within_its_bound(algorithm: Algorithm, timeline: Timeline) -> None:
    """Admit no more in any window than the declared bound.

    The bound is `Traits.at_most`; each further window in a row adds one `burst`.
    """
    quota = timeline.quota
    at_most = traits_of(algorithm).at_most
    if at_most is None:
        return
    admitted = [request for request in run(algorithm, timeline) if request.decision.allowed]
    departures = [(request.now + request.decision.delay_ns, request.cost) for request in admitted]
    for n in (1, 2, 3):
        # n windows are rounded down once; so is one if the nanosecond that rounding up adds grants several units
        exact = n * quota.burst * quota.period // quota.limit
        length = quota.window if n == 1 and quota.limit <= quota.period else exact
        for begin, _ in departures:
            costs = [cost for at, cost in departures if begin <= at < begin + length]
            extra = at_most[1] * max(costs, default=0) if at_most[1] > 0 else at_most[1]
            _require(sum(costs) <= (at_most[0] - 1 + n) * quota.burst + extra)


def retry_after_is_exact(algorithm: Algorithm, timeline: Timeline) -> None:
    """Admit the same request after exactly `retry_after_ns`, and not 1 ns earlier."""
    for now, cost, decision, after in run(algorithm, timeline):
        if not decision.allowed and decision.retry_after_ns != NEVER:
            retry_at = now + decision.retry_after_ns
            _require(retry_at > now)
            _require(decide_on_copy(algorithm, after, retry_at, cost).allowed)
            _require(not decide_on_copy(algorithm, after, retry_at - 1, cost).allowed)


def never_means_a_cost_above_burst(algorithm: Algorithm, timeline: Timeline) -> None:
    """Return `NEVER` as the wait for a cost above the burst, and for no other."""
    for _, cost, decision, _ in run(algorithm, timeline):
        _require((decision.retry_after_ns == NEVER) == (cost > timeline.quota.burst))


def reset_after_is_exact(algorithm: Algorithm, timeline: Timeline) -> None:
    """After exactly `reset_after_ns`, decide as for a new key, and not before."""
    third, burst = timeline.quota.window // 3, timeline.quota.burst
    for now, _, decision, after in run(algorithm, timeline):
        reset = now + decision.reset_after_ns
        _require(reset == now or decide_on_copy(algorithm, after, reset - 1, 0).reset_after_ns > 0)
        old, new = list(after), algorithm.start(reset)
        for thirds, cost in enumerate((0, 1, burst, 1, 2, burst + 1, burst)):
            at = reset + thirds * third
            _require(algorithm.step(old, at, cost) == algorithm.step(new, at, cost))


def denied_hits_change_nothing(algorithm: Algorithm, timeline: Timeline) -> None:
    """Let a denied request change no later decision.

    An algorithm that declares `counts_denials` is excepted.
    """
    if traits_of(algorithm).counts_denials:
        return
    without_denied = algorithm.start(timeline.origin)  # the state without the denied hits
    for now, cost, decision, _ in run(algorithm, timeline):
        _require(decide_on_copy(algorithm, without_denied, now, cost) == decision)
        if decision.allowed:
            algorithm.step(without_denied, now, cost)


def looks_change_nothing(algorithm: Algorithm, timeline: Timeline) -> None:
    """Admit a request of cost 0, and let it change no later decision."""
    without_looks = algorithm.start(timeline.origin)  # the state without the hits of cost 0
    for now, cost, decision, after in run(algorithm, timeline):
        _require(decide_on_copy(algorithm, after, now, 0).allowed)
        _require(decide_on_copy(algorithm, without_looks, now, cost) == decision)
        if cost > 0:
            algorithm.step(without_looks, now, cost)


def remaining_is_exact(algorithm: Algorithm, timeline: Timeline) -> None:
    """Admit exactly the remaining cost, and not one unit more."""
    for now, _, decision, after in run(algorithm, timeline):
        _require(decide_on_copy(algorithm, after, now, decision.remaining).allowed)
        _require(not decide_on_copy(algorithm, after, now, decision.remaining + 1).allowed)


def backward_steps_grant_nothing(algorithm: Algorithm, timeline: Timeline) -> None:
    """Grant no extra quota when the clock steps back, nor after it has caught up."""
    window = timeline.quota.window
    for now, _, _, after in run(algorithm, timeline):
        for back in (1, window // 2, window, 3 * window):
            stepped_back, steady = list(after), list(after)
            early = Decision(*algorithm.step(stepped_back, now - back, 1))
            on_time = Decision(*algorithm.step(steady, now, 1))
            _require((early.allowed, early.remaining) <= (on_time.allowed, on_time.remaining))
            for later in (now, now + 1, now + window // 2) if early.allowed == on_time.allowed else ():
                rest = decide_on_copy(algorithm, stepped_back, later, 0).remaining
                _require(rest <= decide_on_copy(algorithm, steady, later, 0).remaining)


Contract = Callable[[Algorithm, Timeline], None]
"""Raises `ContractError` unless the first line of its docstring holds for an algorithm on a timeline."""

CONTRACTS: list[Contract] = [
    returns_valid_fields,
    stays_within_its_bound,
    retry_after_is_exact,
    never_means_a_cost_above_burst,
    reset_after_is_exact,
    denied_hits_change_nothing,
    looks_change_nothing,
    remaining_is_exact,
    backward_steps_grant_nothing,
]
