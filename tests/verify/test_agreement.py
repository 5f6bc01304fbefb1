"""Answers against the simulation: what agrees, what is a close call, and which header fields are at fault."""

from __future__ import annotations

from typing import Any

import pytest
from scripted_responses import MS, QUOTA, SECOND, jittered, served, token_bucket, traffic

from ratelab import create
from ratelab.limiter import Algorithm
from ratelab.verify.agreement import Agreement, Difference, Spread, agree
from ratelab.verify.header_checks import KINDS

BURST = traffic(0, 10, 20, 30, 40, 2500, 2510, 2520)
"""Three admitted, two denied; then two admitted, one denied."""


def lied(changes: dict[int, dict[str, Any]], late: int = 0, took: int = MS) -> Agreement:
    """Return how a token bucket's answers to `BURST` agree, some of them changed; requests count from 1."""
    told = served(token_bucket(), BURST, late, took)
    for request, change in changes.items():
        told[request - 1] = told[request - 1]._replace(**change)
    return agree(token_bucket(), BURST, told)


# --- decisions


@pytest.mark.parametrize("late", [0, 5 * MS])
def test_an_honest_server_agrees(kind: type[Algorithm], late: int) -> None:
    algorithm = kind.from_quota(QUOTA)
    asked = traffic(0, 0, 0, 0, 10, 20, 700, 1400, 1410, 4200, 4210, keys=[0, 0, 1, 0, 0, 1, 0, 1, 1, 0, 0])
    told = agree(algorithm, asked, served(algorithm, asked, late))
    assert (told.holds, told.requests, told.agreeing, told.errors, told.used) == (True, 11, 11, 0, 0)
    assert told.latency == Spread(MS, MS, MS, MS)
    assert told.lateness == Spread(late, late, late, late)


@pytest.mark.parametrize(
    ("request_number", "change", "simulated", "answered", "errors"),
    [
        (2, {"status": 429, "remaining": 0, "retry_after": "1"}, "admitted", "denied", 0),
        (4, {"status": 200}, "denied", "admitted", 0),
        (4, {"status": 204}, "denied", "admitted", 0),
        (1, {"status": 503}, "admitted", "status 503", 1),
        (8, {"status": 400}, "denied", "status 400", 1),
        (6, {"status": 0, "error": "no answer in time"}, "admitted", "no answer in time", 1),
    ],
)
def test_an_answer_of_another_kind_differs(
    request_number: int, change: dict[str, Any], simulated: str, answered: str, errors: int
) -> None:
    told = lied({request_number: change})
    at = int(BURST.times[request_number - 1])
    assert told.differing == (Difference(request_number, at, "client-0", simulated, answered, False),)
    assert (told.agreeing, told.errors, told.holds) == (7, errors, False)


def test_requests_of_one_instant_may_be_decided_in_any_order() -> None:
    asked = traffic(0, 0, 0, 0, 0, 1000)
    told = served(token_bucket(), asked)
    told[:5] = [told[order]._replace(answered_ns=told[0].answered_ns + order) for order in (4, 0, 3, 2, 1)]
    assert agree(token_bucket(), asked, told).holds
    told[0] = told[1]
    assert len(agree(token_bucket(), asked, told).differing) == 1


def test_queued_requests_of_one_instant_may_go_ahead_in_any_order() -> None:
    queue, asked = create("leaky-bucket", QUOTA), traffic(0, 0, 0, 0)
    told = served(queue, asked)
    assert agree(queue, asked, [told[order] for order in (2, 3, 0, 1)]).holds


def test_latency_leaves_out_the_time_in_the_queue() -> None:
    queue, asked = create("leaky-bucket", QUOTA), traffic(0, 0, 0)
    told = served(queue, asked, took=3 * MS)
    assert max(one.answered_ns - one.sent_ns for one in told) > 2 * SECOND
    assert agree(queue, asked, told).latency == Spread(3 * MS, 3 * MS, 3 * MS, 3 * MS)


def test_an_answer_before_the_end_of_its_delay_differs() -> None:
    queue, asked = create("leaky-bucket", QUOTA), traffic(0, 100)
    told = served(queue, asked)
    told[1] = told[1]._replace(answered_ns=told[1].sent_ns + MS)
    (one,) = agree(queue, asked, told).differing
    assert (one.simulated, one.answered, one.close_call) == ("admitted", "admitted early", False)


@pytest.mark.parametrize(
    ("durations", "spread"),
    [
        (range(1, 101), Spread(50, 90, 99, 100)),
        (range(10, 0, -1), Spread(5, 9, 10, 10)),
        ([7], Spread(7, 7, 7, 7)),
        ([], None),
    ],
)
def test_a_spread_is_of_nearest_ranks(durations: list[int], spread: Spread | None) -> None:
    assert Spread.of(durations) == spread


# --- close calls

ON_THE_EDGE = traffic(0, 10, 20, 1000, 1100)
"""The fourth request comes at the very moment when a token comes back; in its stead, the fifth may have it."""


