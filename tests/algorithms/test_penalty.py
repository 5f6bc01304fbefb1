"""Penalties: a key that is denied too often is denied everything for a growing time."""

from __future__ import annotations

import pickle
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from asgi import call
from cli_runner import get_json
from contracts import build_or_reject, timelines
from engine_comparison import assert_same, draw_traffic
from hypothesis import given
from hypothesis import strategies as st
from limited_apps import Handler
from response_headers import parse_limits
from slow_parameters import mark_slow

from ratelab import ALGORITHMS, NEVER, Algorithm, InputError, ManualClock, MemoryLimiter, Policy, Quota, traits_of
from ratelab.algorithms.penalty import Penalty, penalize
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.lab.conformance import CONTRACTS, Timeline, run
from ratelab.lab.replay import replay
from ratelab.stores.recording import RecordingLimiter

SECOND = 10**9
MINUTE = 60 * SECOND

GROWING = {"after": 3, "within": "1min", "for": "5min", "growth": 2, "at_most": "15min"}

PENALTIES = [
    Penalty.parse(GROWING),
    Penalty.parse({"after": 1, "within": "1s", "for": "2s"}),
    Penalty.parse({"after": 2, "within": "30ns", "for": "7ns", "growth": 1.5}),
    Penalty.parse({"after": 5, "within": "1day", "for": "1h", "growth": 10}),
]


@pytest.mark.parametrize("name", mark_slow(ALGORITHMS, ("token-bucket", "leaky-bucket", "sliding-counter")))
@given(timeline=timelines, penalty=st.sampled_from(PENALTIES))
def test_a_penalty_keeps_the_contracts(name: str, timeline: Timeline, penalty: Penalty) -> None:
    for contract in CONTRACTS:
        contract(build_or_reject(penalize(ALGORITHMS[name], penalty), timeline.quota), timeline)


def test_only_penalties_declare_that_denials_count() -> None:
    assert not any(traits_of(kind).counts_denials for kind in ALGORITHMS.values())
    assert all(traits_of(penalize(kind, PENALTIES[0])).counts_denials for kind in ALGORITHMS.values())


class Model:
    """A penalty around an algorithm, with a list of all denials that counted."""

    def __init__(self, algorithm: Algorithm, penalty: Penalty, now: int) -> None:
        self.algorithm, self.penalty, self.state = algorithm, penalty, algorithm.start(now)
        self.denials: list[int] = []
        self.penalties: list[tuple[int, int]] = []  # begin and length

    def hit(self, now: int, cost: int) -> tuple[bool, int]:
        """Return whether a hit is admitted, and the wait."""
        begin, length = self.penalties[-1] if self.penalties else (now, 0)
        trial = list(self.state)
        allowed, _, wait, _, _ = self.algorithm.step(trial, now, cost)
        if now < begin + length:
            rest = begin + length - now
            return cost == 0, 0 if cost == 0 else NEVER if wait == NEVER else max(rest, wait)
        self.state = trial
        if not allowed and wait != NEVER:
            self.denials.append(now)
            recent = [at for at in self.denials if now - at < self.penalty.within]
            if len(recent) >= self.penalty.after:
                forgotten = not length or now >= begin + 2 * length
                longer = min(int(Fraction(length) * self.penalty.growth), self.penalty.at_most)
                self.penalties.append((now, self.penalty.length if forgotten else longer))
                self.denials.clear()
                wait = max(wait, self.penalties[-1][1])
        return allowed, wait


@pytest.mark.parametrize("name", ALGORITHMS)
@given(timeline=timelines, penalty=st.sampled_from(PENALTIES))
def test_a_penalty_decides_as_its_model(name: str, timeline: Timeline, penalty: Penalty) -> None:
    algorithm: Any = build_or_reject(penalize(ALGORITHMS[name], penalty), timeline.quota)
    model = Model(algorithm.inner, penalty, timeline.origin)
    for now, cost, decision, _ in run(algorithm, timeline):
        assert (decision.allowed, decision.retry_after_ns) == model.hit(now, cost)


def limiter_of(penalty: object, clock: ManualClock, rate: str = "1/h") -> MemoryLimiter:
    return MemoryLimiter(Policy.create("fixed-window", rate, penalty=penalty), clock)


def deny(limiter: MemoryLimiter, times: int) -> int:
    """Return the wait after this number of denials, in minutes."""
    return [limiter.hit("key").retry_after_ns for _ in range(times)][-1] // MINUTE


def test_penalties_grow_and_are_forgotten_after_as_long_as_they_lasted() -> None:
    limiter = limiter_of(GROWING, clock := ManualClock(), rate="1/min")
    assert limiter.hit("key").allowed
    assert deny(limiter, 2) == 1
    assert deny(limiter, 1) == 5
    clock.advance(5 * MINUTE)
    assert limiter.hit("key").allowed
    assert deny(limiter, 3) == 10
    clock.advance(10 * MINUTE)
    assert limiter.hit("key").allowed
    assert deny(limiter, 3) == 15  # at most
    clock.advance(29 * MINUTE)
    assert limiter.hit("key").allowed
    assert deny(limiter, 3) == 15
    clock.advance(30 * MINUTE)
    assert limiter.hit("key").allowed
    assert deny(limiter, 3) == 5  # forgotten


