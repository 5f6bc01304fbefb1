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
from ratelab.http import RateLimitMiddleware, by_route

LIMITER = MemoryLimiter(create("token-bucket", "5/min"))


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
    with pytest.raises(TypeError, match=r"^unknown argument 'times': choose one of account, charge, cost, "):
        door(MemoryLimiter(create("token-bucket", "5/min")), times=5)


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("name", "remedy"),
    [("burst", "Policy.create"), ("trusted_proxies", "Identity"), ("plans", "the limiter, such as MemoryLimiter")],
)
def test_the_error_for_an_argument_of_another_object_names_that_object(
    door: Callable[..., Any], name: str, remedy: str
) -> None:
    with pytest.raises(TypeError, match=rf"^unknown argument '{name}': give it to {remedy}"):
        door(MemoryLimiter(create("token-bucket", "5/min")), **{name: 5})


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize(
    ("name", "choices", "default", "message"),
    [
        ("cost", {"/export": "10"}, 1, "cost must be a whole number >= 0, got '10'"),
        ("cost", {"/export": 10}, -1, "cost must be a whole number >= 0, got -1"),
        ("exempt", {"/healthz": 1}, False, "exempt must return True or False, got 1"),
        ("exempt", {"/healthz": True}, None, "exempt must return True or False, got None"),
        ("limiter", {"/search": "5/min"}, LIMITER, "limiter must be a limiter, such as MemoryLimiter(policy), got '5/"),
        ("limiter", {"/search": LIMITER}, None, "limiter must be a limiter, such as MemoryLimiter(policy), got None"),
        ("key", {"/search": "ip"}, "header:X-API-Key", "key must not be by_route(...)"),
    ],
)
def test_every_door_rejects_an_invalid_choice_by_route_at_once(
    door: Callable[..., Any], name: str, choices: dict[str, Any], default: Any, message: str
) -> None:
    with pytest.raises(InputError, match=f"^{re.escape(message)}"):
        door(**{"limiter": LIMITER, name: by_route(choices, default)})


@pytest.mark.parametrize("choices", [["/search"], "/search", None])
def test_choices_by_route_are_a_mapping(choices: Any) -> None:
    with pytest.raises(InputError, match=r"choices of by_route must be a mapping such as {'/search': 10}, got "):
        by_route(choices, default=1)


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
