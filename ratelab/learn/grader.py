"""Grader: compares a submission with the built-in algorithm and searches for the shortest failing timeline."""

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
from ratelab.lab.conformance import (
    CONTRACTS,
    LANDMARKS,
    MOVES,
    ORIGINS,
    QUOTAS,
    Contract,
    ContractError,
    Move,
    Timeline,
    run,
)
from ratelab.learn.submission import SubmissionError, load_submission
from ratelab.learn.verdict import GradedRequest, Verdict
from ratelab.limiter import NEVER, ROW_FIELDS, Algorithm, Decision

SHORTEN_TIMEOUT_S = 5.0
MAX_PRINTED_CHARS = 1000

RANDOM_MOVES = 16
"""Moves in a random timeline."""

MAX_EXHAUSTIVE_MOVES = 2
"""Every timeline of at most this many moves is tried."""


class _Failure(NamedTuple):
    requests: list[GradedRequest]
    message: str
    """The error of the last request."""


class _Classes(NamedTuple):
    """The built-in algorithm and the submission."""

    exact: type[Algorithm]
    submitted: type[Algorithm]


_Check = Callable[[_Classes, Timeline], _Failure | None]


def evaluate(name: str, source: str) -> Verdict:
    """Compare the submission in `source` with the algorithm `name` in every field, and check every promise."""
    exact = find(name)
    try:
        classes = _Classes(exact, load_submission(source, exact))
    except SubmissionError as error:
        return Verdict(name, False, str(error))
    many, few = random_timelines(seed=1, count=100), random_timelines(seed=2, count=30)
    checks: list[tuple[_Check, list[Timeline]]] = [
        (_check_values, many),
        (_check_admissions, many),
        (_check_decisions, many),
        (_check_backward_steps, few),
    ]
    for check, timelines in checks:
        for timeline in [*single_move_timelines(), *timelines]:
            failure = check(classes, timeline)
            if failure:
                promises = _check_promises(classes.submitted, few) if check is not _check_values else []
                return _failed(name, classes, partial(check, classes), timeline, failure, promises)
    promises = _check_promises(classes.submitted, few)
    broken = [promise for promise, holds in promises if not holds]
    return Verdict(name, not broken, f"broken promise: {broken[0]}" if broken else "correct", promises)


def _failed(
    name: str,
    classes: _Classes,
    check: Callable[[Timeline], _Failure | None],
    timeline: Timeline,
    failure: _Failure | None,
    promises: list[tuple[str, bool]],
) -> Verdict:
    """Return the verdict for the shortest timeline that fails the check as `timeline` does."""
    shortest = shorten(check, timeline, monotonic() + SHORTEN_TIMEOUT_S)
    failure = failure if shortest is timeline else check(shortest)
    failure = failure or _Failure([], "step must be repeatable: the same requests got different decisions")
    printed = _printed(classes.submitted, shortest, failure.requests)
    return Verdict(name, False, failure.message, promises, str(shortest.quota), failure.requests, printed)


def _printed(submitted: type[Algorithm], timeline: Timeline, requests: Sequence[GradedRequest]) -> str:
    """Repeat the requests, and return the text that the submission prints."""
    with redirect_stdout(_Beginning()) as printed, suppress(SubmissionError):
        algorithm = submitted.from_quota(timeline.quota)
        state = algorithm.start(timeline.origin)
        for request in requests:
            algorithm.step(state, request.at, request.cost)
    return printed.getvalue()


class _Beginning(StringIO):
    """A stream that keeps the first `MAX_PRINTED_CHARS` characters, however many are printed."""

    def write(self, text: str) -> int:
        super().write(text[: MAX_PRINTED_CHARS - self.tell()])
        return len(text)


# --- checks


def _check_values(classes: _Classes, timeline: Timeline) -> _Failure | None:
    """Check that the submission raises no error and returns valid values."""
    return _compare(classes, timeline, 0)