@pytest.mark.parametrize(("first_took", "close"), [(6 * MS, True), (MS // 2, False)])
def test_a_difference_that_the_times_explain_is_a_close_call(first_took: int, close: bool) -> None:
    told = served(token_bucket(), ON_THE_EDGE)
    told[0] = told[0]._replace(answered_ns=told[0].sent_ns + first_took)
    told[3] = told[3]._replace(sent_ns=told[3].sent_ns + MS, answered_ns=told[3].sent_ns + 2 * MS, status=429)
    told[4] = told[4]._replace(status=200, remaining=0)
    found = agree(token_bucket(), ON_THE_EDGE, told)
    assert [(one.request, one.close_call) for one in found.differing] == [(4, close), (5, close)]
    assert (found.close_calls, found.holds) == (2 * close, False)


def test_a_late_request_is_a_close_call() -> None:
    asked = traffic(0, 10, 20, 900)
    told = served(token_bucket(), asked)
    late = told[3].sent_ns + 150 * MS
    told[3] = told[3]._replace(sent_ns=late, answered_ns=late + MS, status=200, remaining=0)
    assert [one.close_call for one in agree(token_bucket(), asked, told).differing] == [True]


IN_A_HURRY = traffic(
    *(at for start in range(0, 12000, 500) for at in (start, start, start + 1, start + 3, start + 400)),
    keys=[number % 2 for _ in range(24) for number in (0, 1, 0, 0, 1)],
)
"""Two clients whose requests overtake one another, just when tokens come back and windows end."""


@pytest.mark.parametrize("seed", range(12))
def test_no_honest_server_is_blamed_for_its_haste(kind: type[Algorithm], seed: int) -> None:
    algorithm = kind.from_quota(QUOTA)
    found = agree(algorithm, IN_A_HURRY, jittered(algorithm, IN_A_HURRY, seed))
    assert [one for one in found.differing if not one.close_call] == []
    assert (found.faults, found.used) == ((), 0)


# --- header fields


@pytest.mark.parametrize(
    ("fault", "changes"),
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
def test_each_fault_is_found_and_only_that(fault: str, changes: dict[int, dict[str, Any]]) -> None:
    told = lied(changes)
    assert (told.agreeing, told.holds) == (8, False)
    (found,) = told.faults
    assert (found.kind, found.count) == (fault, len(found.examples))
    assert {one.request for one in found.examples} <= {*changes}
    assert fault in KINDS


def test_of_a_fault_three_examples_are_kept() -> None:
    told = lied({request: {"policy": None} for request in range(1, 9)})
    (fault,) = told.faults
    assert (fault.count, [one.request for one in fault.examples]) == (8, [1, 2, 3])
    assert (fault.examples[0].client, fault.examples[0].told) == ("client-0", "no RateLimit-Policy")


def test_a_fault_of_an_answer_that_is_no_decision_does_not_count() -> None:
    assert lied({2: {"status": 503, "policy": None, "remaining": None}}).faults == ()


@pytest.mark.parametrize(
    ("wait", "took", "kinds"),
    [
        (3, MS, []),
        (2, MS, ["early-retry-after"]),
        (2, 800 * MS, []),  # the client begins to wait when it hears of it, and by then has waited
        (4, MS, ["late-retry-after"]),
        (4, 500 * MS, []),
    ],
)
def test_a_wait_is_held_against_the_simulated_one(wait: int, took: int, kinds: list[str]) -> None:
    slow = create("token-bucket", "1/3s", 1)
    asked = traffic(0, 400)  # 2.6 s to wait
    told = served(slow, asked)
    told[1] = told[1]._replace(answered_ns=told[1].sent_ns + took, retry_after=str(wait))
    assert [fault.kind for fault in agree(slow, asked, told).faults] == kinds


def test_what_remains_may_rise_when_quota_has_come_back(kind: type[Algorithm]) -> None:
    algorithm = kind.from_quota(QUOTA)
    asked = traffic(0, 10, 20, 6000, 6010, origin=ORIGIN_OF_A_WINDOW)
    assert agree(algorithm, asked, served(algorithm, asked)).holds


def test_requests_under_way_together_may_tell_what_remains_in_any_order() -> None:
    asked = traffic(0, 10, 11, 12)
    told = served(token_bucket(), asked, took=MS // 2)
    told[1:3] = [
        one._replace(answered_ns=told[3].sent_ns + order, remaining=left)
        for order, left, one in zip((2, 1), (0, 1), told[1:3], strict=True)
    ]
    assert agree(token_bucket(), asked, told).holds


def test_nothing_simulated_is_asked_of_a_key_that_has_gone_astray() -> None:
    told = lied({2: {"status": 429, "remaining": 0, "retry_after": "9"}, 4: {"retry_after": "9"}})
    assert (len(told.differing), told.faults) == (1, ())


@pytest.mark.parametrize(("first", "used"), [(2, 0), (1, 1), (0, 1)])
def test_a_key_that_was_used_before_is_told_of(first: int, used: int) -> None:
    assert lied({1: {"remaining": first}}).used == used


@pytest.mark.parametrize(("told_first", "used"), [([1, 2, 0], 0), ([1, 0, 0], 1), ([1, None, 0], 0)])
def test_whether_a_key_is_new_is_told_by_any_of_its_first_answers(told_first: list[int | None], used: int) -> None:
    asked = traffic(0, 0, 1)
    told = [
        one._replace(answered_ns=one.sent_ns + 5 * MS, remaining=remaining)
        for one, remaining in zip(served(token_bucket(), asked), told_first, strict=True)
    ]
    assert agree(token_bucket(), asked, told).used == used


ORIGIN_OF_A_WINDOW = QUOTA.window * 1000
