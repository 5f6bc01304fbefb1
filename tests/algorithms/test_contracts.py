"""Every algorithm keeps every promise, on thousands of timelines that look for the edges."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from inspect import getfile
from itertools import pairwise, product
from math import ceil, floor
from pathlib import Path

import pytest
from contracts import CLOCK_PROMISES, PROMISES
from hypothesis import given, reject
from hypothesis import strategies as st

from ratelab import Algorithm, InputError, ManualClock, MemoryLimiter, Quota, create
from ratelab.algorithms import find
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.conformance import MOVES, ORIGINS, QUOTAS, Timeline, visits

ODD = Quota.parse("7/13s")
SMALL_QUOTAS = [Quota(*numbers) for numbers in product(range(1, 10), range(1, 31), range(1, 9))]
moves = st.binary(min_size=6, max_size=40).map(lambda drawn: [MOVES[byte % len(MOVES)] for byte in drawn])
"""A byte for each move: Hypothesis draws such a string at once, but the elements of a list one by one."""

timelines = st.builds(
    Timeline,
    st.sampled_from(QUOTAS) | st.sampled_from(SMALL_QUOTAS),
    st.sampled_from(ORIGINS),
    moves,
)


def build(kind: type[Algorithm], quota: Quota) -> Algorithm:
    try:
        return kind.from_quota(quota)
    except InputError:  # an algorithm may refuse what it cannot grant
        reject()


@pytest.mark.parametrize("promise", PROMISES, ids=lambda promise: promise.__name__)
@given(timeline=timelines)
def test_every_algorithm_keeps_its_word(
    kind: type[Algorithm], promise: Callable[[Algorithm, Timeline], None], timeline: Timeline
) -> None:
    promise(build(kind, timeline.quota), timeline)


@pytest.mark.parametrize("promise", CLOCK_PROMISES, ids=lambda promise: promise.__name__)
@given(timeline=timelines)
def test_no_clock_makes_a_limiter_break_it(
    kind: type[Algorithm],
    promise: Callable[[type[MemoryLimiter], Algorithm, Timeline], None],
    timeline: Timeline,
) -> None:
    promise(MemoryLimiter, build(kind, timeline.quota), timeline)


def test_a_class_in_a_file_of_its_own_is_found_and_decides_alike(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(Path(getfile(TokenBucket)).read_text(encoding="utf-8"), encoding="utf-8")
    outside = find(f"{mine}:TokenBucket").from_quota(ODD)
    for timeline in (Timeline(ODD, 0, [move, *MOVES]) for move in MOVES[:8]):
        theirs, ours = visits(outside, timeline), visits(create("token-bucket", ODD).algorithm, timeline)
        assert list(theirs) == list(ours)


jumps = st.lists(st.tuples(st.integers(-(10**10), 2 * 10**10), st.integers(0, 8)), min_size=6, max_size=40)


@given(timeline=timelines)
def test_gcra_is_the_token_bucket_in_every_field(timeline: Timeline) -> None:
    gcra, bucket = (create(name, timeline.quota).algorithm for name in ("gcra", "token-bucket"))
    told, other = visits(gcra, timeline), visits(bucket, timeline)
    assert [visit.decision for visit in told] == [visit.decision for visit in other]


@given(quota=st.sampled_from(QUOTAS), jumps=jumps)
def test_gcra_is_the_token_bucket_on_any_clock(quota: Quota, jumps: list[tuple[int, int]]) -> None:
    clock = ManualClock()
    gcra, bucket = (MemoryLimiter(create(name, quota), clock) for name in ("gcra", "token-bucket"))
    for jump, cost in jumps:
        clock.advance(jump)
        assert gcra.hit("key", cost) == bucket.hit("key", cost)


@given(timeline=timelines)
def test_a_leaky_bucket_lets_single_requests_out_evenly(timeline: Timeline) -> None:
    quota, moves = timeline.quota, [move._replace(cost="1") for move in timeline.moves]
    seen = visits(create("leaky-bucket", quota).algorithm, timeline._replace(moves=moves))
    leaving = [visit.now + visit.decision.delay_ns for visit in seen if visit.decision.allowed]
    assert all(later - at >= quota.period // quota.limit for at, later in pairwise(leaving))


STEPS, GAP = 1_000_000, 50_000_017  # about 260 requests in each window of 13 s, which grants 7


def granted_by_rate() -> int:
    """Count the burst and every unit earned since by a bucket that never fills up."""
    return ODD.burst + (STEPS - 1) * GAP * ODD.limit // ODD.period


def granted_by_window() -> int:
    """Count windows used up within their first few requests; the last one is not a whole one."""
    full, rest = divmod((STEPS - 1) * GAP, ODD.window)
    return ODD.burst * full + min(ODD.burst, rest // GAP + 1)


def granted_by_log() -> int:
    """Count the first requests, which come round again whenever the log has forgotten them."""
    full, rest = divmod(STEPS - 1, ceil(ODD.window / GAP))
    return ODD.burst * full + min(ODD.burst, rest + 1)


def granted_by_estimate() -> int:
    """Count what each window grants: what the previous one leaves it at its own last request."""
    total = used = 0
    for begin in range(0, STEPS * GAP, ODD.window):
        last = min((begin + ODD.window - 1) // GAP, STEPS - 1) * GAP
        inside = 1 - Fraction(last - begin, ODD.window)
        used = floor(ODD.burst - used * inside)
        total += used
    return total


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "granted"),
    [
        ("token-bucket", granted_by_rate),
        ("leaky-bucket", granted_by_rate),
        ("gcra", granted_by_rate),
        ("fixed-window", granted_by_window),
        ("sliding-log", granted_by_log),
        ("sliding-counter", granted_by_estimate),
    ],
)
def test_a_million_requests_are_granted_to_the_last_one(name: str, granted: Callable[[], int]) -> None:
    policy = create(name, ODD)
    state, step = policy.start(0), policy.step
    assert sum(step(state, now, 1)[0] for now in range(0, STEPS * GAP, GAP)) == granted()
