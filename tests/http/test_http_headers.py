"""The header fields that say a limiter's state: exact, read back by http-sf, and whole numbers of 15 digits at most."""

from __future__ import annotations

import tracemalloc
from math import ceil
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import given
from hypothesis import strategies as st
from limited_apps import named
from manual import block
from response_headers import LARGEST, Limits, parse_limits

from ratelab import (
    ALGORITHMS,
    NEVER,
    Algorithm,
    Decision,
    InputError,
    ManualClock,
    MemoryLimiter,
    Policy,
    Quota,
    create,
)
from ratelab.algorithms import build_policy
from ratelab.http.headers import HeaderWriter

SECOND = 10**9
BUCKET = create("token-bucket", "2/s", burst=5)
BUILT_IN = pytest.mark.parametrize("built_in", ALGORITHMS.values(), ids=ALGORITHMS.keys())


def policy_of(policy: Policy) -> bytes:
    fields = dict(HeaderWriter(policy).of(Decision(True, 0, 0, 0, 0)))
    return fields[b"ratelimit-policy"]


def timeline(legacy: str, *hits: tuple[float, int]) -> list[str]:
    """Return the fields of hits `(at, cost)` by one key, each answer's on a line."""
    clock, fields = ManualClock(), HeaderWriter(BUCKET, legacy)
    limiter, lines = MemoryLimiter(BUCKET, clock), []
    for at, cost in hits:
        clock.now = int(at * SECOND)
        parts = fields.of(limiter.hit("alice", cost))
        lines.append(" ".join(f"{name.decode()}: {value.decode()}" for name, value in parts if b"policy" not in name))
    return lines


# --- the policy


def test_a_policy_says_the_burst_and_the_seconds_in_which_the_rate_grants_it() -> None:
    assert policy_of(BUCKET) == b'"token-bucket";q=5;w=3'


@BUILT_IN
@pytest.mark.parametrize(
    ("rate", "burst", "w"),
    [
        *(("2/s", 5, 3), ("2/s", 4, 2), ("2/s", 1, 1), ("100/min", 100, 60), ("7/13s", 7, 13), ("1/day", 3, 259_200)),
        *(("999999937/h", 6, 1), ("3/10ns", 4, 1), ("1/s", 1000, 1000), ("3/s", 10, 4), ("1/146day", 1, 12_614_400)),
    ],
)
def test_the_policy_of_an_algorithm_is_its_quota(built_in: type[Algorithm], rate: str, burst: int, w: int) -> None:
    quota = Quota.parse(rate, burst)
    assert policy_of(build_policy(built_in, quota)) == f'"{built_in.name}";q={burst};w={w}'.encode()
    assert w == max(1, ceil(quota.window / SECOND))


def test_the_policy_of_a_class_of_ones_own_is_what_it_does(tmp_path: Path) -> None:
    (tmp_path / "cooldown.py").write_text(block("python", "class Cooldown"), encoding="utf-8")
    policy = create(f"{tmp_path / 'cooldown.py'}:Cooldown", "2/s", burst=5)
    assert not hasattr(policy.algorithm, "window")
    assert policy_of(policy) == b'"cooldown";q=5;w=3'


@BUILT_IN
def test_huge_numbers_are_told_in_15_digits(built_in: type[Algorithm]) -> None:
    try:
        policy = build_policy(built_in, Quota(2**61, SECOND, 2**61))
    except InputError:
        assert built_in.name == "sliding-log"
        return
    decision = MemoryLimiter(policy, ManualClock()).hit("alice")
    assert parse_limits(HeaderWriter(policy).of(decision)) == (
        built_in.name,
        LARGEST,
        1,
        LARGEST,
        decision_t(decision),
        None,
    )
    slow = build_policy(built_in, Quota(1, 2**62 - 1, 1))
    limiter = MemoryLimiter(slow, ManualClock())
    told = [parse_limits(HeaderWriter(slow).of(limiter.hit("alice"))) for _ in range(2)]
    assert [(each.q, each.w, each.r) for each in told] == [(1, 4_611_686_019, 0)] * 2


