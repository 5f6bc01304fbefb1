"""The middleware: who is let through, what the others are told, and what the application does not notice."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any
from unittest.mock import patch

import pytest
from asgi import PEER, Answer, call, request, scope_of
from limited_apps import Handler, Watched
from response_headers import parse_limits

from ratelab.http.asgi import Scope
from ratelab.http.identity import Identity
from ratelab.http.middleware import MOST_GUARDS, RateLimitMiddleware

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
NO_BODY_IS_KEPT = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]


def problem(answer: Answer) -> dict[str, Any]:
    told: dict[str, Any] = json.loads(answer.body)
    assert told["status"] == answer.status
    assert answer.of("content-length") == [str(len(answer.body))]
    return told


# --- let through, or not


def test_an_admitted_request_gets_what_the_application_says_and_the_fields() -> None:
    answer = call(RateLimitMiddleware(Handler(), Watched()))
    fields = [(b"ratelimit-policy", b'"token-bucket";q=5;w=3'), (b"ratelimit", b'"token-bucket";r=4;t=1')]
    assert answer == (200, [(b"server", b"mine"), *fields], b"hello")


def test_a_denied_request_is_told_why_and_until_when_and_does_not_reach_the_application() -> None:
    handler = Handler()
    app = RateLimitMiddleware(handler, Watched())
    answers = [call(app) for _ in range(6)]
    assert [parse_limits(answer.fields).r for answer in answers] == [4, 3, 2, 1, 0, 0]
    assert len(handler.calls) == 5
    fields = [(b"ratelimit-policy", b'"token-bucket";q=5;w=3'), (b"ratelimit", b'"token-bucket";r=0;t=1')]
    length = (b"content-length", b"%d" % len(answers[5].body))
    assert answers[5][:2] == (429, [*NO_BODY_IS_KEPT, *fields, (b"retry-after", b"1"), length])
    assert problem(answers[5]) == {
        "type": QUOTA_EXCEEDED,
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": "Try again in 1 s.",
        "violated-policies": ["token-bucket"],
    }


def test_nothing_is_left_for_a_denied_request_even_if_a_smaller_one_would_do() -> None:
    costs = iter((2, 2, 2, 1))
    app = RateLimitMiddleware(Handler(), Watched(), cost=lambda _: next(costs))
    told = [parse_limits(call(app).fields) for _ in range(4)]
    assert [(each.r, each.retry_after) for each in told] == [(3, None), (1, None), (0, 1), (0, None)]


def test_a_longer_wait_is_told_alike_in_all_places() -> None:
    app = RateLimitMiddleware(Handler(), Watched(rate="1/10s", burst=1))
    told = [call(app) for _ in range(2)][1]
    assert parse_limits(told.fields) == ("token-bucket", 1, 10, 0, 10, 10)
    assert problem(told)["detail"] == "Try again in 10 s."


def test_an_epoch_moves_with_the_clock_for_the_admitted_and_the_denied() -> None:
    app, told = RateLimitMiddleware(Handler(), Watched(burst=1), legacy="epoch"), []
    for now in (1_000.0, 1_000.0, 1_007.5):
        with patch("ratelab.http.headers.time.time", lambda now=now: now):
            answer = call(app)
        told.append((answer.status, *answer.of("x-ratelimit-reset")))
    assert told == [(200, "1001"), (429, "1001"), (429, "1009")]


def test_head_is_told_the_same_without_a_body() -> None:
    app = RateLimitMiddleware(Handler(), Watched(burst=1))
    _, got, head = (call(app, method=method) for method in ("GET", "GET", "HEAD"))
    assert (head.status, head.fields, head.body) == (429, got.fields, b"")


def test_a_cost_that_no_wait_can_help_is_a_bad_request_and_takes_nothing() -> None:
    limiter = Watched()
    answer = call(RateLimitMiddleware(Handler(), limiter, cost=6))
    assert (answer.status, answer.of("retry-after"), answer.of("cache-control")) == (400, [], ["no-store"])
    assert parse_limits(answer.fields) == ("token-bucket", 5, 3, 5, 0, None)
    assert problem(answer) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "A cost above 5 is never granted: ask for less at once.",
    }
    assert limiter.stats.keys == 0


def test_two_lines_of_the_key_are_a_bad_request_and_nobody_is_charged() -> None:
    handler, limiter = Handler(), Watched()
    answer = call(RateLimitMiddleware(handler, limiter, "header:X-API-Key"), headers="X-API-Key: a\nX-API-Key: b")
    assert (answer.status, answer.fields[:2]) == (400, NO_BODY_IS_KEPT)
    assert problem(answer)["detail"] == "x-api-key must be sent once, not 2 times"
    assert (limiter.asked, handler.calls) == ([], [])


def test_requests_at_the_same_time_share_one_quota() -> None:
    app = RateLimitMiddleware(Handler(), Watched())

    async def crowd() -> list[Answer]:
        return await asyncio.gather(*(request(app, scope_of()) for _ in range(50)))

    assert [answer.status for answer in asyncio.run(crowd())] == [200] * 5 + [429] * 45


# --- who, how much, by which limiter


def test_clients_do_not_share_a_quota() -> None:
    app = RateLimitMiddleware(Handler(), Watched(burst=1))
    assert [call(app, peer).status for peer in (PEER, "192.0.2.2", None, PEER, None)] == [200, 200, 200, 429, 429]


def test_the_key_may_be_an_address_a_header_a_function_or_an_identity() -> None:
    scope = scope_of(PEER, "X-API-Key: alice")
    for key in ("ip", "header:X-API-Key", lambda scope: scope["path"], Identity("header:X-API-Key")):
        app = RateLimitMiddleware(Handler(), Watched(burst=1), key)
        same, other = dict(scope), scope_of("192.0.2.2", "X-API-Key: bob", path="/pong")
        assert [asyncio.run(request(app, each)).status for each in (scope, same, other)] == [200, 429, 200]


def test_no_request_says_its_name_to_the_limiter() -> None:
    limiter = Watched()
    call(RateLimitMiddleware(Handler(), limiter, "header:X-API-Key"), PEER, "X-API-Key: canary")
    ((key, _),) = limiter.asked
    assert (len(key), "canary" in key, PEER in key) == (32, False, False)


def test_the_cost_may_be_a_number_or_a_function_of_the_request() -> None:
    costs = {"/look": 0, "/read": 1, "/export": 4}
    app = RateLimitMiddleware(Handler(), Watched(), cost=lambda scope: costs[scope["path"]])
    answers = [call(app, path=path) for path in ("/export", "/export", "/look", "/read", "/read", "/look")]
    assert [answer.status for answer in answers] == [200, 429, 200, 200, 429, 200]
    assert [parse_limits(answer.fields).r for answer in answers] == [1, 0, 1, 0, 0, 0]


@pytest.mark.slow
def test_a_function_that_makes_limiters_without_end_does_not_fill_the_memory() -> None:
    made = weakref.WeakSet[Watched]()

    def anew(scope: Scope) -> Watched:
        limiter = Watched(burst=1)
        made.add(limiter)
        return limiter

    app = RateLimitMiddleware(Handler(), anew)
    assert {call(app).status for _ in range(3 * MOST_GUARDS)} == {200}
    gc.collect()
    assert len(made) <= MOST_GUARDS


def test_the_limiter_may_be_a_function_of_the_request() -> None:
    handler, reads, writes = Handler(), Watched("token-bucket", "2/s", 5), Watched("fixed-window", "1/min", 1)
    app = RateLimitMiddleware(handler, lambda scope: reads if scope["method"] == "GET" else writes)
    answers = [call(app, method=method) for method in ("GET", "POST", "POST", "GET")]
    told = [parse_limits(answer.fields) for answer in answers]
    assert [answer.status for answer in answers] == [200, 200, 429, 200]
    assert [each[:4] for each in told] == [
        ("token-bucket", 5, 3, 4),
        ("fixed-window", 1, 60, 0),
        ("fixed-window", 1, 60, 0),
        ("token-bucket", 5, 3, 3),
    ]
    assert problem(answers[2])["violated-policies"] == ["fixed-window"]


def test_exempt_requests_are_neither_limited_nor_charged_nor_told_anything() -> None:
    limiter = Watched(burst=1)
    app = RateLimitMiddleware(Handler(), limiter, exempt=lambda scope: scope["path"] == "/healthz")
    for _ in range(9):
        assert call(app, path="/healthz") == (200, [(b"server", b"mine")], b"hello")
    assert limiter.asked == []
    assert [call(app).status for _ in range(2)] == [200, 429]
    assert call(app, path="/healthz").status == 200
