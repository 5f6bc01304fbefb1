"""Invalid arguments of the middleware: most are rejected when it is created, the others by a request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from functools import partial
from typing import Any, cast

import pytest
from asgi import call
from limited_apps import Handler, Watched, named

from ratelab import InputError
from ratelab.http.asgi import Scope
from ratelab.http.guard import MAX_GUARDS, MIN_NEW_LIMITERS
from ratelab.http.identity import Identity
from ratelab.http.middleware import RateLimitMiddleware

BAD_COST = "cost must be a whole number >= 0 or a function of the request, got "
INVALID_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"cost": -1}, f"{BAD_COST}-1"),
    ({"cost": True}, f"{BAD_COST}True"),
    ({"cost": 1.5}, f"{BAD_COST}1.5"),
    ({"cost": "1"}, f"{BAD_COST}'1'"),
    ({"cost": None}, f"{BAD_COST}None"),
    ({"key": "cookie"}, "key must be ip, header:NAME such as header:X-API-Key, or in code a function, got 'cookie'"),
    ({"legacy": "on"}, "legacy headers must be one of off, delta, epoch, got 'on'"),
]


@pytest.mark.parametrize(("arguments", "message"), INVALID_ARGUMENTS, ids=str)
def test_invalid_arguments_are_rejected_at_once(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as rejected:
        RateLimitMiddleware(Handler(), Watched(), **arguments)
    assert str(rejected.value) == message


def test_an_empty_policy_name_is_rejected() -> None:
    with pytest.raises(InputError, match="a header field cannot hold the name '' of a policy: use printable"):
        RateLimitMiddleware(Handler(), Watched(), policy="")


def test_a_policy_name_that_no_field_can_hold_is_rejected_at_once() -> None:
    limiter = Watched()
    limiter.policies = (named("gr\xf6\xdfe"),)
    with pytest.raises(
        InputError, match="a header field cannot hold the name 'gr\xf6\xdfe' of a policy: use printable"
    ):
        RateLimitMiddleware(Handler(), limiter)


@pytest.mark.parametrize("cost", [-1, 1.0, True, None])
def test_an_invalid_cost_of_a_function_raises_and_calls_no_application(cost: Any) -> None:
    handler = Handler()
    with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
        call(RateLimitMiddleware(handler, Watched(), cost=lambda _: cost))
    assert handler.calls == []


async def asynchronous(scope: Scope) -> bool:
    return False


class Asynchronous:
    """An object that must be awaited when it is called, which no check of the object itself shows."""

    async def __call__(self, scope: Scope, *_: object) -> bool:
        return False

    async def method(self, scope: Scope) -> bool:
        return False


def generator(scope: Scope) -> Iterator[bool]:
    yield False


async def asynchronous_generator(scope: Scope) -> AsyncIterator[bool]:
    yield False


ARGUMENTS = ["limiter", "key", "cost", "exempt", "on_denied"]
DEFERRED: list[Any] = [asynchronous, Asynchronous(), Asynchronous().method, generator, asynchronous_generator]
DEFERRED += [partial(asynchronous), partial(partial(Asynchronous()))]


@pytest.mark.parametrize("argument", ARGUMENTS)
@pytest.mark.parametrize("function", DEFERRED, ids=[str(number) for number in range(len(DEFERRED))])
def test_a_function_that_is_not_plain_is_rejected(argument: str, function: Any) -> None:
    arguments: dict[str, Any] = {"limiter": Watched("gcra"), argument: function}
    with pytest.raises(InputError, match=rf"^{argument} must be a plain function, got .*: it is not awaited"):
        RateLimitMiddleware(Handler(), **arguments)


def test_the_key_of_an_identity_must_be_a_plain_function() -> None:
    for function in DEFERRED:
        with pytest.raises(InputError, match=r"^key must be a plain function, got "):
            Identity(cast("Any", function))


HIDDEN: dict[str, Callable[..., Any]] = {
    "lambda": lambda *arguments: asynchronous(*arguments[:1]),
    "future": lambda *_: asyncio.get_running_loop().create_future(),
    "generator": lambda *_: generator({}),
    "function": lambda *_: asynchronous,
    "text": lambda *_: "False",
    "object": lambda *_: object(),
}


@pytest.mark.parametrize("argument", ["limiter", "key", "cost", "exempt", "on_denied"])
@pytest.mark.parametrize("function", HIDDEN.values(), ids=HIDDEN.keys())
def test_a_result_that_is_no_value_raises_and_admits_nothing(argument: str, function: Any) -> None:
    if argument == "key" and function is HIDDEN["text"]:
        return
    handler = Handler()
    limiter = Watched("gcra", burst=1)
    arguments: dict[str, Any] = {"limiter": limiter, "key": Identity(lambda _: "a"), argument: function}
    if argument == "on_denied":
        call(RateLimitMiddleware(Handler(), limiter, arguments["key"]))
    app = RateLimitMiddleware(handler, **arguments)
    for _ in range(3):
        with pytest.raises(InputError, match=" must "):
            call(app)
    assert handler.calls == []


def test_a_false_value_does_not_exempt() -> None:
    for value in (None, 0, "", ()):
        app = RateLimitMiddleware(Handler(), Watched(burst=1), exempt=cast("Any", lambda _, value=value: value))
        assert [call(app).status for _ in range(2)] == [200, 429]


def test_a_function_that_creates_limiters_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    app = RateLimitMiddleware(Handler(), lambda _: Watched(burst=1))
    for _ in range(MAX_GUARDS + 2):
        call(app)
    (record,) = caplog.records
    assert "create the limiters once" in record.getMessage()


def test_a_few_limiters_are_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    limiters = [Watched() for _ in range(3 * MIN_NEW_LIMITERS)]
    order = iter([*limiters[:3], *limiters])
    app = RateLimitMiddleware(Handler(), lambda _: next(order))
    for _ in range(3 + 3 * MIN_NEW_LIMITERS):
        call(app)
    assert caplog.records == []


def test_an_object_without_hit_and_a_number_as_exempt_are_rejected() -> None:
    for invalid in (None, "token-bucket", 5):
        with pytest.raises(InputError, match="limiter must be a limiter, such as MemoryLimiter"):
            RateLimitMiddleware(Handler(), cast("Any", invalid))
    with pytest.raises(InputError, match="exempt must be a function of the request, got 3"):
        RateLimitMiddleware(Handler(), Watched("gcra"), exempt=cast("Any", 3))


def test_a_key_function_that_returns_a_number_raises_with_a_remedy() -> None:
    app = RateLimitMiddleware(Handler(), Watched("gcra"), key=cast("Any", lambda scope: 42))
    with pytest.raises(InputError, match=r"must return text or None, got 42: convert it with str\(\)"):
        call(app)
