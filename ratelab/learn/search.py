"""Look for the shortest timeline on which something fails."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from itertools import product
from time import monotonic

from ratelab.lab.timelines import LANDMARKS, MOVES, ORIGINS, QUOTAS, Move, Timeline

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
