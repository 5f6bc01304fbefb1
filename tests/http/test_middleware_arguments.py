"""What the middleware is given and cannot use is refused, when it is made if it can be seen then."""

from __future__ import annotations

from typing import Any, cast

import pytest
from asgi import call
from limited_apps import Handler, Watched, named

from ratelab import InputError, create
from ratelab.http.asgi import Scope
from ratelab.http.middleware import RateLimitMiddleware

BAD_COST = "cost must be a whole number >= 0 or a function of the scope, got "
MISTAKES: list[tuple[dict[str, Any], str]] = [
    ({"cost": -1}, f"{BAD_COST}-1"),
    ({"cost": True}, f"{BAD_COST}True"),
    ({"cost": 1.5}, f"{BAD_COST}1.5"),
    ({"cost": "1"}, f"{BAD_COST}'1'"),
    ({"cost": None}, f"{BAD_COST}None"),
    ({"key": "cookie"}, "key must be ip or header:NAME, such as header:X-API-Key, got 'cookie'"),
    ({"legacy": "on"}, "legacy headers must be one of off, delta, epoch, got 'on'"),
]


@pytest.mark.parametrize(("options", "message"), MISTAKES, ids=[str(options) for options, _ in MISTAKES])
def test_a_mistake_is_refused_at_once(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refused:
        RateLimitMiddleware(Handler(), Watched(), **options)
    assert str(refused.value) == message


def test_a_policy_without_a_name_is_refused() -> None:
    with pytest.raises(InputError, match="a header field cannot hold the name '' of a policy: use printable"):
        RateLimitMiddleware(Handler(), Watched(), policy="")


def test_an_algorithm_whose_name_no_field_can_hold_is_refused_at_once() -> None:
    limiter = Watched()
    limiter.policy = named("gr\xf6\xdfe")
    with pytest.raises(
        InputError, match="a header field cannot hold the name 'gr\xf6\xdfe' of a policy: use printable"
    ):
        RateLimitMiddleware(Handler(), limiter)


@pytest.mark.parametrize("cost", [-1, 1.0, True, None])
def test_a_function_that_returns_no_cost_is_a_mistake_that_reaches_nobody(cost: Any) -> None:
    handler = Handler()
    with pytest.raises(InputError, match="cost must be a whole number >= 0, got"):
        call(RateLimitMiddleware(handler, Watched(), cost=lambda _: cost))
    assert handler.calls == []


async def asynchronous(scope: Scope) -> bool:
    return True


@pytest.mark.parametrize("argument", ["limiter", "key", "cost", "exempt"])
def test_a_function_that_would_have_to_be_awaited_is_refused(argument: str) -> None:
    arguments: dict[str, Any] = {"limiter": Watched("gcra"), argument: asynchronous}
    with pytest.raises(InputError, match=rf"{argument} must be a plain function, got .*asynchronous.*: it is"):
        RateLimitMiddleware(Handler(), **arguments)


def test_what_is_no_limiter_and_no_function_is_refused() -> None:
    for wrong in (None, "token-bucket", create("gcra", "2/s")):
        with pytest.raises(InputError, match="limiter must be a limiter, such as MemoryLimiter"):
            RateLimitMiddleware(Handler(), cast("Any", wrong))
    with pytest.raises(InputError, match="exempt must be a function of the scope, got 3"):
        RateLimitMiddleware(Handler(), Watched("gcra"), exempt=cast("Any", 3))


def test_a_key_function_that_returns_a_number_is_told_what_to_do() -> None:
    app = RateLimitMiddleware(Handler(), Watched("gcra"), key=cast("Any", lambda scope: 42))
    with pytest.raises(InputError, match=r"must return text or None, got 42: write str\(...\) round it"):
        call(app)
