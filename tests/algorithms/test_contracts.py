"""Contracts of every algorithm, checked on thousands of timelines that look for the edges."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from inspect import getfile
from itertools import pairwise
from math import ceil, floor
from pathlib import Path

import pytest
from contracts import build_or_reject, find_broken_contracts, timelines
from hypothesis import given
from hypothesis import strategies as st

from ratelab import Algorithm, ManualClock, MemoryLimiter, Quota, create
from ratelab.algorithms import find
from ratelab.algorithms.token_bucket import TokenBucket
from ratelab.lab.conformance import MOVES, QUOTAS, Timeline, run

ODD = Quota.parse("7/13s")


@given(timeline=timelines)
def test_every_algorithm_keeps_every_contract(kind: type[Algorithm], timeline: Timeline) -> None:
    assert find_broken_contracts(build_or_reject(kind, timeline.quota), timeline) == []


def test_a_class_loaded_from_a_file_makes_the_same_decisions(tmp_path: Path) -> None:
    path = tmp_path / "copy.py"
    path.write_text(Path(getfile(TokenBucket)).read_text(encoding="utf-8"), encoding="utf-8")
    from_file = find(f"{path}:TokenBucket").from_quota(ODD)
    for timeline in (Timeline(ODD, 0, [move, *MOVES]) for move in MOVES[:8]):
        loaded, built_in = run(from_file, timeline), run(create("token-bucket", ODD).algorithm, timeline)
        assert list(loaded) == list(built_in)


jumps = st.lists(st.tuples(st.integers(-(10**10), 2 * 10**10), st.integers(0, 8)), min_size=6, max_size=40)


@given(timeline=timelines)
def test_gcra_equals_the_token_bucket_in_every_field(timeline: Timeline) -> None:
    gcra, bucket = (create(name, timeline.quota).algorithm for name in ("gcra", "token-bucket"))
    by_gcra, by_bucket = run(gcra, timeline), run(bucket, timeline)
    assert [request.decision for request in by_gcra] == [request.decision for request in by_bucket]


@given(quota=st.sampled_from(QUOTAS), jumps=jumps)
def test_gcra_equals_the_token_bucket_on_any_clock(quota: Quota, jumps: list[tuple[int, int]]) -> None:
    clock = ManualClock()
    gcra, bucket = (MemoryLimiter(create(name, quota), clock) for name in ("gcra", "token-bucket"))
    for jump, cost in jumps:
        clock.advance(jump)
        assert gcra.hit("key", cost).row == bucket.hit("key", cost).row


@given(timeline=timelines)
def test_departures_from_a_leaky_bucket_are_evenly_spaced(timeline: Timeline) -> None:
    quota, moves = timeline.quota, [move._replace(cost="1") for move in timeline.moves]
    requests = run(create("leaky-bucket", quota).algorithm, timeline._replace(moves=moves))
    departures = [request.now + request.decision.delay_ns for request in requests if request.decision.allowed]
    assert all(later - at >= quota.period // quota.limit for at, later in pairwise(departures))


STEPS, GAP = 1_000_000, 50_000_017  # about 260 requests in each window of 13 s, which grants 7


def expected_by_rate() -> int:
    """Return the burst plus the refill of a bucket that never becomes full."""
    return ODD.burst + (STEPS - 1) * GAP * ODD.limit // ODD.period


def expected_by_window() -> int:
    """Return the admissions of windows exhausted by their first requests; the last window is incomplete."""
    full, rest = divmod((STEPS - 1) * GAP, ODD.window)
    return ODD.burst * full + min(ODD.burst, rest // GAP + 1)


def expected_by_log() -> int:
    """Return the admissions of a log that admits a burst whenever the previous one has expired."""
    full, rest = divmod(STEPS - 1, ceil(ODD.window / GAP))
    return ODD.burst * full + min(ODD.burst, rest + 1)


def expected_by_estimate() -> int:
    """Return the sum over windows of the burst minus the estimate at the last request of each window."""
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
        ("token-bucket", expected_by_rate),
        ("leaky-bucket", expected_by_rate),
        ("gcra", expected_by_rate),
        ("fixed-window", expected_by_window),
        ("sliding-log", expected_by_log),
        ("sliding-counter", expected_by_estimate),
    ],
)
def test_a_million_decisions_admit_exactly_the_quota(name: str, granted: Callable[[], int]) -> None:
    policy = create(name, ODD)
    state, step = policy.start(0), policy.step
    assert sum(step(state, now, 1)[0] for now in range(0, STEPS * GAP, GAP)) == granted()