def decision_t(decision: Decision) -> int:
    return -(-decision.reset_after_ns // SECOND)


@pytest.mark.parametrize("name", ['say "hi"', "back\\slash", "\\", '"', "two words", "~!", "a;q=9"])
def test_a_name_of_ones_own_is_quoted(name: str) -> None:
    assert parse_limits(HeaderWriter(named(name)).of(Decision(True, 4, 0, SECOND, 0))) == (name, 5, 3, 4, 1, None)


@pytest.mark.parametrize("name", ["gr\xf6\xdfe", "line\nfeed", "\x7f", "nul\0", "\u200b"])
def test_a_name_that_a_field_cannot_hold_is_refused(name: str) -> None:
    with pytest.raises(InputError, match=r"a header field cannot hold the name .* of a policy: use printable ASCII"):
        HeaderWriter(named(name))


# --- the state


def test_the_state_is_told_hit_by_hit() -> None:
    hits = ((0, 0), (0, 1), (0, 1), (0.6, 3), (0.6, 2), (0.7, 6), (0.999, 1), (0.999, 1), (99, 0))
    assert timeline("off", *hits) == [
        'ratelimit: "token-bucket";r=5;t=0',
        'ratelimit: "token-bucket";r=4;t=1',
        'ratelimit: "token-bucket";r=3;t=1',
        'ratelimit: "token-bucket";r=1;t=2',
        'ratelimit: "token-bucket";r=0;t=1 retry-after: 1',
        'ratelimit: "token-bucket";r=1;t=2',
        'ratelimit: "token-bucket";r=0;t=3',
        'ratelimit: "token-bucket";r=0;t=1 retry-after: 1',
        'ratelimit: "token-bucket";r=5;t=0',
    ]


waits = st.integers(1, 2**62) | st.integers(1, 20).map(lambda whole: whole * SECOND) | st.integers(1, 10**7)
allowed = st.builds(Decision, st.just(True), st.integers(0, 2**62), st.just(0), st.just(0) | waits, st.just(0))
denied = st.builds(Decision, st.just(False), st.integers(0, 2**62), waits, waits, st.just(0))
helpless = st.builds(Decision, st.just(False), st.integers(0, 2**62), st.just(NEVER), st.just(0) | waits, st.just(0))


@given(decision=allowed | helpless)
def test_what_no_wait_is_asked_for_tells_what_remains_and_when_all_will(decision: Decision) -> None:
    told = parse_limits(HeaderWriter(BUCKET).of(decision))
    assert told == ("token-bucket", 5, 3, min(decision.remaining, LARGEST), decision_t(decision), None)


def a_denial_tells_the_wait(decision: Decision) -> None:
    told = parse_limits(HeaderWriter(BUCKET).of(decision))
    assert (told.r, told.retry_after) == (0, told.t)
    assert told.retry_after is not None
    assert decision.retry_after_ns <= told.t * SECOND < decision.retry_after_ns + SECOND


@given(decision=denied)
def test_a_denial_leaves_nothing_and_tells_a_wait_that_is_enough_and_less_than_a_second_more(
    decision: Decision,
) -> None:
    a_denial_tells_the_wait(decision)


def test_fields_do_not_depend_on_those_told_before() -> None:
    fields = HeaderWriter(BUCKET, "delta")
    for wait in [*range(1, 9_000), *range(1, 9_000)]:
        for decision in (Decision(True, 7, 0, wait * SECOND, 0), Decision(False, 0, wait * SECOND, 1, 0)):
            assert (b"ratelimit", b'"token-bucket";r=%d;t=%d' % (decision[1], wait)) in fields.of(decision)
            assert ((b"retry-after", b"%d" % wait) in fields.of(decision)) is not decision.allowed


def test_fields_told_once_are_not_remembered_for_ever() -> None:
    fields = HeaderWriter(BUCKET)
    held = []
    tracemalloc.start()
    for waits in (range(10_000), range(10_000, 40_000)):
        for wait in waits:
            fields.of(Decision(True, 0, 0, wait * SECOND, 0))
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] < 1.5 * held[0]  # four times as much if everything is kept


# --- what older clients read


def test_older_fields_are_off_unless_asked_for() -> None:
    assert "x-ratelimit" not in "".join(timeline("off", (0, 5), (0, 1), (0, 6)))


def test_delta_counts_the_seconds_from_now() -> None:
    assert timeline("delta", (0, 2), (0, 4), (0, 6)) == [
        'ratelimit: "token-bucket";r=3;t=1 x-ratelimit-limit: 5 x-ratelimit-remaining: 3 x-ratelimit-reset: 1',
        'ratelimit: "token-bucket";r=0;t=1 retry-after: 1'
        " x-ratelimit-limit: 5 x-ratelimit-remaining: 0 x-ratelimit-reset: 1",
        'ratelimit: "token-bucket";r=3;t=1 x-ratelimit-limit: 5 x-ratelimit-remaining: 3 x-ratelimit-reset: 1',
    ]


@pytest.mark.parametrize(("now", "resets"), [(1_700_000_000.0, 1_700_000_003), (1_700_000_000.001, 1_700_000_004)])
def test_epoch_counts_the_seconds_from_1970_and_never_too_few(now: float, resets: int) -> None:
    with patch("ratelab.http.headers.time.time", lambda: now):
        (line,) = timeline("epoch", (0, 5))
    assert line == (
        f'ratelimit: "token-bucket";r=0;t=3 x-ratelimit-limit: 5 x-ratelimit-remaining: 0 x-ratelimit-reset: {resets}'
    )


def test_epoch_moves_with_the_clock() -> None:
    fields, decision = HeaderWriter(BUCKET, "epoch"), Decision(True, 4, 0, SECOND, 0)
    told = []
    for now in (1_000.0, 1_001.0):
        with patch("ratelab.http.headers.time.time", lambda now=now: now):
            told.append(dict(fields.of(decision))[b"x-ratelimit-reset"])
    assert told == [b"1001", b"1002"]


@pytest.mark.parametrize("legacy", ["on", "", "Delta", None])
def test_older_fields_there_are_not_are_refused(legacy: str) -> None:
    with pytest.raises(InputError, match="legacy headers must be one of off, delta, epoch, got "):
        HeaderWriter(BUCKET, legacy)


def test_limits_reads_what_is_there() -> None:
    told = [(b"ratelimit-policy", b'"a";q=1;w=1'), (b"ratelimit", b'"a";r=0;t=1'), (b"retry-after", b"1")]
    assert parse_limits(told) == Limits("a", 1, 1, 0, 1, 1)
    for place, value in ((0, b'"a";q=1;w=0'), (0, b'"b";q=1;w=1'), (0, b"a;q=1;w=1"), (1, b'"a";r=0.0;t=1'), (2, b"0")):
        wrong = [*told]
        wrong[place] = (wrong[place][0], value)
        with pytest.raises(AssertionError):
            parse_limits(wrong)
