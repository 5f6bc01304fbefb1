"""Times of single requests, given the responses to those before."""

from __future__ import annotations

from itertools import pairwise

import pytest

from ratelab.pacing.advice import Allowance, RateAdvice
from ratelab.pacing.pace import PATIENCE_NS, LearnedPace, Sent
from ratelab.quota import NS_PER_S

MS = 1_000_000
ADMITTED, DENIED = RateAdvice(False), RateAdvice(True)


def allowance(limit: int, window_s: int | None, remaining: int, reset_s: int) -> RateAdvice:
    window = None if window_s is None else window_s * NS_PER_S
    return RateAdvice(False, None, (Allowance(limit, window, remaining, reset_s * NS_PER_S),))


def send_ready(pace: LearnedPace, now: int, most: int = 100) -> list[Sent]:
    """Send all requests that are ready at `now`."""
    sent: list[Sent] = []
    while len(sent) < most and pace.ready_at(now) <= now:
        sent.append(pace.send(now, waited=True))
    return sent


def test_two_requests_are_sent_before_the_first_response() -> None:
    assert len(send_ready(LearnedPace(), NS_PER_S)) == 2


def test_each_response_without_a_limit_lets_one_more_be_in_flight() -> None:
    pace = LearnedPace()
    for most in (2, 3, 5, 8):
        sent = send_ready(pace, NS_PER_S)
        assert len(sent) == most
        for one in sent:
            pace.observe(one, NS_PER_S, ADMITTED)


def test_a_request_without_a_response_holds_others_for_a_minute() -> None:
    pace = LearnedPace()
    send_ready(pace, NS_PER_S)
    assert pace.ready_at(2 * NS_PER_S) == NS_PER_S + PATIENCE_NS


def test_an_abandoned_request_holds_no_others() -> None:
    pace = LearnedPace()
    sent = send_ready(pace, NS_PER_S)
    pace.give_back(sent[-1])
    assert len(send_ready(pace, NS_PER_S)) == 1


@pytest.mark.parametrize(
    ("advice", "interval_ms"),
    [
        (allowance(60, 60, 59, 60), 1000),
        (allowance(60, 60, 10, 30), 1000),
        (allowance(100, None, 50, 10), 200),
        (allowance(5000, 3600, 4999, 3600), 60_000 / 2499),  # half of it within a minute
        (allowance(5000, 3600, 2000, 1440), 720),
        (allowance(5000, 3600, 2000, 600), 300),
    ],
    ids=[
        "a minute",
        "a minute, partly used",
        "only the rest is known",
        "an hour",
        "the second half of an hour",
        "the end of an hour",
    ],
)
def test_the_first_response_with_a_quota_sets_the_pace(advice: RateAdvice, interval_ms: float) -> None:
    pace = LearnedPace()
    sent, *_ = send_ready(pace, NS_PER_S, most=1)
    pace.observe(sent, NS_PER_S + 50 * MS, advice)
    assert pace.spacing == pytest.approx(interval_ms * MS)
    assert pace.ready_at(NS_PER_S + 50 * MS) == pytest.approx(NS_PER_S + interval_ms * MS, abs=50 * MS)


def test_requests_of_a_known_quota_are_spaced() -> None:
    pace = LearnedPace()
    sent, *_ = send_ready(pace, NS_PER_S, most=1)
    pace.observe(sent, NS_PER_S, allowance(10, 10, 9, 10))
    times = []
    for _ in range(5):
        times.append(pace.ready_at(0))
        pace.send(times[-1], waited=True)
    assert {later - earlier for earlier, later in pairwise(times)} == {NS_PER_S}


def test_of_several_policies_the_slowest_sets_the_pace() -> None:
    pace = LearnedPace()
    sent, *_ = send_ready(pace, NS_PER_S, most=1)
    slow, fast = Allowance(60, 60 * NS_PER_S), Allowance(10, NS_PER_S, 9, NS_PER_S)
    pace.observe(sent, NS_PER_S, RateAdvice(False, None, (slow, fast)))
    assert pace.spacing == NS_PER_S


