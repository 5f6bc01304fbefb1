"""`assert_limited`: what counts as admitted and as denied, and its messages."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from flask import Flask
from httpx import Response
from starlette.responses import PlainTextResponse

from ratelab import ManualClock, MemoryLimiter, create
from ratelab.errors import InputError, RateLimitExceeded
from ratelab.testing import assert_limited


@pytest.fixture
def limiter() -> MemoryLimiter:
    return MemoryLimiter(create("gcra", "5/min"), ManualClock())


def returned_in_turn(*results: Any) -> Callable[[], Any]:
    """Return a function that returns each of `results` in turn, or raises it if it is an exception."""
    rest = iter(results)

    def call() -> Any:
        result = next(rest)
        if isinstance(result, Exception):
            raise result
        return result

    return call


def test_decisions_and_tickets_are_recognized(limiter: MemoryLimiter) -> None:
    denial = assert_limited(lambda: limiter.hit("alice"), after=5)
    assert denial.retry_after == 12
    assert assert_limited(lambda: limiter.reserve("bob"), after=5).allowed is False


def test_an_exception_is_a_denial_and_returned(limiter: MemoryLimiter) -> None:
    def call() -> str:
        decision = limiter.hit("alice")
        if not decision.allowed:
            raise RateLimitExceeded(decision, "alice")
        return "done"

    denial = assert_limited(call, after=5)
    assert isinstance(denial, RateLimitExceeded)
    assert denial.decision.retry_after == 12


def flask_response(status: int) -> Any:
    app = Flask("test")
    app.add_url_rule("/", view_func=lambda: ("", status))
    return app.test_client().get("/")


@pytest.mark.parametrize(
    "make",
    [Response, PlainTextResponse, flask_response, lambda code: SimpleNamespace(status=code)],
    ids=["httpx", "starlette", "flask", "aiohttp"],
)
def test_responses_are_recognized_by_their_status(make: Callable[..., Any]) -> None:
    def make_each(*statuses: int) -> list[Any]:
        return [make(status_code=status) if make is PlainTextResponse else make(status) for status in statuses]

    *_, last = responses = make_each(200, 204, 302, 429)
    assert assert_limited(returned_in_turn(*responses), after=3) is last
    with pytest.raises(AssertionError, match=r"call 2 of 3 was denied: status 429, without rate limit headers"):
        assert_limited(returned_in_turn(*make_each(200, 429)), after=3)


def test_no_call_at_all_may_be_admitted() -> None:
    assert assert_limited(returned_in_turn(Response(429)), after=0).status_code == 429


def test_a_call_that_returns_anything_else_is_admitted() -> None:
    error = RateLimitExceeded(MemoryLimiter(create("gcra", "1/day", burst=1), ManualClock()).hit("alice", 2), "alice")
    assert assert_limited(returned_in_turn(None, {"status": "ok"}, False, error), after=3) is error


def test_a_status_may_be_expected_of_admitted_calls() -> None:
    logins = [Response(401), Response(401), Response(429)]
    assert assert_limited(returned_in_turn(*logins), after=2, status=401) is logins[-1]
    with pytest.raises(AssertionError, match=r"call 1 of 2 failed: status 200, .*; expected status 401"):
        assert_limited(returned_in_turn(Response(200)), after=2, status=401)


@pytest.mark.parametrize("status", [400, 401, 404, 500, 503])
def test_a_response_that_failed_is_not_admitted(status: int) -> None:
    message = f"call 2 of 5 failed: status {status}, without rate limit headers; expected a status below 400"
    with pytest.raises(AssertionError, match=message):
        assert_limited(returned_in_turn(Response(200), Response(status)), after=5)


def test_a_message_shows_the_fields_on_rate_limits() -> None:
    fields = {"Content-Type": "x", "RateLimit": '"a";r=0;t=9', "RateLimit-Policy": '"a";q=1;w=9', "Retry-After": "9"}
    with pytest.raises(AssertionError) as caught:
        assert_limited(returned_in_turn(Response(429, headers=fields)), after=5)
    assert str(caught.value).casefold() == (
        'call 1 of 5 was denied: status 429, ratelimit: "a";r=0;t=9, ratelimit-policy: "a";q=1;w=9, retry-after: 9'
    )


def test_a_call_too_many_that_is_admitted_is_shown(limiter: MemoryLimiter) -> None:
    with pytest.raises(AssertionError, match=r"^call 5 was not denied, after 4 that were admitted: returned Decision"):
        assert_limited(lambda: limiter.hit("alice"), after=4)
    message = r"^call 2 was not denied, after 1 that were admitted: returned False, which is not a decision"
    with pytest.raises(AssertionError, match=message):
        assert_limited(lambda: False, after=1)
    with pytest.raises(AssertionError, match="call 1 of 2 was denied: raised rate limit exceeded by policy 'gcra'"):
        assert_limited(returned_in_turn(RateLimitExceeded(limiter.hit("alice"), "alice")), after=2)


def test_other_exceptions_propagate() -> None:
    with pytest.raises(ZeroDivisionError):
        assert_limited(returned_in_turn(Response(200), ZeroDivisionError()), after=5)


def test_the_call_must_be_a_function(limiter: MemoryLimiter) -> None:
    with pytest.raises(InputError, match="call must be a function of no arguments, got Decision"):
        assert_limited(limiter.hit("alice"), after=1)  # type: ignore[arg-type]


@pytest.mark.parametrize("after", [-1, True, 1.5, "5"])
def test_the_number_of_calls_must_be_whole(after: Any) -> None:
    with pytest.raises(InputError, match=r"after must be a whole number >= 0, got "):
        assert_limited(lambda: None, after=after)


def test_asynchronous_calls_are_awaited(limiter: MemoryLimiter) -> None:
    async def call() -> str:
        decision = limiter.hit("alice")
        if not decision.allowed:
            raise RateLimitExceeded(decision, "alice")
        return "done"

    async def check() -> None:
        assert isinstance(await assert_limited(call, after=5), RateLimitExceeded)
        with pytest.raises(AssertionError, match="call 1 of 5 was denied"):
            await assert_limited(call, after=5)

    asyncio.run(check())