def _check_admissions(classes: _Classes, timeline: Timeline) -> _Failure | None:
    """Check the field `allowed`."""
    return _compare(classes, timeline, 1)


def _check_decisions(classes: _Classes, timeline: Timeline) -> _Failure | None:
    """Check all five fields."""
    return _compare(classes, timeline, len(ROW_FIELDS))


def _compare(classes: _Classes, timeline: Timeline, fields: int) -> _Failure | None:
    """Return the first request of which one of the first `fields` fields differs."""
    if not timeline.moves:
        return None
    requests: list[GradedRequest] = []
    try:
        for request in _decide(classes, timeline, _requests(classes.exact, timeline), requests):
            if request.yours and request.yours[:fields] != request.exact[:fields]:
                return _Failure(requests, _difference(request.yours, request.exact))
    except SubmissionError as error:
        return _Failure(requests, str(error))
    return None


def _check_backward_steps(classes: _Classes, timeline: Timeline) -> _Failure | None:
    """Check that a request with an earlier time, and a look at a later one, grant no more than the exact algorithm."""
    requests, window = _requests(classes.exact, timeline), timeline.quota.window
    now = requests[-1][0]
    for back, later in product((1, window // 2, window, 3 * window), (0, 1, window // 2)):
        failure = _compare_after_backward_step(classes, timeline, requests, [(now - back, 1), (now + later, 0)])
        if failure:
            return failure
    return None


def _compare_after_backward_step(
    classes: _Classes, timeline: Timeline, before: list[tuple[int, int]], after: list[tuple[int, int]]
) -> _Failure | None:
    """Continue with the requests of `after`, the first of which has an earlier time."""
    requests: list[GradedRequest] = []
    try:
        for request in _decide(classes, timeline, [*before, *after], requests):
            if len(requests) > len(before) and request.yours and request.yours[:2] > request.exact[:2]:
                difference = _difference(request.yours, request.exact)
                return _Failure(requests, f"after a backward clock step, {difference}")
            if request.yours and request.yours.allowed != request.exact.allowed:
                break  # a request that only the submission denies may leave it more to grant later
    except SubmissionError as error:
        stepped_back = len(requests) > len(before)
        return _Failure(requests, f"after a backward clock step, {error}" if stepped_back else str(error))
    return None


def _requests(exact: type[Algorithm], timeline: Timeline) -> list[tuple[int, int]]:
    """Return time and cost of each request of a timeline; begin with a look if the first comes after the origin."""
    requests = [(now, cost) for now, cost, _, _ in run(exact.from_quota(timeline.quota), timeline)]
    return requests if requests and requests[0][0] == timeline.origin else [(timeline.origin, 0), *requests]


def _decide(
    classes: _Classes, timeline: Timeline, requests: list[tuple[int, int]], graded: list[GradedRequest]
) -> Iterator[GradedRequest]:
    """Yield each request with both decisions; also append it to `graded`, whose last one is a request that raises."""
    exact, submitted = (one.from_quota(timeline.quota) for one in classes)
    exact_state, state = exact.start(timeline.origin), submitted.start(timeline.origin)
    for now, cost in requests:
        graded.append(GradedRequest(now, cost, None, Decision(*exact.step(exact_state, now, cost))))
        state = list(state)  # a new object, so that a submission cannot find a key again by its id
        graded[-1] = graded[-1]._replace(yours=Decision(*submitted.step(state, now, cost)))
        yield graded[-1]
    if submitted != classes.submitted.from_quota(timeline.quota):
        raise SubmissionError("step must not change the parameters in self")


def _difference(yours: Decision, exact: Decision) -> str:
    """Describe the first field that differs; later ones usually differ as a consequence."""
    pairs = zip(ROW_FIELDS, yours.row, exact.row, strict=True)
    name, found, expected = next(one for one in pairs if one[1] != one[2])
    return f"{name} must be {_format_field(expected)}, got {_format_field(found)}"


def _format_field(value: int) -> str:
    return "NEVER" if value == NEVER else str(value)


def _check_promises(submitted: type[Algorithm], timelines: Sequence[Timeline]) -> list[tuple[str, bool]]:
    """Return the first line of each promise's docstring, and whether the submission keeps it."""
    return [
        ((promise.__doc__ or "").split("\n")[0].replace("`", ""), _holds(promise, submitted, timelines))
        for promise in CONTRACTS
    ]


def _holds(promise: Contract, submitted: type[Algorithm], timelines: Sequence[Timeline]) -> bool:
    try:
        for timeline in timelines:
            promise(submitted.from_quota(timeline.quota), timeline)
    except (ContractError, SubmissionError):
        return False
    return True


# --- the search for a short timeline

_COSTS = ("1", "burst", "2", "half", "remaining", "remaining+1", "burst+1", "0")  # the simplest first


def _complexity(move: Move) -> tuple[int, int, int]:
    return abs(move.offset), _COSTS.index(move.cost), LANDMARKS.index(move.landmark)


SIMPLEST_MOVES_FIRST = sorted(MOVES, key=_complexity)


def random_timelines(seed: int, count: int) -> list[Timeline]:
    """Return `count` timelines of `RANDOM_MOVES` moves, reproducible by their seed."""
    draw = random.Random(seed)
    return [
        Timeline(draw.choice(QUOTAS), draw.choice(ORIGINS), draw.choices(MOVES, k=RANDOM_MOVES)) for _ in range(count)
    ]


def single_move_timelines() -> list[Timeline]:
    """Return every timeline of one move, under a simple quota."""
    return [Timeline(QUOTAS[0], 0, [move]) for move in SIMPLEST_MOVES_FIRST]


def shorten(fails: Callable[[Timeline], object], timeline: Timeline, deadline: float) -> Timeline:
    """Return the shortest and simplest timeline that still fails, as far as it is found before `deadline`.

    Then none of its moves can be left out, and none of at most `MAX_EXHAUSTIVE_MOVES` moves under its quota is shorter.
    """
    best = _shrink(fails, timeline, deadline)
    for length in range(1, min(MAX_EXHAUSTIVE_MOVES + 1, len(best.moves))):
        for moves in product(SIMPLEST_MOVES_FIRST, repeat=length):
            if monotonic() > deadline:
                return best
            if fails(best._replace(moves=list(moves))):
                return best._replace(moves=list(moves))
    return best


def _shrink(fails: Callable[[Timeline], object], timeline: Timeline, deadline: float) -> Timeline:
    """Replace the timeline by a simpler one that fails, until there is none."""
    while True:
        simpler = next((one for one in _simpler(timeline) if monotonic() < deadline and fails(one)), None)
        if simpler is None:
            return timeline
        timeline = simpler


def _simpler(timeline: Timeline) -> Iterator[Timeline]:
    """Yield timelines with fewer moves, then with simpler ones, under a simpler quota or from an earlier origin."""
    moves = timeline.moves
    for size in (len(moves) // 2, len(moves) // 4, 1):
        for begin in range(0, len(moves), max(1, size)) if size else ():
            yield timeline._replace(moves=moves[:begin] + moves[begin + size :])
    for index, move in enumerate(moves):
        for simpler in SIMPLEST_MOVES_FIRST[: SIMPLEST_MOVES_FIRST.index(move)]:
            if sum(old == new for old, new in zip(move, simpler, strict=True)) == 2:  # one of three fields changes
                yield timeline._replace(moves=[*moves[:index], simpler, *moves[index + 1 :]])
    yield from (timeline._replace(quota=quota) for quota in QUOTAS[: QUOTAS.index(timeline.quota)])
    yield from (timeline._replace(origin=origin) for origin in ORIGINS[: ORIGINS.index(timeline.origin)])
