"""The middleware: admission, denial, and the choice of key, cost and limiter."""

from __future__ import annotations

import asyncio
import gc
import json
import weakref
from typing import Any
from unittest.mock import patch

import pytest
from asgi import PEER, AsgiResponse, call, request, scope_of
from limited_apps import Handler, Watched
from response_headers import parse_limits

from ratelab import Decision, MemoryLimiter, create
from ratelab.http.asgi import Scope
from ratelab.http.guard import MAX_GUARDS
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.limiter import Costs, Keys

QUOTA_EXCEEDED = "https://iana.org/assignments/http-problem-types#quota-exceeded"
PROBLEM_HEADERS = [(b"content-type", b"application/problem+json"), (b"cache-control", b"no-store")]


def parse_problem(response: AsgiResponse) -> dict[str, Any]:
    problem: dict[str, Any] = json.loads(response.body)
    assert problem["status"] == response.status
    assert response.of("content-length") == [str(len(response.body))]
    return problem


# --- admitted or denied


def test_headers_are_added_to_the_applications_response() -> None:
    response = call(RateLimitMiddleware(Handler(), Watched()))
    fields = [(b"ratelimit-policy", b'"token-bucket";q=5;w=3'), (b"ratelimit", b'"token-bucket";r=4;t=1')]
    assert response == (200, [(b"server", b"mine"), *fields], b"hello")


def test_a_denied_request_gets_a_problem_and_no_application() -> None:
    handler = Handler()
    app = RateLimitMiddleware(handler, Watched())
    responses = [call(app) for _ in range(6)]
    assert [parse_limits(response.fields).r for response in responses] == [4, 3, 2, 1, 0, 0]
    assert len(handler.calls) == 5
    fields = [(b"ratelimit-policy", b'"token-bucket";q=5;w=3'), (b"ratelimit", b'"token-bucket";r=0;t=1')]
    length = (b"content-length", b"%d" % len(responses[5].body))
    assert responses[5][:2] == (429, [*PROBLEM_HEADERS, *fields, (b"retry-after", b"1"), length])
    assert parse_problem(responses[5]) == {
        "type": QUOTA_EXCEEDED,
        "title": "Request cannot be satisfied as assigned quota has been exceeded",
        "status": 429,
        "detail": "Try again in 1 s.",
        "violated-policies": ["token-bucket"],
    }


def test_a_denial_has_no_quota_left_even_if_a_smaller_cost_fits() -> None:
    costs = iter((2, 2, 2, 1))
    app = RateLimitMiddleware(Handler(), Watched(), cost=lambda _: next(costs))
    limits = [parse_limits(call(app).fields) for _ in range(4)]
    assert [(limit.r, limit.retry_after) for limit in limits] == [(3, None), (1, None), (0, 1), (0, None)]


def test_headers_and_problem_agree_on_a_longer_wait() -> None:
    app = RateLimitMiddleware(Handler(), Watched(rate="1/10s", burst=1))
    _, denied = (call(app) for _ in range(2))
    assert parse_limits(denied.fields) == ("token-bucket", 1, 10, 0, 10, 10)
    assert parse_problem(denied)["detail"] == "Try again in 10 s."


def test_an_epoch_follows_the_clock_for_admitted_and_denied() -> None:
    app, resets = RateLimitMiddleware(Handler(), Watched(burst=1), legacy="epoch"), []
    for now in (1_000.0, 1_000.0, 1_007.5):
        with patch("time.time_ns", lambda now=now: int(now * 1e9)):
            response = call(app)
        resets.append((response.status, *response.of("x-ratelimit-reset")))
    assert resets == [(200, "1001"), (429, "1001"), (429, "1009")]


def test_the_denial_of_head_has_the_same_headers_and_no_body() -> None:
    app = RateLimitMiddleware(Handler(), Watched(burst=1))
    _, got, head = (call(app, method=method) for method in ("GET", "GET", "HEAD"))
    assert (head.status, head.fields, head.body) == (429, got.fields, b"")


def test_a_cost_above_the_burst_is_a_bad_request_and_not_charged() -> None:
    limiter = Watched()
    response = call(RateLimitMiddleware(Handler(), limiter, cost=6))
    assert (response.status, response.of("retry-after"), response.of("cache-control")) == (400, [], ["no-store"])
    assert parse_limits(response.fields) == ("token-bucket", 5, 3, 5, 0, None)
    assert parse_problem(response) == {
        "type": "about:blank",
        "title": "Bad Request",
        "status": 400,
        "detail": "A cost above 5 is never granted: ask for less at once.",
    }
    assert limiter.stats.keys == 0


def test_a_repeated_key_header_is_a_bad_request_and_not_charged() -> None:
    handler, limiter = Handler(), Watched()
    response = call(RateLimitMiddleware(handler, limiter, "header:X-API-Key"), headers="X-API-Key: a\nX-API-Key: b")
    assert (response.status, response.fields[:2]) == (400, PROBLEM_HEADERS)
    assert parse_problem(response)["detail"] == "x-api-key must be sent once, not 2 times"
    assert (limiter.asked, handler.calls) == ([], [])


