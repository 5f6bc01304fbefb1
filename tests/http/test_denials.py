"""Custom responses to denied requests, and `X-RateLimit-*` of several limiters."""

from __future__ import annotations

from typing import Any

import pytest
from asgi import call
from limited_apps import Handler, Watched

from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy
from ratelab.http import RateLimitMiddleware
from ratelab.http.asgi import Field, Message, Scope
from ratelab.http.headers import join_legacy

BODY = b'{"error": "slow down"}'

# --- the function on_denied


def test_a_custom_response_keeps_the_fields_of_the_limit() -> None:
    def answer(scope: Scope, decision: Decision) -> tuple[int, list[Field], bytes]:
        return 503, [(b"Content-Type", b"application/json"), (b"cache-control", b"private")], BODY

    app = RateLimitMiddleware(Handler(), Watched(burst=1), on_denied=answer, legacy="delta")
    _, denied, head = (call(app, method=method) for method in ("GET", "GET", "HEAD"))
    assert denied.status == 503
    assert denied.fields == [
        (b"content-type", b"application/json"),
        (b"cache-control", b"private"),
        (b"ratelimit-policy", b'"token-bucket";q=1;w=1'),
        (b"ratelimit", b'"token-bucket";r=0;t=1'),
        (b"retry-after", b"1"),
        (b"x-ratelimit-limit", b"1"),
        (b"x-ratelimit-remaining", b"0"),
        (b"x-ratelimit-reset", b"1"),
        (b"content-length", b"%d" % len(BODY)),
    ]
    assert (denied.body, head) == (BODY, (503, denied.fields, b""))


def test_the_function_is_called_for_denied_requests_alone() -> None:
    calls: list[tuple[str, Decision]] = []

    def note(scope: Scope, decision: Decision) -> None:
        calls.append((scope["path"], decision))

    plain, noted = (
        RateLimitMiddleware(
            Handler(), Watched(burst=2), cost=lambda scope: 9 if scope["path"] == "/large" else 1, on_denied=hook
        )
        for hook in (None, note)
    )
    for path in ("/a", "/b", "/c", "/large"):
        assert call(plain, path=path) == call(noted, path=path)
    assert [path for path, _ in calls] == ["/c", "/large"]
    assert [decision.retry_after for _, decision in calls] == [0.5, float("inf")]
    assert not any(decision.allowed for _, decision in calls)


@pytest.mark.parametrize(
    "answer",
    [
        429,
        b"body",
        (429, []),
        (99, [], b""),
        (True, [], b""),
        ("429", [], b""),
        (429, [], "text"),
        (429, {"a": "b"}, b""),
        (429, [("content-type", "text/plain")], b""),
        (429, [(b"retry-after", 5)], b""),
        (429, [(5, b"retry-after")], b""),
        (429, None, b""),
    ],
)
def test_an_invalid_response_raises_and_admits_nothing(answer: Any) -> None:
    handler = Handler()
    app = RateLimitMiddleware(handler, Watched(burst=1), on_denied=lambda scope, decision: answer)
    call(app)
    with pytest.raises(InputError, match="on_denied must return None, or a status, header fields of bytes, and a body"):
        call(app)
    assert len(handler.calls) == 1


# --- X-RateLimit-* of several limiters


@pytest.mark.parametrize(("inner", "outer", "tightest"), [(2, 10, "2"), (10, 2, "2"), (3, 3, "3")])
@pytest.mark.parametrize("legacy", ["delta", "epoch"])
def test_of_two_limiters_the_tightest_is_shown(inner: int, outer: int, tightest: str, legacy: str) -> None:
    inside = RateLimitMiddleware(Handler(), Watched(burst=inner), policy="inside", legacy=legacy)
    app = RateLimitMiddleware(inside, Watched(burst=outer), policy="outside", legacy=legacy)
    responses = [call(app) for _ in range(4)]
    assert [response.of("x-ratelimit-limit") for response in responses] == [[tightest]] * 4
    for name in ("x-ratelimit-remaining", "x-ratelimit-reset"):
        assert {len(response.of(name)) for response in responses} == {1}
    assert len(responses[0].of("ratelimit")) == 2


@pytest.mark.parametrize(
    ("theirs", "kept"), [([(b"x-ratelimit-limit", b"60")], b"60"), ([(b"x-ratelimit-remaining", b"no")], b"no")]
)
def test_fields_without_a_number_are_kept(theirs: list[Field], kept: bytes) -> None:
    added = ((b"ratelimit", b"a"), (b"x-ratelimit-limit", b"5"), (b"x-ratelimit-remaining", b"4"))
    assert join_legacy(theirs, added) == [*theirs, (b"ratelimit", b"a")]


@pytest.mark.parametrize("legacy", ["off", "delta", "epoch"])
@pytest.mark.parametrize(
    "policies",
    [
        [Policy.create("gcra", "5/s", name="a"), Policy.create("gcra", "9/s", name="b")],
        [Policy.create("gcra", "5/s", name="shadow", shadow=True)],
        [Policy.create("gcra", "5/s", name="elsewhere", match="/elsewhere")],
    ],
    ids=["two policies", "a shadow policy", "a policy of another route"],
)
def test_an_application_may_send_fields_of_its_own(policies: list[Policy], legacy: str) -> None:
    theirs = [(b"x-ratelimit-limit", b"60"), (b"x-ratelimit-remaining", b"2"), (b"x-ratelimit-reset", b"1")]
    handler = Handler()
    handler.start = {**handler.start, "headers": theirs}
    app = RateLimitMiddleware(handler, MemoryLimiter(policies, ManualClock()), legacy=legacy)
    assert [field for field in call(app).fields if field[0].startswith(b"x-ratelimit")] == theirs


def test_remaining_of_any_length_is_compared() -> None:
    added = [(b"x-ratelimit-limit", b"5"), (b"x-ratelimit-remaining", b"4")]
    assert join_legacy([(b"x-ratelimit-remaining", b"9" * 5000)], added) == added


def test_the_applications_message_is_not_changed() -> None:
    handler = Handler()
    start: Message = {**handler.start}
    app = RateLimitMiddleware(handler, Watched(), legacy="delta")
    assert [len(call(app).fields) for _ in range(2)] == [6, 6]
    assert handler.start == start
