"""Invalid arguments of doors: each door rejects them when it is created, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest

import ratelab.flask
import ratelab.wsgi
from ratelab import InputError, MemoryLimiter, create, limited
from ratelab.fastapi import RateLimit
from ratelab.http import RateLimitMiddleware


def hello(*arguments: Any) -> Any:
    """Serve as an application or a view that is never called."""


def create_asgi(limiter: Any, **arguments: Any) -> Any:
    return RateLimitMiddleware(hello, limiter, **arguments)


def create_wsgi(limiter: Any, **arguments: Any) -> Any:
    return ratelab.wsgi.RateLimitMiddleware(hello, limiter, **arguments)


def create_flask(limiter: Any, **arguments: Any) -> Any:
    return ratelab.flask.limit(limiter, **arguments)(hello)


def create_fastapi(limiter: Any, **arguments: Any) -> Any:
    return RateLimit(limiter, **arguments)


DOORS = [create_asgi, create_wsgi, create_flask, create_fastapi]

INVALID: list[tuple[dict[str, Any], str]] = [
    ({"account": 5}, "account must be header:NAME or a function of the request, got 5"),
    ({"account": "user"}, "account must be header:NAME or a function of the request, got 'user'"),
    ({"charge": "x"}, "charge must be a function of the request, got 'x'"),
    ({"cost": "2"}, "cost must be a whole number >= 0 or a function of the request, got '2'"),
    ({"costs": 5}, "costs must be a mapping of names to costs, got 5"),
    ({"costs": {"a": "2"}}, "costs['a'] must be a whole number >= 0 or a function of the request, got '2'"),
    ({"exempt": "/x"}, "exempt must be a function of the request, got '/x'"),
    ({"on_denied": 5}, "on_denied must be a function of the request, got 5"),
    ({"on_plan_error": "x"}, "on_plan_error must be one of default, closed, got 'x'"),
    ({"plan_timeout": -1}, "plan_timeout must be a number of seconds above 0, got -1"),
    ({"plan_timeout": True}, "plan_timeout must be a number of seconds above 0, got True"),
    ({"policy": 5}, "a header field cannot hold the name 5 of a policy: use printable ASCII"),
]


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(("arguments", "message"), INVALID, ids=str)
def test_every_door_rejects_an_invalid_argument_at_once(
    door: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as rejected:
        door(MemoryLimiter(create("token-bucket", "5/min")), **arguments)
    assert str(rejected.value) == message


@pytest.mark.parametrize("door", DOORS)
def test_an_argument_that_no_door_has_is_named_with_the_others(door: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"^unknown argument 'burst': choose one of account, charge, cost, "):
        door(MemoryLimiter(create("token-bucket", "5/min")), burst=5)


@pytest.mark.parametrize("door", [*DOORS, lambda limiter: limited(limiter)(hello)])
def test_a_class_is_no_limiter(door: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"limiter must be a limiter, such as .*, got <class '.*MemoryLimiter'>"):
        door(MemoryLimiter)


@pytest.mark.parametrize("door", [create_flask, create_fastapi])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_store_error": "ignore"}, "on_store_error must be one of local, open, closed, got 'ignore'"),
        ({"on_store_error": []}, "on_store_error must be one of local, open, closed, got []"),
        ({"name": 5}, "name must be text such as 'search', got 5"),
        ({"name": ""}, "name must be text such as 'search', got ''"),
    ],
)
def test_arguments_for_a_store_are_checked_without_one(
    door: Callable[..., Any], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        door("5/min", **({"store": "valkey://localhost"} if "name" in arguments else {}), **arguments)


@pytest.mark.parametrize("middleware", [RateLimitMiddleware, ratelab.wsgi.RateLimitMiddleware])
def test_a_middleware_needs_an_application_and_the_path_of_a_file(middleware: Any) -> None:
    with pytest.raises(InputError, match=r"app must be an? .SGI application, got None"):
        middleware(None, MemoryLimiter(create("token-bucket", "5/min")))
    with pytest.raises(InputError, match="path must be the path of a policy file, got 5"):
        middleware.from_file(hello, 5)
