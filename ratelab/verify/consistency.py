"""What a simulation allows for, since nobody knows when exactly a server decided: after sending, before the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from itertools import chain
from random import Random
from typing import NamedTuple

from ratelab.algorithms.plugins import attribute_errors
from ratelab.lab.decisions import Row
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, Algorithm, State
from ratelab.verify.client import Response

EARLY = 10_000_000
"""Nanoseconds that an answer may come before its delay is over: a server's timers are no finer."""

WORLDS = 32
"""States that one key may be in, at most, that are followed at a time."""

LOOK_BACK = 8
"""Requests admitted, at most, before which one denied that was under way with them is taken to have come."""


class PossibleDecision(NamedTuple):
    """A decision as it falls at one of the moments at which it may have been made."""

    now: int
    row: Row


class Consistency(NamedTuple):
    """What one request may have been told by a server that decided all before it as the algorithm does."""

    explains: bool
    """Whether the answer is part of it."""
    sure: bool
    """Whether all answers of its key so far were, so that the rest can be relied on."""
    least: int
    """The least and the most that may remain, as `RateLimit` tells it: 0 where the request is denied."""
    most: int
    soonest: int | None
    """The first and the last moment at which a denied request is admitted again; None where it is not denied."""
    latest: int | None


class _Asked(NamedTuple):
    """A request's answer, and the earliest and the latest moment at which it may have been decided."""

    answer: Response
    first: int
    last: int


class _Hypothesis(NamedTuple):
    """A state that a key may be in, and since when."""

    state: State
    now: int


class _World(NamedTuple):
    """A state that a key may be in, and the decision that led to it."""

    state: State
    view: PossibleDecision


def matches(view: PossibleDecision, answer: Response) -> bool:
    """Say whether an answer is what a decision makes of a request: admitted, once its delay is over, or denied."""
    allowed, _, _, _, delay = view.row
    if allowed:
        return answer.admitted and answer.answered_ns >= view.now + delay - EARLY
    return answer.denied


def leeways(algorithm: Algorithm, traffic: Traffic, answers: Sequence[Response]) -> list[Consistency]:
    """Follow each key through all the states that it may have been in, given when it was asked and what it answered.

    A request may have been decided at any moment between its sending and its answer, less the delay that it had to
    wait. Of the states to which these moments lead, those that give its answer go on, up to `WORLDS` of them; if
    there is none, all do. Requests that were under way together may have been decided in any order, so what one of
    them may have been told the others may have, too.
    """
    of_key: dict[int, list[int]] = {}
    for index, key in enumerate(traffic.request_keys.tolist()):
        of_key.setdefault(key, []).append(index)
    found: dict[int, Consistency] = {}
    with attribute_errors(algorithm):
        for own in of_key.values():
            asked = _in_order({index: answers[index] for index in own})
            rounds = _followed(algorithm, asked.values())
            found |= zip(asked, chain.from_iterable(map(_shared, rounds)), strict=True)
    return [found[index] for index in range(len(answers))]


def _in_order(answers: Mapping[int, Response]) -> dict[int, _Asked]:
    """Put a key's requests in the order in which they may have been decided, and say when each was.

    Those admitted were in the order of their answers. Which of them was which makes no difference to what came after
    them: by the first of them one had been sent, by the second two. Of requests that were under way together, those
    denied, which change nothing, are taken to have come last.
    """
    admitted = sorted((index for index in answers if answers[index].admitted), key=lambda n: answers[n].answered_ns)
    sent = sorted(answers[index].sent_ns for index in admitted)
    asked = {n: _Asked(answers[n], first, answers[n].answered_ns) for n, first in zip(admitted, sent, strict=True)}
    others = {n: _Asked(one, one.sent_ns, one.answered_ns) for n, one in answers.items() if not one.admitted}
    return dict(sorted((asked | others).items(), key=lambda item: item[1].first if item[0] in asked else item[1].last))


def _followed(algorithm: Algorithm, asked: Collection[_Asked]) -> Iterator[list[Consistency]]:
    """Yield what a key's requests may have been told, taken in this order; those under way together at once.

    A denied one may also have been decided before some that were under way with it, and leaves their state as it is.
    """
    begin = end = next(iter(asked)).first
    states = [_Hypothesis(algorithm.start(begin), begin)]
    before: deque[list[_Hypothesis]] = deque(maxlen=LOOK_BACK)
    together: list[Consistency] = []
    sure = True
    for one in asked:
        if one.first > end:
            yield together
            together = []
            before.clear()
        worlds = list(_stepped(algorithm, states, one))
        earlier = [world for past in before for world in _stepped(algorithm, past, one)] if one.answer.denied else []
        fitting = [world for world in worlds if matches(world.view, one.answer)]
        sure = sure and bool(fitting)
        end = max(end, *(world.view.now for world in worlds))
        together.append(_leeway([world.view for world in (*(fitting or worlds), *earlier)], bool(fitting), sure))
        if one.answer.admitted:
            before.append(states)
        states = _distinct(algorithm, fitting or worlds)
    yield together


def _stepped(algorithm: Algorithm, states: Sequence[_Hypothesis], asked: _Asked) -> Iterator[_World]:
    """Yield the worlds to which a request leads from `states`, at moments from the first that suits its answer on."""

    def stepped(state: State, moment: int) -> _World:
        trial = list(state)
        return _World(trial, PossibleDecision(moment, algorithm.step(trial, moment, 1)))

    answer, first, last = asked
    steps = max(1, WORLDS // len(states) - 1)
    for state, now in states:
        world = stepped(state, max(now, first))
        allowed, _, retry_after, _, _ = world.view.row
        if answer.admitted and not allowed and world.view.now + retry_after <= last:
            world = stepped(state, world.view.now + retry_after)
        yield world
        begin, end = world.view.now, last - world.view.row[4]
        if end > begin:
            yield from (stepped(state, begin + (end - begin) * step // steps) for step in range(1, steps + 1))


def _distinct(algorithm: Algorithm, worlds: Sequence[_World]) -> list[_Hypothesis]:
    """Return the states that differ when all are looked at in one moment; of too many, an unchanging sample."""
    moment = max(world.view.now for world in worlds)
    seen: dict[tuple[int, ...], _Hypothesis] = {}
    for state, view in worlds:
        then = list(state)
        algorithm.step(then, moment, 0)
        seen.setdefault(tuple(then), _Hypothesis(state, view.now))
    return [seen[then] for then in Random(0).sample(sorted(seen), min(WORLDS, len(seen)))]


def _leeway(views: Sequence[PossibleDecision], explains: bool, sure: bool) -> Consistency:
    left = [view.row[1] if view.row[0] else 0 for view in views]
    again = [view.now + view.row[2] for view in views if not view.row[0] and view.row[2] != NEVER]
    return Consistency(explains, sure, min(left), max(left), min(again, default=None), max(again, default=None))


def _shared(together: Sequence[Consistency]) -> Iterator[Consistency]:
    """Give those that were under way together what any of them may have been told."""
    times = [time for one in together for time in (one.soonest, one.latest) if time is not None]
    least, most = min(one.least for one in together), max(one.most for one in together)
    soonest, latest = min(times, default=None), max(times, default=None)
    for one in together:
        yield Consistency(one.explains, together[-1].sure, least, most, soonest, latest)