def test_denials_that_are_too_far_apart_do_not_add_up() -> None:
    limiter = limiter_of(GROWING, clock := ManualClock())
    limiter.hit("key")
    for _ in range(20):
        clock.advance(30 * SECOND)
        assert limiter.hit("key").retry_after_ns > 20 * MINUTE
    assert limiter_of({**GROWING, "within": "61s"}, clock).hit("key").allowed


def test_denials_during_a_penalty_do_not_prolong_it() -> None:
    limiter = limiter_of(GROWING, clock := ManualClock(), rate="1/min")
    limiter.hit("key")
    assert deny(limiter, 3) == 5
    for minutes in (4, 3, 2, 1):
        clock.advance(MINUTE)
        assert deny(limiter, 10) == minutes
    clock.advance(MINUTE)
    assert limiter.hit("key").allowed


def test_looks_and_costs_above_the_burst_do_not_count() -> None:
    limiter = limiter_of(GROWING, ManualClock())
    limiter.hit("key")
    for _ in range(10):
        assert limiter.hit("key", 0).allowed
        assert limiter.hit("key", 2).retry_after_ns == NEVER
    assert deny(limiter, 2) == 60
    assert limiter.hit("other").allowed
    assert deny(limiter, 1) == 60  # of the window, which is longer than the penalty


def test_each_policy_counts_the_requests_that_it_denies() -> None:
    """One that would admit a request is not charged, and counts no denial, if another policy denies the request."""
    strict = Policy.create("fixed-window", "1/min", name="strict", penalty={"after": 2, "within": "1h", "for": "2h"})
    loose = Policy.create("fixed-window", "2/min", name="loose", penalty={"after": 1, "within": "1h", "for": "3h"})
    for policies in ([strict, loose], [loose, strict]):
        limiter = MemoryLimiter(policies, clock := ManualClock())
        assert [limiter.hit("key").bound_by for _ in range(3)] == [None, "strict", "strict"]
        clock.advance(MINUTE)
        decision, each = limiter.hit_each("key")
        assert (decision.bound_by, decision.retry_after_ns) == ("strict", 119 * MINUTE)
        assert {one.bound_by: one.remaining for one in each} == {"strict": 0, None: 2}
        assert limiter.hit("key", 0).remaining == 0
        assert limiter.hit("key", 0).allowed


def test_both_policies_of_a_denied_request_count_it() -> None:
    both = [
        Policy.create("fixed-window", "1/h", name=name, penalty={"after": 1, "within": "1h", "for": length})
        for name, length in (("short", "2h"), ("long", "3h"))
    ]
    limiter = MemoryLimiter(both, ManualClock())
    limiter.hit("key")
    _, each = limiter.hit_each("key")
    assert [one.retry_after_ns // (60 * MINUTE) for one in each] == [2, 3]


def test_a_shadow_policy_is_penalized_for_itself() -> None:
    shadow = Policy.create("fixed-window", "1/min", name="shadow", shadow=True, penalty=GROWING)
    limiter = MemoryLimiter([Policy.create("fixed-window", "9/day", name="day"), shadow], clock := ManualClock())
    assert [limiter.hit("key").shadow for _ in range(4)] == [(), *[("shadow",)] * 3]
    clock.advance(4 * MINUTE)
    assert limiter.hit("key")[0]
    assert limiter.hit("key").shadow == ("shadow",)


def test_the_wait_is_in_the_headers() -> None:
    app = RateLimitMiddleware(
        Handler(), MemoryLimiter(Policy.create("gcra", "1/s", penalty={**GROWING, "after": 2}), ManualClock())
    )
    responses = [call(app) for _ in range(4)]
    assert [response.status for response in responses] == [200, 429, 429, 429]
    assert responses[1].of("retry-after") == ["1"]
    assert responses[2].of("retry-after") == ["300"]
    assert parse_limits(responses[3].fields).t == 300


def test_a_replay_decides_as_a_limiter() -> None:
    policy = Policy.create("token-bucket", "7/13s", 10, penalty=GROWING)
    traffic = draw_traffic(policy.quota)
    rows = replay(policy, traffic).rows.tolist()
    limiter = MemoryLimiter(policy, clock := ManualClock())
    requests = zip(traffic.times.tolist(), traffic.request_keys.tolist(), traffic.costs.tolist(), strict=True)
    for (at, key, cost), row in zip(requests, rows, strict=True):
        clock.now = at
        assert limiter.hit(str(key), cost)[:5] == row


def test_another_quota_keeps_the_penalty_and_the_timezone() -> None:
    policy = Policy.create("fixed-window", "10/day", timezone="Europe/Berlin", name="day", penalty=GROWING)
    changed = policy.with_quota("20/month")
    assert changed == Policy.create("fixed-window", "20/month", timezone="Europe/Berlin", name="day", penalty=GROWING)
    assert policy.with_quota("10/day") == policy
    assert policy.with_quota(Quota.parse("5/day").in_timezone("Asia/Tokyo")).quota.calendar != policy.quota.calendar
    assert pickle.loads(pickle.dumps(policy)) == policy  # noqa: S301


def test_a_plan_neither_ends_a_penalty_nor_grants_anything() -> None:
    policy = Policy.create("fixed-window", "2/h", penalty={**GROWING, "for": "2h", "at_most": "3h"})
    limiter = MemoryLimiter(policy, clock := ManualClock(), plans={"large": {"fixed-window": "20/h"}})
    assert deny(limiter, 5) == 120
    assert limiter.hit("key", plan="large").retry_after_ns == 120 * MINUTE
    clock.advance(119 * MINUTE)
    assert limiter.hit("key", plan="large").retry_after_ns == MINUTE
    clock.advance(MINUTE)
    assert limiter.hit("key", plan="large").remaining == 19
    assert limiter.hit("other", plan="large").remaining == 19


def test_a_plan_keeps_the_timezone_and_what_is_used() -> None:
    policy = Policy.create("fixed-window", "2/day", timezone="Europe/Berlin")
    limiter = MemoryLimiter(policy, ManualClock(), plans={"large": {"fixed-window": "20/day"}})
    assert limiter.hit("key").remaining == 1
    decision = limiter.hit("key", plan="large")
    assert (decision.remaining, decision.reset_after_ns) == (9, 23 * 60 * MINUTE)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "name"), [*enumerate(ALGORITHMS)])
