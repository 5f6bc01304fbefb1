"""Rate-limit header fields of decisions, parsed with http-sf; integers have at most 15 digits."""

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
from ratelab.quota import NS_PER_S

BUCKET = create("token-bucket", "2/s", burst=5)
BUILT_IN = pytest.mark.parametrize("built_in", ALGORITHMS.values(), ids=ALGORITHMS.keys())


def policy_of(policy: Policy) -> bytes:
    fields = dict(HeaderWriter(policy).format_decision(Decision(True, 0, 0, 0, 0)))
    return fields[b"ratelimit-policy"]


def timeline(legacy: str, *hits: tuple[float, int]) -> list[str]:
    """Return the header fields after each hit `(at, cost)` of one key, one line per hit."""
    clock, fields = ManualClock(), HeaderWriter(BUCKET, legacy)
    limiter, lines = MemoryLimiter(BUCKET, clock), []
    for at, cost in hits:
        clock.now = int(at * NS_PER_S)
        parts = fields.format_decision(limiter.hit("alice", cost))
        lines.append(" ".join(f"{name.decode()}: {value.decode()}" for name, value in parts if b"policy" not in name))
    return lines


# --- the policy


def test_a_policy_has_the_burst_and_the_seconds_that_grant_it() -> None:
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
    assert w == max(1, ceil(quota.window / NS_PER_S))


def test_the_policy_of_a_custom_algorithm_is_its_quota(tmp_path: Path) -> None:
    (tmp_path / "cooldown.py").write_text(block("python", "class Cooldown"), encoding="utf-8")
    policy = create(f"{tmp_path / 'cooldown.py'}:Cooldown", "2/s", burst=5)
    assert not hasattr(policy.algorithm, "window")
    assert policy_of(policy) == b'"cooldown";q=5;w=3'


@BUILT_IN
def test_huge_numbers_are_clamped_to_15_digits(built_in: type[Algorithm]) -> None:
    try:
        policy = build_policy(built_in, Quota(2**61, NS_PER_S, 2**61))
    except InputError:
        assert built_in.name == "sliding-log"
        return
    decision = MemoryLimiter(policy, ManualClock()).hit("alice")
    assert parse_limits(HeaderWriter(policy).format_decision(decision)) == (
        built_in.name,
        LARGEST,
        1,
        min(decision.remaining, LARGEST),
        seconds_to_reset(decision),
        None,
    )
    slow = build_policy(built_in, Quota(1, 2**62 - 1, 1))
    limiter = MemoryLimiter(slow, ManualClock())
    limits = [parse_limits(HeaderWriter(slow).format_decision(limiter.hit("alice"))) for _ in range(2)]
    assert [(limit.q, limit.w, limit.r) for limit in limits] == [(1, 4_611_686_019, 0)] * 2


