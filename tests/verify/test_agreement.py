"""Agreement of responses with the simulation: differences, close calls, and errors in header fields."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_responses import (
    MS,
    QUOTA,
    create_token_bucket,
    create_traffic,
    respond_correctly,
    respond_with_jitter,
)
from slow_parameters import mark_slow

from ratelab import create
from ratelab.algorithms import build_policy
from ratelab.limiter import Algorithm
from ratelab.quota import NS_PER_S
from ratelab.verify.agreement import Agreement, Difference, Percentiles, compare_responses
from ratelab.verify.header_checks import HEADER_ERRORS

BURST = create_traffic(0, 10, 20, 30, 40, 2500, 2510, 2520)
"""Three admitted, two denied; then two admitted, one denied."""


def compare_changed(changes: dict[int, dict[str, Any]], late: int = 0, took: int = MS) -> Agreement:
    """Compare a token bucket's responses to `BURST` after changes by number of the request, from 1."""
    responses = respond_correctly(create_token_bucket(), BURST, late, took)
    for request, change in changes.items():
        responses[request - 1] = responses[request - 1]._replace(**change)
    return compare_responses(create_token_bucket(), BURST, responses)


# --- decisions


@pytest.mark.parametrize("late", [0, 5 * MS])
def test_correct_responses_agree(kind: type[Algorithm], late: int) -> None:
    policy = build_policy(kind, QUOTA)
    traffic = create_traffic(0, 0, 0, 0, 10, 20, 700, 1400, 1410, 4200, 4210, keys=[0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0])
    agreement = compare_responses(policy, traffic, respond_correctly(policy, traffic, late))
    assert (agreement.holds, agreement.requests, agreement.agreeing) == (True, 11, 11)
    assert (agreement.failures, agreement.used_keys) == (0, 0)
    assert agreement.latency == Percentiles(MS, MS, MS, MS)
    assert agreement.lateness == Percentiles(late, late, late, late)


@pytest.mark.parametrize(
    ("request_number", "change", "simulated", "answered", "failures"),
    [
        (2, {"status": 429, "remaining": 0, "retry_after": "1"}, "admitted", "denied", 0),
        (4, {"status": 200}, "denied", "admitted", 0),
        (4, {"status": 204}, "denied", "admitted", 0),
        (1, {"status": 503}, "admitted", "status 503", 1),
        (8, {"status": 400}, "denied", "status 400", 1),
        (6, {"status": 0, "error": "timed out"}, "admitted", "timed out", 1),
    ],
)
def test_a_response_other_than_the_simulated_one_is_a_difference(
    request_number: int, change: dict[str, Any], simulated: str, answered: str, failures: int
) -> None:
    agreement = compare_changed({request_number: change})
    at = int(BURST.times[request_number - 1])
    assert agreement.differences == (Difference(request_number, at, "client-0", simulated, answered, False),)
    assert (agreement.agreeing, agreement.failures, agreement.holds) == (7, failures, False)


def test_simultaneous_requests_may_be_decided_in_any_order() -> None:
    traffic = create_traffic(0, 0, 0, 0, 0, 1000)
    responses = respond_correctly(create_token_bucket(), traffic)
    first = responses[0].received_ns
    responses[:5] = [responses[order]._replace(received_ns=first + order) for order in (4, 0, 3, 2, 1)]
    assert compare_responses(create_token_bucket(), traffic, responses).holds
    responses[0] = responses[1]
    assert len(compare_responses(create_token_bucket(), traffic, responses).differences) == 1


def test_simultaneous_queued_requests_may_be_released_in_any_order() -> None:
    queue, traffic = create("leaky-bucket", QUOTA), create_traffic(0, 0, 0, 0)
    responses = respond_correctly(queue, traffic)
    assert compare_responses(queue, traffic, [responses[order] for order in (2, 3, 0, 1)]).holds


def test_latency_excludes_the_time_in_the_queue() -> None:
    queue, traffic = create("leaky-bucket", QUOTA), create_traffic(0, 0, 0)
    responses = respond_correctly(queue, traffic, took=3 * MS)
    assert max(response.received_ns - response.sent_ns for response in responses) > 2 * NS_PER_S
    assert compare_responses(queue, traffic, responses).latency == Percentiles(3 * MS, 3 * MS, 3 * MS, 3 * MS)