def test_no_request_is_sent_before_the_wait_of_a_denial_ends() -> None:
    pace = LearnedPace()
    sent, *_ = send_ready(pace, NS_PER_S, most=1)
    pace.observe(sent, 2 * NS_PER_S, RateAdvice(True, 7 * NS_PER_S))
    assert pace.ready_at(2 * NS_PER_S) >= 9 * NS_PER_S


def test_one_request_at_a_time_probes_whether_denials_have_ended() -> None:
    pace, now = LearnedPace(), NS_PER_S
    for one in send_ready(pace, now):
        pace.observe(one, now, ADMITTED)
    for one in send_ready(pace, now):
        pace.observe(one, now, DENIED)
    waits = []
    for _ in range(8):
        waits.append(pace.ready_at(now) - now)
        now += waits[-1]
        (probe,) = send_ready(pace, now)
        pace.observe(probe, now, DENIED)
    assert all(later == pytest.approx(earlier * 1.5, abs=2) for earlier, later in pairwise(waits))


def test_denials_of_requests_in_flight_count_as_one() -> None:
    pace, now = LearnedPace(interval=10.0 * MS), NS_PER_S
    sent = []
    for _ in range(10):
        now = max(now, pace.ready_at(now))
        sent.append(pace.send(now, waited=True))
    interval_after = set()
    for one in sent:
        pace.observe(one, now, DENIED)
        interval_after.add(pace.interval)
    assert len(interval_after) == 1
    assert pace.streak == 1


def test_a_cached_response_shows_nothing() -> None:
    pace, fresh = LearnedPace(), LearnedPace()
    sent, *_ = send_ready(pace, NS_PER_S, most=1)
    fresh.send(NS_PER_S, waited=True)
    fresh.abandon()
    pace.observe(sent, NS_PER_S, RateAdvice(False, None, (Allowance(1, NS_PER_S, 0, NS_PER_S),), cached=True))
    assert pace == fresh


def test_requests_that_come_seldom_do_not_raise_the_rate() -> None:
    pace, now = LearnedPace(interval=100.0 * MS), NS_PER_S
    for _ in range(1000):
        sent = pace.send(pace.ready_at(now), waited=False)
        pace.observe(sent, now, ADMITTED)
        now += NS_PER_S
    assert pace.interval == 100 * MS


def test_requests_that_are_sent_late_do_not_raise_the_rate() -> None:
    pace, now = LearnedPace(interval=100.0 * MS), NS_PER_S
    for _ in range(1000):
        now = pace.ready_at(now) + NS_PER_S
        pace.observe(pace.send(now, waited=True), now, ADMITTED)
    assert pace.interval == 100 * MS


def test_a_rate_that_was_denied_is_tried_again_only_after_enough_admissions() -> None:
    pace, now = LearnedPace(interval=100.0 * MS, step=0.02), NS_PER_S
    pace.observe(pace.send(now, waited=True), now, DENIED)
    shortest = []
    for _ in range(900):
        now = max(now, pace.ready_at(now))
        pace.observe(pace.send(now, waited=True), now, ADMITTED)
        shortest.append(pace.interval)
    assert min(shortest[:200]) > 100 * MS > min(shortest)


def test_a_fixed_window_that_others_use_is_spread_over_the_rest_of_its_time() -> None:
    pace, now = LearnedPace(), 1000 * NS_PER_S
    remaining, spacing = 100, 0.0
    for second in range(150):  # a window of 60 s, of which another client uses half in its first 20 s
        now += NS_PER_S
        in_window = second % 60
        remaining = 99 if in_window == 0 else remaining - (3 if in_window < 20 else 1)
        sent = pace.send(max(now, pace.ready_at(now)), waited=True)
        pace.observe(sent, now, allowance(100, 60, max(remaining, 0), 60 - in_window))
        spacing = pace.spacing
    assert pace.advertised.fixed
    assert spacing == pytest.approx(31 * NS_PER_S / (remaining + 1), rel=0.1)


def test_a_state_survives_as_text() -> None:
    pace = LearnedPace()
    for one in send_ready(pace, NS_PER_S):
        pace.observe(one, NS_PER_S, allowance(10, 10, 9, 10))
    assert LearnedPace.load(pace.dump()) == pace


@pytest.mark.parametrize("text", ["", "x", "[]", "{}", '{"interval":1,"unknown":2,"advertised":{}}'])
def test_a_state_of_another_version_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        LearnedPace.load(text)
