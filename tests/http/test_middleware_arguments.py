"""Invalid arguments of the middleware: most are rejected when it is created, the others by a request."""

from __future__ import annotations

from typing import Any, cast

import pytest
from asgi import call
from limited_apps import Handler, Watched, named

from ratelab import InputError, create
from ratelab.http.asgi import Scope
from ratelab.http.middleware import RateLimitMiddleware

BAD_COST = "cost must be a whole number >= 0 or a function of the scope, got "
INVALID_ARGUMENTS: list[tuple[dict[str, Any], str]] = [
    ({"cost": -1}, f"{BAD_COST}-1"),
    ({"cost": True}, f"{BAD_COST}True"),
    ({"cost": 1.5}, f"{BAD_COST}1.5"),
    ({"cost": "1"}, f"{BAD_COST}'1'"),
    ({"cost": None}, f"{BAD_COST}None"),
    ({"key": "cookie"}, "key must be ip or header:NAME, such as header:X-API-Key, got 'cookie'"),
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
    limiter.policy = named("gr\xf6\xdfe")
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
    return True


@pytest.mark.parametrize("argument", ["limiter", "key", "cost", "exempt"])
def test_a_coroutine_function_is_rejected(argument: str) -> None:
    arguments: dict[str, Any] = {"limiter": Watched("gcra"), argument: asynchronous}
    with pytest.raises(InputError, match=rf"{argument} must be a plain function, got .*asynchronous.*: it is"):
        RateLimitMiddleware(Handler(), **arguments)


def test_an_object_without_hit_and_a_number_as_exempt_are_rejected() -> None:
    for invalid in (None, "token-bucket", create("gcra", "2/s")):
        with pytest.raises(InputError, match="limiter must be a limiter, such as MemoryLimiter"):
            RateLimitMiddleware(Handler(), cast("Any", invalid))
    with pytest.raises(InputError, match="exempt must be a function of the scope, got 3"):
        RateLimitMiddleware(Handler(), Watched("gcra"), exempt=cast("Any", 3))


def test_a_key_function_that_returns_a_number_raises_with_a_remedy() -> None:
    app = RateLimitMiddleware(Handler(), Watched("gcra"), key=cast("Any", lambda scope: 42))
    with pytest.raises(InputError, match=r"must return text or None, got 42: convert it with str\(\)"):
        call(app)
