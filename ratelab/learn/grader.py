"""Examine an answer: hold it to the exact algorithm in each field, and to each promise."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout, suppress
from functools import partial
from io import StringIO
from itertools import product
from time import monotonic
from typing import NamedTuple

from ratelab.algorithms import find
from ratelab.lab.contracts import PROMISES, BrokenPromiseError, Promise
from ratelab.lab.timelines import LANDMARKS, MOVES, ORIGINS, QUOTAS, Move, Timeline, visits
from ratelab.learn.submission import WrongStepError, answered
from ratelab.learn.verdict import Row, Verdict
from ratelab.limiter import NEVER, Algorithm, Decision

LENGTH = 16
"""Moves in a timeline that is drawn."""

EXHAUSTED = 2
"""Up to so many moves, every timeline is tried."""

Fails = Callable[[Timeline], object]
"""Say something true of a timeline on which what is looked at fails."""

_PLAIN_COSTS = ("1", "burst", "2", "half", "rest", "rest+1", "burst+1", "0")


def _plainness(move: Move) -> tuple[int, int, int]:
    return abs(move.nudge), _PLAIN_COSTS.index(move.cost), LANDMARKS.index(move.landmark)


PLAINEST_FIRST = sorted(MOVES, key=_plainness)


def drawn(seed: int, count: int) -> list[Timeline]:
    """Draw timelines of many moves, the same ones each time."""
    draw = random.Random(seed)
    return [Timeline(draw.choice(QUOTAS), draw.choice(ORIGINS), draw.choices(MOVES, k=LENGTH)) for _ in range(count)]


def single() -> list[Timeline]:
    """Return every timeline of one move under a plain quota."""
    return [Timeline(QUOTAS[0], 0, [move]) for move in PLAINEST_FIRST]


def shortest(fails: Fails, found: Timeline, until: float) -> Timeline:
    """Return the shortest and plainest timeline that fails as `found` does, so far as time allows until `until`.

    No move of it can be left out. One of up to `EXHAUSTED` moves is found if there is one under its quota.
    """
    best = _shrunk(fails, found, until)
    for length in range(1, min(EXHAUSTED + 1, len(best.moves))):
        for moves in product(PLAINEST_FIRST, repeat=length):
            if monotonic() > until:
                return best
            if fails(best._replace(moves=list(moves))):
                return best._replace(moves=list(moves))
    return best


def _shrunk(fails: Fails, timeline: Timeline, until: float) -> Timeline:
    """Take what is simpler and still fails, until nothing is."""
    while True:
        better = next((one for one in _simpler(timeline) if monotonic() < until and fails(one)), None)
        if better is None:
            return timeline
        timeline = better


def _simpler(timeline: Timeline) -> Iterator[Timeline]:
    """Yield timelines with fewer moves, then with plainer ones, under a plainer quota or from an earlier origin."""
    moves = timeline.moves
    for size in (len(moves) // 2, len(moves) // 4, 1):
        for begin in range(0, len(moves), max(1, size)) if size else ():
            yield timeline._replace(moves=moves[:begin] + moves[begin + size :])
    for index, move in enumerate(moves):
        for plainer in PLAINEST_FIRST[: PLAINEST_FIRST.index(move)]:
            if sum(ours == theirs for ours, theirs in zip(move, plainer, strict=True)) == 2:
                yield timeline._replace(moves=[*moves[:index], plainer, *moves[index + 1 :]])
    yield from (timeline._replace(quota=quota) for quota in QUOTAS[: QUOTAS.index(timeline.quota)])
    yield from (timeline._replace(origin=origin) for origin in ORIGINS[: ORIGINS.index(timeline.origin)])


SHRINKING = 5.0
"""Seconds for making a timeline shorter."""

PRINTED = 1000
"""Letters that are told of what an answer prints on that timeline."""


class _Failure(NamedTuple):
    rows: list[Row]
    problem: str
    """What is wrong with the last row."""


def examine(name: str, source: str) -> Verdict:
    """Hold what `source` defines to the algorithm called `name`: in each field, and to each promise."""
    kind = find(name)
    try:
        answer = answered(source, kind)
    except WrongStepError as error:
        return Verdict(name, False, str(error))
    many, few = drawn(seed=1, count=100), drawn(seed=2, count=30)
    for tried, timelines in ((_running, many), (_admitting, many), (_deciding, many), (_falling, few)):
        trial = partial(tried, kind, answer)
        found = next(((one, failure) for one in [*single(), *timelines] if (failure := trial(one))), None)
        if found:
            least = shortest(trial, found[0], monotonic() + SHRINKING)
            failure = found[1] if least is found[0] else trial(least)
            failure = failure or _Failure([], "the same requests are not always decided alike")
            promises = _promises(answer, few) if tried is not _running else ()
            printed = _printed(answer, least, failure.rows)
            return Verdict(name, False, failure.problem, promises, str(least.quota), failure.rows, printed)
    promises = _promises(answer, few)
    broken = [words for words, kept in promises if not kept]
    if broken:
        return Verdict(name, False, f"not kept: {broken[0]}", promises)
    return Verdict(name, True, "right", promises)


def _printed(answer: type[Algorithm], timeline: Timeline, rows: Sequence[Row]) -> str:
    """Ask the answer once more, and return what it prints."""
    with redirect_stdout(StringIO()) as paper, suppress(WrongStepError):
        theirs = answer.from_quota(timeline.quota)
        state = theirs.start(timeline.origin)
        for row in rows:
            theirs.step(state, row.at, row.cost)
    return paper.getvalue()[:PRINTED]


def _running(kind: type[Algorithm], answer: type[Algorithm], timeline: Timeline) -> _Failure | None:
    return _tried(kind, answer, timeline, 0)


def _admitting(kind: type[Algorithm], answer: type[Algorithm], timeline: Timeline) -> _Failure | None:
    return _tried(kind, answer, timeline, 1)


def _deciding(kind: type[Algorithm], answer: type[Algorithm], timeline: Timeline) -> _Failure | None:
    return _tried(kind, answer, timeline, len(Decision._fields))


def _tried(kind: type[Algorithm], answer: type[Algorithm], timeline: Timeline, fields: int) -> _Failure | None:
    """Stop where the first so many fields differ; where nothing is asked, nothing is wrong."""
    rows: list[Row] = []
    if not timeline.moves:
        return None
    try:
        for row in _decided(kind, answer, timeline, _requests(kind, timeline), rows):
            if row.yours and row.yours[:fields] != row.exact[:fields]:
                return _Failure(rows, _difference(row.yours, row.exact))
    except WrongStepError as error:
        return _Failure(rows, str(error))
    return None


def _falling(kind: type[Algorithm], answer: type[Algorithm], timeline: Timeline) -> _Failure | None:
    """Date a hit back, and look once the time has risen again: neither may grant more than by the algorithm."""
    requests, window = _requests(kind, timeline), timeline.quota.window
    now = requests[-1][0]
    for back, later in product((1, window // 2, window, 3 * window), (0, 1, window // 2)):
        failure = _fallen(kind, answer, timeline, requests, [(now - back, 1), (now + later, 0)])
        if failure:
            return failure
    return None


def _fallen(
    kind: type[Algorithm],
    answer: type[Algorithm],
    timeline: Timeline,
    before: list[tuple[int, int]],
    after: list[tuple[int, int]],
) -> _Failure | None:
    """Go on with the hits of `after`, the first of them dated back."""
    rows: list[Row] = []
    try:
        for row in _decided(kind, answer, timeline, [*before, *after], rows):
            if len(rows) > len(before) and row.yours and row.yours[:2] > row.exact[:2]:
                return _Failure(rows, f"the time fell, and {_difference(row.yours, row.exact)}")
            if row.yours and row.yours.allowed != row.exact.allowed:
                break  # what it has denied, it may grant later
    except WrongStepError as error:
        return _Failure(rows, f"the time fell, and {error}" if len(rows) > len(before) else str(error))
    return None


def _requests(kind: type[Algorithm], timeline: Timeline) -> list[tuple[int, int]]:
    """Return what a timeline asks; a look where the key is first seen, if nothing else is asked then."""
    asked = [(now, cost) for now, cost, _, _ in visits(kind.from_quota(timeline.quota), timeline)]
    return asked if asked and asked[0][0] == timeline.origin else [(timeline.origin, 0), *asked]


def _decided(
    kind: type[Algorithm],
    answer: type[Algorithm],
    timeline: Timeline,
    requests: list[tuple[int, int]],
    rows: list[Row],
) -> Iterator[Row]:
    """Yield what both decide, and put it in `rows`, where what raises is the last."""
    exact, theirs = kind.from_quota(timeline.quota), answer.from_quota(timeline.quota)
    truth, state = exact.start(timeline.origin), theirs.start(timeline.origin)
    for now, cost in requests:
        rows.append(Row(now, cost, None, Decision(*exact.step(truth, now, cost))))
        state = list(state)  # whatever is remembered elsewhere, by the list or by its number, is of no use
        rows[-1] = rows[-1]._replace(yours=Decision(*theirs.step(state, now, cost)))
        yield rows[-1]
    if theirs != answer.from_quota(timeline.quota):
        raise WrongStepError("the parameters in self were changed")


def _difference(made: Decision, right: Decision) -> str:
    """Name the first field that differs; what else differs mostly follows from it."""
    name, ours, theirs = next(one for one in zip(Decision._fields, made, right, strict=True) if one[1] != one[2])
    shown = {NEVER: "NEVER"}
    return f"{name} is {shown.get(ours, ours)}, and should be {shown.get(theirs, theirs)}"


def _promises(answer: type[Algorithm], timelines: Sequence[Timeline]) -> list[tuple[str, bool]]:
    return [(_plain(promise), _kept(promise, answer, timelines)) for promise in PROMISES]


def _plain(promise: Promise) -> str:
    return (promise.__doc__ or "").split("\n")[0].replace("`", "")


def _kept(promise: Promise, answer: type[Algorithm], timelines: Sequence[Timeline]) -> bool:
    try:
        for timeline in timelines:
            promise(answer.from_quota(timeline.quota), timeline)
    except (BrokenPromiseError, WrongStepError):
        return False
    return True