def seconds_to_reset(decision: Decision) -> int:
    return -(-decision.reset_after_ns // NS_PER_S)


@pytest.mark.parametrize("name", ['say "hi"', "back\\slash", "\\", '"', "two words", "~!", "a;q=9"])
def test_a_policy_name_is_quoted(name: str) -> None:
    assert parse_limits(HeaderWriter(named(name)).format_decision(Decision(True, 4, 0, NS_PER_S, 0))) == (
        name,
        5,
        3,
        4,
        1,
        None,
    )


@pytest.mark.parametrize("name", ["gr\xf6\xdfe", "line\nfeed", "\x7f", "nul\0", "\u200b"])
def test_a_name_that_a_field_cannot_hold_is_rejected(name: str) -> None:
    with pytest.raises(InputError, match=r"a header field cannot hold the name .* of a policy: use printable ASCII"):
        HeaderWriter(named(name))


# --- the state


def test_the_state_follows_each_hit() -> None:
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


waits = st.integers(1, 2**62) | st.integers(1, 20).map(lambda whole: whole * NS_PER_S) | st.integers(1, 10**7)
allowed = st.builds(Decision, st.just(True), st.integers(0, 2**62), st.just(0), st.just(0) | waits, st.just(0))
denied = st.builds(Decision, st.just(False), st.integers(0, 2**62), waits, waits, st.just(0))
impossible = st.builds(Decision, st.just(False), st.integers(0, 2**62), st.just(NEVER), st.just(0) | waits, st.just(0))


@given(decision=allowed | impossible)
def test_a_decision_without_a_wait_has_remaining_and_reset(decision: Decision) -> None:
    limits = parse_limits(HeaderWriter(BUCKET).format_decision(decision))
    assert limits == ("token-bucket", 5, 3, min(decision.remaining, LARGEST), seconds_to_reset(decision), None)


def check_denial(decision: Decision) -> None:
    limits = parse_limits(HeaderWriter(BUCKET).format_decision(decision))
    assert (limits.r, limits.retry_after) == (0, limits.t)
    assert limits.retry_after is not None
    assert decision.retry_after_ns <= limits.t * NS_PER_S < decision.retry_after_ns + NS_PER_S


@given(decision=denied)
def test_a_denial_has_no_quota_left_and_the_wait_rounded_up(decision: Decision) -> None:
    check_denial(decision)


def test_headers_do_not_depend_on_earlier_ones() -> None:
    fields = HeaderWriter(BUCKET, "delta")
    for wait in [*range(1, 9_000), *range(1, 9_000)]:
        for decision in (Decision(True, 7, 0, wait * NS_PER_S, 0), Decision(False, 0, wait * NS_PER_S, 1, 0)):
            assert (b"ratelimit", b'"token-bucket";r=%d;t=%d' % (decision[1], wait)) in fields.format_decision(decision)
            assert ((b"retry-after", b"%d" % wait) in fields.format_decision(decision)) is not decision.allowed


@patch("ratelab.http.headers.MAX_CACHED_HEADERS", 250)
def test_the_cache_of_headers_is_bounded() -> None:
    fields = HeaderWriter(BUCKET)
    held = []
    tracemalloc.start()
    for waits in (range(500), range(500, 2000)):
        for wait in waits:
            fields.format_decision(Decision(True, 0, 0, wait * NS_PER_S, 0))
        held.append(tracemalloc.get_traced_memory()[0])
    tracemalloc.stop()
    assert held[1] < 1.5 * held[0]  # four times as much if everything is kept


# --- legacy headers


def test_legacy_headers_are_off_by_default() -> None:
    assert "x-ratelimit" not in "".join(timeline("off", (0, 5), (0, 1), (0, 6)))


def test_delta_counts_the_seconds_from_now() -> None:
    assert timeline("delta", (0, 2), (0, 4), (0, 6)) == [
        'ratelimit: "token-bucket";r=3;t=1 x-ratelimit-limit: 5 x-ratelimit-remaining: 3 x-ratelimit-reset: 1',
        'ratelimit: "token-bucket";r=0;t=1 retry-after: 1'
        " x-ratelimit-limit: 5 x-ratelimit-remaining: 0 x-ratelimit-reset: 1",
        'ratelimit: "token-bucket";r=3;t=1 x-ratelimit-limit: 5 x-ratelimit-remaining: 3 x-ratelimit-reset: 1',
    ]


@pytest.mark.parametrize(("now", "resets"), [(1_700_000_000.0, 1_700_000_003), (1_700_000_000.001, 1_700_000_004)])
def test_epoch_is_the_seconds_since_1970_rounded_up(now: float, resets: int) -> None:
    with patch("time.time_ns", lambda: int(now * 1e9)):
        (line,) = timeline("epoch", (0, 5))
    assert line == (
        f'ratelimit: "token-bucket";r=0;t=3 x-ratelimit-limit: 5 x-ratelimit-remaining: 0 x-ratelimit-reset: {resets}'
    )


def test_epoch_follows_the_clock() -> None:
    fields, decision = HeaderWriter(BUCKET, "epoch"), Decision(True, 4, 0, NS_PER_S, 0)
    resets = []
    for now in (1_000.0, 1_001.0):
        with patch("time.time_ns", lambda now=now: int(now * 1e9)):
            resets.append(dict(fields.format_decision(decision))[b"x-ratelimit-reset"])
    assert resets == [b"1001", b"1002"]


@pytest.mark.parametrize("legacy", ["on", "", "Delta", None])
def test_an_unknown_kind_of_legacy_headers_is_rejected(legacy: str) -> None:
    with pytest.raises(InputError, match="legacy headers must be one of off, delta, epoch, got "):
        HeaderWriter(BUCKET, legacy)


def test_the_test_parser_rejects_malformed_fields() -> None:
    fields = [(b"ratelimit-policy", b'"a";q=1;w=1'), (b"ratelimit", b'"a";r=0;t=1'), (b"retry-after", b"1")]
    assert parse_limits(fields) == Limits("a", 1, 1, 0, 1, 1)
    for place, value in ((0, b'"a";q=1;w=0'), (0, b'"b";q=1;w=1'), (0, b"a;q=1;w=1"), (1, b'"a";r=0.0;t=1'), (2, b"0")):
        wrong = [*fields]
        wrong[place] = (wrong[place][0], value)
        with pytest.raises(AssertionError):
            parse_limits(wrong)
