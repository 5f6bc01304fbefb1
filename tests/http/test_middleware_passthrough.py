"""Pass-through of the middleware: delayed requests, the application's messages, and other protocols."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from copy import deepcopy
from typing import Any
from unittest.mock import patch

import pytest
from asgi import call, request, scope_of
from limited_apps import Handler, Watched
from response_headers import parse_limits

from ratelab.http.asgi import Message, Receive, Scope, Send
from ratelab.http.counters import Counts
from ratelab.http.middleware import RateLimitMiddleware

SLEEP = "ratelab.http.delayed_admission.asyncio.sleep"


class Recording:
    """Records, in order, how long requests sleep and when the application is called."""

    def __init__(self) -> None:
        self.events: list[float | str] = []

    async def sleep(self, seconds: float) -> None:
        self.events.append(seconds)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.events.append("called")
        await Handler()(scope, receive, send)


# --- delays


@pytest.mark.parametrize(
    ("rate", "waits"),
    [("2/s", [0.5, 1.0]), ("3/s", [0.334, 0.667]), ("1000/s", [0.001, 0.002]), ("999999/s", [0.001, 0.001])],
)
def test_a_delayed_request_sleeps_before_the_application_is_called(rate: str, waits: list[float]) -> None:
    recording = Recording()
    app = RateLimitMiddleware(recording, Watched("leaky-bucket", rate, burst=3))
    with patch(SLEEP, recording.sleep):
        responses = [call(app) for _ in range(4)]
    assert recording.events == ["called", waits[0], "called", waits[1], "called"]
    assert [response.status for response in responses] == [200, 200, 200, 429]


def test_the_reset_after_a_delay_counts_from_the_response() -> None:
    app = RateLimitMiddleware(Handler(), Watched("leaky-bucket", "1/10s", burst=3))
    with patch(SLEEP, Recording().sleep):
        fields = [call(app).of("ratelimit")[0] for _ in range(3)]
    assert fields == [f'"leaky-bucket";r={left};t=10' for left in (2, 1, 0)]


def test_a_request_cancelled_during_its_delay_stays_charged() -> None:
    handler, limiter = Handler(), Watched("leaky-bucket", "1/day", burst=3)
    app = RateLimitMiddleware(handler, limiter)

    async def cancel() -> None:
        await request(app, scope_of())
        waiting = asyncio.create_task(request(app, scope_of()))
        while app.counts.waiting < 1:
            await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting

    asyncio.run(cancel())
    assert (remaining(limiter), app.counts) == (1, Counts(admitted=1, dropped=1))
    assert len(handler.calls) == 1


def remaining(limiter: Watched) -> int:
    """Return the remaining quota of the last client."""
    key, _ = limiter.asked[-1]
    return limiter.hit(key, 0).remaining


def test_requests_are_counted_by_outcome() -> None:
    limiter, free = Watched("leaky-bucket", "2/s", burst=3), {"/free"}
    app = RateLimitMiddleware(Handler(), limiter, "header:k", exempt=lambda scope: scope["path"] in free)
    with patch(SLEEP, Recording().sleep):
        for path, headers in [("/", "")] * 5 + [("/free", "")] * 2 + [("/", "k: a\nk: b")]:
            call(app, path=path, headers=headers)
    assert app.counts == Counts(admitted=3, delayed=2, denied=2, ambiguous=1)


# --- the application's messages


def test_the_applications_messages_are_not_changed() -> None:
    handler = Handler()
    start, body = deepcopy(handler.start), deepcopy(handler.body)
    app = RateLimitMiddleware(handler, Watched())
    responses = [call(app) for _ in range(3)]
    assert (handler.start, handler.body) == (start, body)
    assert [len(response.fields) for response in responses] == [3, 3, 3]


def test_the_applications_headers_come_first_and_keep_their_order() -> None:
    handler = Handler()
    fields = [(b"set-cookie", b"a=1"), (b"server", b"mine"), (b"set-cookie", b"b=2"), (b"retry-after", b"7")]
    handler.start["headers"] = tuple(fields)
    assert call(RateLimitMiddleware(handler, Watched())).fields[:4] == fields


@pytest.mark.parametrize("make", [list, tuple, iter])
def test_the_applications_headers_may_be_any_iterable(make: Callable[[list[Any]], Any]) -> None:
    handler = Handler()
    handler.start["headers"] = make([(b"server", b"mine")])
    response = call(RateLimitMiddleware(handler, Watched()))
    assert (response.of("server"), len(response.fields)) == (["mine"], 3)


def test_an_application_may_send_no_headers() -> None:
    handler = Handler()
    del handler.start["headers"]
    assert parse_limits(call(RateLimitMiddleware(handler, Watched())).fields).r == 4


def test_a_streamed_body_passes_part_by_part() -> None:
    sent: list[Message] = []
    parts = [{"type": "http.response.body", "body": b"%d" % part, "more_body": part < 3} for part in range(4)]

    async def streaming(scope: Scope, receive: Receive, send: Send) -> None:
        for message in ({"type": "http.response.start", "status": 200, "headers": []}, *parts):
            await send(message)

    async def send(message: Message) -> None:
        sent.append(message)

    asyncio.run(RateLimitMiddleware(streaming, Watched())(scope_of(), nothing, send))
    assert all(one is other for one, other in zip(sent[1:], parts, strict=True))
    assert parse_limits(sent[0]["headers"]).r == 4


async def nothing() -> Message:
    raise AssertionError("the application receives nothing here")


def test_an_exception_of_the_application_is_raised_after_the_charge() -> None:
    limiter = Watched()

    async def broken(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        call(RateLimitMiddleware(broken, limiter))
    assert remaining(limiter) == 4


# --- other protocols


@pytest.mark.parametrize("protocol", ["lifespan", "websocket", "something new"])
def test_other_protocols_pass_unchanged(protocol: str) -> None:
    handler, limiter = Handler(), Watched()
    scope: Scope = {"type": protocol}

    async def send(message: Message) -> None: ...

    asyncio.run(RateLimitMiddleware(handler, limiter)(scope, nothing, send))
    ((got_scope, got_receive, got_send),) = handler.calls
    assert got_scope is scope
    assert got_receive is nothing
    assert got_send is send
    assert (scope, limiter.asked) == ({"type": protocol}, [])


def test_the_name_of_the_policy_can_be_replaced() -> None:
    app = RateLimitMiddleware(Handler(), Watched("gcra", burst=1), policy="per address")
    admitted, denied = call(app), call(app)
    assert admitted.of("ratelimit-policy") == ['"per address";q=1;w=1']
    assert denied.of("ratelimit") == ['"per address";r=0;t=1']
    assert json.loads(denied.body)["violated-policies"] == ["per address"]


def test_a_request_that_costs_nothing_is_not_delayed() -> None:
    recording = Recording()
    app = RateLimitMiddleware(
        recording, Watched("leaky-bucket", "1/day", burst=3), cost=lambda scope: 0 if recording.events else 1
    )
    with patch(SLEEP, recording.sleep):
        assert [call(app).status for _ in range(3)] == [200] * 3
    assert (recording.events, app.counts.delayed) == (["called"] * 3, 0)