def test_concurrent_requests_share_one_quota() -> None:
    app = RateLimitMiddleware(Handler(), Watched())

    async def send_all() -> list[AsgiResponse]:
        return await asyncio.gather(*(request(app, scope_of()) for _ in range(50)))

    assert [response.status for response in asyncio.run(send_all())] == [200] * 5 + [429] * 45


# --- key, cost and limiter


def test_clients_do_not_share_a_quota() -> None:
    app = RateLimitMiddleware(Handler(), Watched(burst=1))
    assert [call(app, peer).status for peer in (PEER, "192.0.2.2", None, PEER, None)] == [200, 200, 200, 429, 429]


def test_the_key_may_be_an_address_a_header_a_function_or_an_identity() -> None:
    scope = scope_of(PEER, "X-API-Key: alice")
    for key in ("ip", "header:X-API-Key", lambda scope: scope["path"], Identity("header:X-API-Key")):
        app = RateLimitMiddleware(Handler(), Watched(burst=1), key)
        same, other = dict(scope), scope_of("192.0.2.2", "X-API-Key: bob", path="/pong")
        assert [asyncio.run(request(app, each)).status for each in (scope, same, other)] == [200, 429, 200]


def test_the_limiter_does_not_see_the_clients_name() -> None:
    limiter = Watched()
    call(RateLimitMiddleware(Handler(), limiter, "header:X-API-Key"), PEER, "X-API-Key: canary")
    ((key, _),) = limiter.asked
    assert (len(key), "canary" in key, PEER in key) == (32, False, False)


def test_the_cost_may_be_a_function_of_the_request() -> None:
    costs = {"/look": 0, "/read": 1, "/export": 4}
    app = RateLimitMiddleware(Handler(), Watched(), cost=lambda scope: costs[scope["path"]])
    responses = [call(app, path=path) for path in ("/export", "/export", "/look", "/read", "/read", "/look")]
    assert [response.status for response in responses] == [200, 429, 200, 200, 429, 200]
    assert [parse_limits(response.fields).r for response in responses] == [1, 0, 1, 0, 0, 0]


@pytest.mark.slow
def test_a_function_that_creates_limiters_does_not_fill_the_memory() -> None:
    made = weakref.WeakSet[Watched]()

    def create_limiter(scope: Scope) -> Watched:
        limiter = Watched(burst=1)
        made.add(limiter)
        return limiter

    app = RateLimitMiddleware(Handler(), create_limiter)
    assert {call(app).status for _ in range(3 * MAX_GUARDS)} == {200}
    gc.collect()
    assert len(made) <= MAX_GUARDS


def test_the_limiter_may_be_a_function_of_the_request() -> None:
    handler, reads, writes = Handler(), Watched("token-bucket", "2/s", 5), Watched("fixed-window", "1/min", 1)
    app = RateLimitMiddleware(handler, lambda scope: reads if scope["method"] == "GET" else writes)
    responses = [call(app, method=method) for method in ("GET", "POST", "POST", "GET")]
    limits = [parse_limits(response.fields) for response in responses]
    assert [response.status for response in responses] == [200, 200, 429, 200]
    assert [limit[:4] for limit in limits] == [
        ("token-bucket", 5, 3, 4),
        ("fixed-window", 1, 60, 0),
        ("fixed-window", 1, 60, 0),
        ("token-bucket", 5, 3, 3),
    ]
    assert parse_problem(responses[2])["violated-policies"] == ["fixed-window"]


class DenyAll(MemoryLimiter):
    """A limiter that overrides `hit`, which the middleware must call."""

    def hit(self, key: Keys, cost: Costs = 1, plan: str | None = None) -> Decision:
        return super().hit(key, cost, plan)._replace(allowed=False, retry_after_ns=1)


def test_an_overridden_hit_decides() -> None:
    policy = create("token-bucket", "2/s", burst=5)
    assert call(RateLimitMiddleware(Handler(), DenyAll(policy))).status == 429
    limiter = MemoryLimiter(policy)
    with patch.object(limiter, "hit", DenyAll(policy).hit):
        assert call(RateLimitMiddleware(Handler(), limiter)).status == 429
    assert call(RateLimitMiddleware(Handler(), limiter)).status == 200


def test_exempt_requests_are_not_limited_and_get_no_headers() -> None:
    limiter = Watched(burst=1)
    app = RateLimitMiddleware(Handler(), limiter, exempt=lambda scope: scope["path"] == "/healthz")
    for _ in range(9):
        assert call(app, path="/healthz") == (200, [(b"server", b"mine")], b"hello")
    assert limiter.asked == []
    assert [call(app).status for _ in range(2)] == [200, 429]
    assert call(app, path="/healthz").status == 200