def test_compiled_penalties_equal_those_of_plain_python(number: int, name: str) -> None:
    penalty = {"after": 1, "within": "1s", "for": "2s"} if number % 2 else GROWING
    policy = Policy.create(name, "7/13s", 10, penalty=penalty)
    assert_same(policy.algorithm, draw_traffic(policy.quota))


@pytest.mark.slow
def test_a_compiled_penalty_of_a_calendar_window_equals_that_of_plain_python() -> None:
    policy = Policy.create("fixed-window", "7/day", timezone="Europe/Berlin", penalty={**GROWING, "after": 8})
    assert_same(policy.algorithm, draw_traffic(policy.quota, 1_700_000_000_123_456_789))


@pytest.mark.parametrize(
    ("penalty", "message"),
    [
        ({**GROWING, "after": 0}, "penalty.after must be a whole number from 1 to 100, got 0"),
        ({**GROWING, "after": True}, "penalty.after must be a whole number from 1 to 100, got True"),
        ({**GROWING, "after": "3"}, "penalty.after must be a whole number from 1 to 100, got '3'"),
        ({**GROWING, "within": 60}, "penalty.within must be a duration such as 5min, got 60"),
        ({**GROWING, "within": "0s"}, "penalty.within must be above 0 and at most 366day, got '0s'"),
        ({**GROWING, "within": "1month"}, "penalty.within: a month has 28 to 31 days"),
        ({**GROWING, "for": "5x"}, "penalty.for: unknown unit 'x'"),
        ({**GROWING, "at_most": "1min"}, "penalty.at_most must be at least that of `for`, 5min, got '1min'"),
        ({**GROWING, "growth": 0.5}, "penalty.growth must be a number from 1 to 1000"),
        ({**GROWING, "growth": float("inf")}, "penalty.growth must be a number from 1 to 1000"),
        ({**GROWING, "growth": "2"}, "penalty.growth must be a number from 1 to 1000"),
        ({**GROWING, "growht": 2}, "unknown key 'growht' in penalty"),
        ({"after": 3, "for": "1s"}, "missing key 'within' in penalty"),
        ("3", "penalty must look like {after: 3, within: 1min, for: 5min, growth: 2}, got '3'"),
        ([3], "penalty must look like"),
    ],
)
def test_an_invalid_penalty_is_rejected_in_one_line(penalty: object, message: str) -> None:
    with pytest.raises(InputError) as rejected:
        Policy.create("gcra", "1/s", penalty=penalty)
    assert message in str(rejected.value)
    assert "\n" not in str(rejected.value)


@pytest.mark.parametrize("timezone", [None, "Europe/Berlin"])
def test_a_recording_with_a_penalty_is_repeated(tmp_path: Path, timezone: str | None) -> None:
    path, clock = tmp_path / "recording.jsonl", ManualClock(1_700_000_000 * SECOND)
    policy = Policy.create("fixed-window", "4/day", timezone=timezone, penalty={**GROWING, "growth": 1.5})
    with path.open("w") as file:
        limiter = RecordingLimiter(policy, file, clock)
        for _ in range(60):
            limiter.hit("key")
            clock.advance(2 * 3600 * SECOND // 5)
    result = get_json("replay", path, "--format", "recording", "--algo", "fixed-window")
    assert result["recording"]["differing"] == 0
