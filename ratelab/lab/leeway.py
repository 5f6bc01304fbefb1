"""What a simulation allows for, since nobody knows when exactly a server decided: after sending, before the answer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

from ratelab.algorithms.outside import blaming
from ratelab.answer import Answer
from ratelab.lab.replay import Decisions, Row
from ratelab.lab.traffic import Traffic
from ratelab.limiter import NEVER, Algorithm, State

EARLY = 10_000_000
"""Nanoseconds that an answer may come before its delay is over: a server's timers are no finer."""

WORLDS = 32
"""States that one key may be in, at most, that are followed at a time."""


class View(NamedTuple):
    """A decision as it falls at one of the moments at which it may have been made."""

    now: int
    row: Row


class Leeway(NamedTuple):
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

    answer: Answer
    first: int
    last: int


class _World(NamedTuple):
    """A state that a key may be in, and the decision that led to it."""

    state: State
    view: View


def matches(view: View, answer: Answer) -> bool:
    """Say whether an answer is what a decision makes of a request: admitted, once its delay is over, or denied."""
    allowed, _, _, _, delay = view.row
    if allowed:
        return answer.admitted and answer.answered_ns >= view.now + delay - EARLY
    return answer.denied


def leeways(algorithm: Algorithm, traffic: Traffic, decisions: Decisions, answers: Sequence[Answer]) -> list[Leeway]:
    """Follow each key through all the states that it may have been in, given when it was asked and what it answered.

    A request may have been decided at any moment between its sending and its answer, less the delay that it had to
    wait; `decisions` are the simulated ones, which say how long that was. Of the states to which its moments lead,
    those that give its answer go on, up to `WORLDS` of them; if there is none, all do. Requests that were under way
    together may have been decided in any order, so what one of them may have been told the others may have, too.
    """
    of_key: dict[int, list[int]] = {}
    for index, key in enumerate(traffic.request_keys.tolist()):
        of_key.setdefault(key, []).append(index)
    delays = decisions["delay_ns"].tolist()
    found: dict[int, Leeway] = {}
    with blaming(algorithm):
        for own in of_key.values():
            order = sorted(own, key=lambda index: _place(answers[index]))
            asked = _moments([answers[index] for index in order], [delays[index] for index in order])
            found |= zip(order, _shared(asked, list(_followed(algorithm, asked))), strict=True)
    return [found[index] for index in range(len(answers))]


def _place(answer: Answer) -> int:
    """Return where an answer stands among those of its key.

    Of requests that were under way together, those admitted are taken to have been decided before those denied.
    """
    return answer.sent_ns if answer.admitted else answer.answered_ns


def _moments(answers: Sequence[Answer], delays: Sequence[int]) -> list[_Asked]:
    """Return when each of a key's answers may have been decided, given that it was in this order."""
    earliest = accumulate((answer.sent_ns for answer in answers), max)
    known = [one.answered_ns - delay * one.admitted for one, delay in zip(answers, delays, strict=True)]
    latest = reversed(list(accumulate(reversed(known), min)))
    return [
        _Asked(answer, first, max(first, last)) for answer, first, last in zip(answers, earliest, latest, strict=True)
    ]


def _followed(algorithm: Algorithm, asked: Sequence[_Asked]) -> Iterator[Leeway]:
    """Yield what each of a key's requests may have been told, if they were decided in this order."""
    begin = asked[0].first
    states: list[tuple[State, int]] = [(algorithm.start(begin), begin)]
    sure = True
    for answer, first, last in asked:
        steps = max(1, WORLDS // len(states) - 1)
        moments = [first + (last - first) * step // steps for step in range(steps + 1)]
        worlds = []
        for state, now in states:
            for then in sorted({max(now, moment) for moment in moments}):
                trial = list(state)
                worlds.append(_World(trial, View(then, algorithm.step(trial, then, 1))))
        fitting = [world for world in worlds if matches(world.view, answer)]
        sure = sure and bool(fitting)
        yield _leeway([world.view for world in fitting or worlds], bool(fitting), sure)
        states = _distinct(algorithm, fitting or worlds)


def _distinct(algorithm: Algorithm, worlds: Sequence[_World]) -> list[tuple[State, int]]:
    """Return the states that differ when all are looked at in one moment, at most `WORLDS` that lie apart evenly."""
    moment = max(world.view.now for world in worlds)
    seen: dict[tuple[int, ...], tuple[State, int]] = {}
    for state, view in worlds:
        then = list(state)
        algorithm.step(then, moment, 0)
        seen.setdefault(tuple(then), (state, view.now))
    ordered = [seen[then] for then in sorted(seen)]
    most = min(WORLDS, len(ordered))
    return [ordered[place * (len(ordered) - 1) // max(1, most - 1)] for place in range(most)]


def _leeway(views: Sequence[View], explains: bool, sure: bool) -> Leeway:
    left = [view.row[1] if view.row[0] else 0 for view in views]
    again = [view.now + view.row[2] for view in views if not view.row[0] and view.row[2] != NEVER]
    return Leeway(explains, sure, min(left), max(left), min(again, default=None), max(again, default=None))


def _shared(asked: Sequence[_Asked], leeway: Sequence[Leeway]) -> Iterator[Leeway]:
    """Give those that were under way together what any of them may have been told."""
    begin, end = 0, asked[0].last
    for place in range(1, len(asked) + 1):
        if place == len(asked) or asked[place].first > end:
            together = leeway[begin:place]
            again = [time for one in together for time in (one.soonest, one.latest) if time is not None]
            bounds = (
                min(one.least for one in together),
                max(one.most for one in together),
                min(again, default=None),
                max(again, default=None),
            )
            yield from (Leeway(one.explains, together[-1].sure, *bounds) for one in together)
            begin = place
        if place < len(asked):
            end = max(end, asked[place].last)