def test_a_response_before_the_end_of_the_delay_is_a_difference() -> None:
    queue, traffic = create("leaky-bucket", QUOTA), create_traffic(0, 100)
    responses = respond_correctly(queue, traffic)
    responses[1] = responses[1]._replace(received_ns=responses[1].sent_ns + MS)
    (difference,) = compare_responses(queue, traffic, responses).differences
    assert (difference.simulated, difference.answered) == ("admitted", "admitted early")
    assert not difference.close_call


@pytest.mark.parametrize(
    ("durations", "percentiles"),
    [
        (range(1, 101), Percentiles(50, 90, 99, 100)),
        (range(10, 0, -1), Percentiles(5, 9, 10, 10)),
        ([7], Percentiles(7, 7, 7, 7)),
        ([], None),
    ],
)
def test_percentiles_are_nearest_ranks(durations: list[int], percentiles: Percentiles | None) -> None:
    assert Percentiles.of(durations) == percentiles


# --- close calls

ON_THE_EDGE = create_traffic(0, 10, 20, 1000, 1100)
"""The fourth request arrives just when a token is refilled; if it is denied, the fifth may have the token."""


@pytest.mark.parametrize(("first_took", "close"), [(6 * MS, True), (MS // 2, False)])
def test_a_difference_that_decision_times_explain_is_a_close_call(first_took: int, close: bool) -> None:
    responses = respond_correctly(create_token_bucket(), ON_THE_EDGE)
    first, *_, fourth, fifth = responses
    responses[0] = first._replace(received_ns=first.sent_ns + first_took)
    responses[3] = fourth._replace(sent_ns=fourth.sent_ns + MS, received_ns=fourth.sent_ns + 2 * MS, status=429)
    responses[4] = fifth._replace(status=200, remaining=0)
    agreement = compare_responses(create_token_bucket(), ON_THE_EDGE, responses)
    found = [(difference.request, difference.close_call) for difference in agreement.differences]
    assert found == [(4, close), (5, close)]
    assert (agreement.close_calls, agreement.holds) == (2 * close, False)


def test_a_difference_due_to_a_late_request_is_a_close_call() -> None:
    traffic = create_traffic(0, 10, 20, 900)
    responses = respond_correctly(create_token_bucket(), traffic)
    late = responses[3].sent_ns + 150 * MS
    responses[3] = responses[3]._replace(sent_ns=late, received_ns=late + MS, status=200, remaining=0)
    (difference,) = compare_responses(create_token_bucket(), traffic, responses).differences
    assert difference.close_call


OVERTAKING = create_traffic(
    *(at for start in range(0, 12000, 500) for at in (start, start, start + 1, start + 3, start + 400)),
    keys=[number % 2 for _ in range(24) for number in (0, 1, 0, 0, 1)],
)
"""Two clients whose requests overtake each other, just when tokens are refilled and windows end."""


@pytest.mark.parametrize("seed", mark_slow(range(12), fast=[0, 1]))
def test_a_slow_but_correct_server_only_has_close_calls(kind: type[Algorithm], seed: int) -> None:
    policy = build_policy(kind, QUOTA)
    agreement = compare_responses(policy, OVERTAKING, respond_with_jitter(policy, OVERTAKING, seed))
    assert [difference for difference in agreement.differences if not difference.close_call] == []
    assert (agreement.header_errors, agreement.used_keys) == ((), 0)


# --- header fields


@pytest.mark.parametrize(
    ("kind_of_error", "changes"),
    [
        ("missing-ratelimit", {1: {"policy": None}}),
        ("missing-ratelimit", {4: {"remaining": None, "reset": None}}),
        ("missing-retry-after", {4: {"retry_after": None}}),
        *(("bad-retry-after", {5: {"retry_after": text}}) for text in ("0", "-1", "1.0", "", "soon", "1, 2", "²")),
        ("bad-retry-after", {5: {"retry_after": "Fri, 31 Dec 1999 23:59:59 GMT"}}),
        ("late-retry-after", {4: {"retry_after": "3"}}),
        ("remaining-when-denied", {4: {"remaining": 1}, 5: {"remaining": 1}}),
        ("remaining-rises", {1: {"remaining": 1}, 2: {"remaining": 2}}),
    ],
)
def test_each_header_error_is_found_alone(kind_of_error: str, changes: dict[int, dict[str, Any]]) -> None:
    agreement = compare_changed(changes)
    assert (agreement.agreeing, agreement.holds) == (8, False)
    (error,) = agreement.header_errors
    assert (error.kind, error.count) == (kind_of_error, len(error.examples))
    assert {example.request for example in error.examples} <= {*changes}
    assert kind_of_error in HEADER_ERRORS


def test_three_examples_of_an_error_are_kept() -> None:
    agreement = compare_changed({request: {"policy": None} for request in range(1, 9)})
    (error,) = agreement.header_errors
    assert (error.count, [example.request for example in error.examples]) == (8, [1, 2, 3])
    assert (error.examples[0].client, error.examples[0].detail) == ("client-0", "no RateLimit-Policy")


def test_header_fields_of_a_failure_are_not_checked() -> None:
    assert compare_changed({2: {"status": 503, "policy": None, "remaining": None}}).header_errors == ()


@pytest.mark.parametrize(
    ("wait", "took", "kinds"),
    [
        (3, MS, []),
        (2, MS, ["early-retry-after"]),
        (2, 800 * MS, []),  # the client starts to wait at the response, when part of the time has passed
        (4, MS, ["late-retry-after"]),
        (4, 500 * MS, []),
    ],
)
def test_retry_after_is_compared_with_the_simulated_wait(wait: int, took: int, kinds: list[str]) -> None:
    slow = create("token-bucket", "1/3s", 1)
    traffic = create_traffic(0, 400)  # 2.6 s to wait
    responses = respond_correctly(slow, traffic)
    responses[1] = responses[1]._replace(received_ns=responses[1].sent_ns + took, retry_after=str(wait))
    assert [error.kind for error in compare_responses(slow, traffic, responses).header_errors] == kinds


ORIGIN_OF_A_WINDOW = QUOTA.window * 1000


def test_remaining_may_rise_after_replenishment(kind: type[Algorithm]) -> None:
    policy = build_policy(kind, QUOTA)
    traffic = create_traffic(0, 10, 20, 6000, 6010, origin=ORIGIN_OF_A_WINDOW)
    assert compare_responses(policy, traffic, respond_correctly(policy, traffic)).holds


def test_remaining_of_concurrent_requests_may_be_in_any_order() -> None:
    traffic = create_traffic(0, 10, 11, 12)
    responses = respond_correctly(create_token_bucket(), traffic, took=MS // 2)
    last = responses[3].sent_ns
    responses[1] = responses[1]._replace(received_ns=last + 2, remaining=0)
    responses[2] = responses[2]._replace(received_ns=last + 1, remaining=1)
    assert compare_responses(create_token_bucket(), traffic, responses).holds


def test_values_are_not_checked_after_a_difference_of_their_key() -> None:
    agreement = compare_changed({2: {"status": 429, "remaining": 0, "retry_after": "9"}, 4: {"retry_after": "9"}})
    assert (len(agreement.differences), agreement.header_errors) == (1, ())


@pytest.mark.parametrize(("first", "used"), [(2, 0), (1, 1), (0, 1)])
def test_a_key_with_less_than_a_new_quota_is_counted_as_used(first: int, used: int) -> None:
    assert compare_changed({1: {"remaining": first}}).used_keys == used


@pytest.mark.parametrize(("remaining", "used"), [([1, 2, 0], 0), ([1, 0, 0], 1), ([1, None, 0], 0)])
def test_any_of_the_first_concurrent_responses_shows_a_new_key(remaining: list[int | None], used: int) -> None:
    traffic = create_traffic(0, 0, 1)
    responses = [
        response._replace(received_ns=response.sent_ns + 5 * MS, remaining=count)
        for response, count in zip(respond_correctly(create_token_bucket(), traffic), remaining, strict=True)
    ]
    assert compare_responses(create_token_bucket(), traffic, responses).used_keys == used
