"""What every algorithm promises: functions that raise `BrokenPromiseError` where it is not kept on a timeline."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from ratelab.algorithms import traits_of
from ratelab.limiter import NEVER, Algorithm, Decision, State
from ratelab.quota import Quota


class Move(NamedTuple):
    """One request: when it comes, as a nudge in nanoseconds from a landmark ahead, and what it costs."""

    landmark: str
    nudge: int
    cost: str


class Timeline(NamedTuple):
    """The requests of one key from `origin` on, whose times never fall."""

    quota: Quota
    origin: int
    moves: list[Move]


class Visit(NamedTuple):
    """One request as it was decided, and the state of the key after it."""

    now: int
    cost: int
    decision: Decision
    after: list[int]


LANDMARKS = ("now", "unit", "share", "boundary", "windows", "promise", "reset")
COSTS = ("0", "1", "2", "half", "burst", "burst+1", "rest", "rest+1")
MOVES = [Move(*move) for move in itertools.product(LANDMARKS, (-1, 0, 1), COSTS)]
ORIGINS = (0, 12_345, 1_700_000_000_123_456_789)
RATES = ("2/s", "7/13s", "100/min", "999999937/h", "1/day", "1/3s", "3/10ns", "1/1ns", "3/1ns", "5/7ns")
BURSTS = (5, 7, 30, 3, 1, 2, 4, 3, 4, 6)
QUOTAS = [Quota.parse(rate, burst) for rate, burst in zip(RATES, BURSTS, strict=True)]


def visits(algorithm: Algorithm, timeline: Timeline) -> Iterator[Visit]:
    """Send the requests of `timeline`, each when its landmark comes, or at once if that has passed."""
    quota, now, moves = timeline
    state, made, promise = algorithm.start(now), Decision(True, quota.burst, 0, 0, 0), now
    reset = now
    for move in moves:
        now = max(now, _landmarks(quota, now, promise, reset)[move.landmark] + move.nudge)
        cost = _costs(quota.burst, made.remaining)[move.cost]
        made = Decision(*algorithm.step(state, now, cost))
        promise = now + made.retry_after_ns if 0 < made.retry_after_ns < NEVER else promise
        reset = now + made.reset_after_ns
        yield Visit(now, cost, made, list(state))


def _landmarks(quota: Quota, now: int, promise: int, reset: int) -> dict[str, int]:
    window = quota.window
    unit, share, windows = quota.period // quota.limit, 3 * window // 8, 5 * window // 2
    times = (now, now + unit, now + share, (now // window + 1) * window, now + windows, promise, reset)
    return dict(zip(LANDMARKS, times, strict=True))


def _costs(burst: int, rest: int) -> dict[str, int]:
    return dict(zip(COSTS, (0, 1, 2, (burst + 1) // 2, burst, burst + 1, rest, rest + 1), strict=True))


class BrokenPromiseError(AssertionError):
    """A promise that was not kept."""


def _hold(kept: bool) -> None:
    if not kept:
        raise BrokenPromiseError


def next_decision(algorithm: Algorithm, state: State, now: int, cost: int) -> Decision:
    """Say what would be decided next, on a copy."""
    return Decision(*algorithm.step(list(state), now, cost))


def says_it_in_whole_numbers(algorithm: Algorithm, timeline: Timeline) -> None:
    """Return a bool and four whole numbers: no wait if admitted, no delay if denied.

    An algorithm that does not declare `Traits.queues` returns no delay at all.
    """
    queues = traits_of(algorithm).queues
    for _, _, made, _ in visits(algorithm, timeline):
        _hold([type(field) for field in made] == [bool, int, int, int, int])
        _hold(min(made) >= 0)
        _hold(not (made.retry_after_ns if made.allowed else made.delay_ns))
        _hold(queues or not made.delay_ns)


def lets_out_no_more_than_its_bound(algorithm: Algorithm, timeline: Timeline) -> None:
    """Let out no more in any window than the algorithm promises.

    That is `Traits.at_most`, if declared; several windows in a row hold no more by the same reading.
    """
    quota = timeline.quota
    at_most = traits_of(algorithm).at_most
    if at_most is None:
        return
    seen = [visit for visit in visits(algorithm, timeline) if visit.decision.allowed]
    leaving = [(visit.now + visit.decision.delay_ns, visit.cost) for visit in seen]
    for n in (1, 2, 3):
        # n windows are rounded once, and down; so is one if a nanosecond, by which it is rounded up, grants several
        exact = n * quota.burst * quota.period // quota.limit
        length = quota.window if n == 1 and quota.limit <= quota.period else exact
        for begin, _ in leaving:
            costs = [cost for at, cost in leaving if begin <= at < begin + length]
            extra = at_most[1] * max(costs, default=0) if at_most[1] > 0 else at_most[1]
            _hold(sum(costs) <= (at_most[0] - 1 + n) * quota.burst + extra)


def a_wait_is_enough_and_no_shorter_one_is(algorithm: Algorithm, timeline: Timeline) -> None:
    """After exactly the wait told, admit the same request, and no nanosecond before."""
    for now, cost, made, after in visits(algorithm, timeline):
        if not made.allowed and made.retry_after_ns != NEVER:
            retry_at = now + made.retry_after_ns
            _hold(retry_at > now)
            _hold(next_decision(algorithm, after, retry_at, cost).allowed)
            _hold(not next_decision(algorithm, after, retry_at - 1, cost).allowed)


def no_wait_helps_exactly_when_cost_exceeds_burst(algorithm: Algorithm, timeline: Timeline) -> None:
    """Say of a cost above the burst, and of no other, that no wait helps (`NEVER`)."""
    for _, cost, made, _ in visits(algorithm, timeline):
        _hold((made.retry_after_ns == NEVER) == (cost > timeline.quota.burst))


def is_as_good_as_new_after_reset(algorithm: Algorithm, timeline: Timeline) -> None:
    """After exactly `reset_after_ns`, decide as for a new key, and not before."""
    third, burst = timeline.quota.window // 3, timeline.quota.burst
    for now, _, made, after in visits(algorithm, timeline):
        reset = now + made.reset_after_ns
        _hold(reset == now or next_decision(algorithm, after, reset - 1, 0).reset_after_ns > 0)
        old, new = list(after), algorithm.start(reset)
        for thirds, cost in enumerate((0, 1, burst, 1, 2, burst + 1, burst)):
            at = reset + thirds * third
            _hold(algorithm.step(old, at, cost) == algorithm.step(new, at, cost))


def a_denied_hit_changes_nothing(algorithm: Algorithm, timeline: Timeline) -> None:
    """Let a denied request change no later decision."""
    spared = algorithm.start(timeline.origin)  # never hears of a denied hit
    for now, cost, made, _ in visits(algorithm, timeline):
        _hold(next_decision(algorithm, spared, now, cost) == made)
        if made.allowed:
            algorithm.step(spared, now, cost)


def a_look_changes_nothing_and_is_allowed(algorithm: Algorithm, timeline: Timeline) -> None:
    """Admit a request of cost 0, a mere look, and let it change no later decision."""
    unseen = algorithm.start(timeline.origin)  # never hears of a hit of cost 0
    for now, cost, made, after in visits(algorithm, timeline):
        _hold(next_decision(algorithm, after, now, 0).allowed)
        _hold(next_decision(algorithm, unseen, now, cost) == made)
        if cost > 0:
            algorithm.step(unseen, now, cost)


def remaining_is_what_is_still_admitted(algorithm: Algorithm, timeline: Timeline) -> None:
    """Admit as much as remains, and not one more."""
    for now, _, made, after in visits(algorithm, timeline):
        _hold(next_decision(algorithm, after, now, made.remaining).allowed)
        _hold(not next_decision(algorithm, after, now, made.remaining + 1).allowed)


def a_time_that_falls_mints_nothing(algorithm: Algorithm, timeline: Timeline) -> None:
    """Grant nothing extra when the time falls, nor once it has risen again."""
    window = timeline.quota.window
    for now, _, _, after in visits(algorithm, timeline):
        for back in (1, window // 2, window, 3 * window):
            dated_back, in_time = list(after), list(after)
            fallen = Decision(*algorithm.step(dated_back, now - back, 1))
            stood = Decision(*algorithm.step(in_time, now, 1))
            _hold((fallen.allowed, fallen.remaining) <= (stood.allowed, stood.remaining))
            for later in (now, now + 1, now + window // 2) if fallen.allowed == stood.allowed else ():
                rest = next_decision(algorithm, dated_back, later, 0).remaining
                _hold(rest <= next_decision(algorithm, in_time, later, 0).remaining)


Promise = Callable[[Algorithm, Timeline], None]
"""What the first line of its docstring says of every algorithm, on every timeline."""

PROMISES: list[Promise] = [
    says_it_in_whole_numbers,
    lets_out_no_more_than_its_bound,
    a_wait_is_enough_and_no_shorter_one_is,
    no_wait_helps_exactly_when_cost_exceeds_burst,
    is_as_good_as_new_after_reset,
    a_denied_hit_changes_nothing,
    a_look_changes_nothing_and_is_allowed,
    remaining_is_what_is_still_admitted,
    a_time_that_falls_mints_nothing,
]
