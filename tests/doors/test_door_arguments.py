"""Arguments of doors: all have the same, and reject invalid ones when they are created, in one line."""

from __future__ import annotations

import re
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
from django.http import HttpResponse
from django.test import RequestFactory
from django_project import override
from flask import Flask

import ratelab.django
import ratelab.flask
import ratelab.wsgi
from ratelab import InputError, MemoryLimiter, Policy, create, limited
from ratelab.django.decorators import ViewOptions
from ratelab.django.settings import NAMES
from ratelab.errors import ConfigurationWarning
from ratelab.fastapi import RateLimit
from ratelab.http import RateLimitMiddleware, by_route
from ratelab.http.doors import DoorArguments
from ratelab.http.gate import GateArguments
from ratelab.http.identity import SECRET
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter

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


def create_django(limiter: Any, **arguments: Any) -> Any:
    limits = {"RATE": limiter} if isinstance(limiter, str) else {"LIMITER": limiter}
    with override(**limits, **{name.upper(): value for name, value in arguments.items()}):
        return ratelab.django.RateLimitMiddleware(hello)


def create_django_view(limiter: Any, **arguments: Any) -> Any:
    with override():
        return ratelab.django.ratelimit(limiter, **arguments)(lambda _: HttpResponse())(RequestFactory().get("/"))


def check_flask(limiter: Any) -> Any:
    return ratelab.flask.limit(limiter).check


DOORS = [create_asgi, create_wsgi, create_flask, create_fastapi]
DJANGO = [create_django, create_django_view]
CREATING = [create_flask, create_fastapi, *DJANGO]
"""The doors that create limiters, in memory or in a store; the others are given one."""

VALID: dict[str, Any] = {
    "key": "header:X-API-Key",
    "cost": 2,
    "costs": {"rows": 3},
    "account": "header:X-Account",
    "exempt": lambda _: True,
    "legacy": "delta",
    "policy": "pages",
    "on_denied": lambda *_: None,
    "charge": lambda *_: False,
    "plan": lambda _: None,
    "default_plan": "pro",
    "on_plan_error": "closed",
    "plan_timeout": 2.5,
    "max_delay": 0,
    "file": None,
}
"""A value of each argument of all doors; the file of a door in Django is a path, and replaces its limiter."""

VALID_WITH_STORE: dict[str, Any] = {
    "store": "unix:///nowhere",
    "name": "search",
    "on_store_error": "open",
    "deadline": 0.5,
    "max_keys": 10,
}
"""A value of each argument of the doors that create limiters."""


def test_the_table_of_arguments_is_complete() -> None:
    assert VALID.keys() == GateArguments.__annotations__.keys()
    assert VALID.keys() | VALID_WITH_STORE.keys() == DoorArguments.__annotations__.keys() | {"name"}
    in_django = {name.lower() for name in NAMES}
    assert in_django >= VALID.keys() | VALID_WITH_STORE.keys()
    assert in_django == ViewOptions.__annotations__.keys()


@pytest.mark.parametrize("door", [*DOORS, *DJANGO])
def test_every_door_has_every_argument(door: Callable[..., Any]) -> None:
    policy = Policy.create("token-bucket", "5/min")
    for name in sorted(VALID.keys() - {"file"}):
        door(MemoryLimiter(policy, plans={"pro": {policy.name: "9/min"}}), **{name: VALID[name]})


@pytest.mark.parametrize("door", CREATING)
def test_every_door_that_creates_limiters_has_the_arguments_of_a_store(
    door: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "a secret")
    for name, value in VALID_WITH_STORE.items():
        door("5/min", **{name: value})


INVALID: list[tuple[dict[str, Any], str]] = [
    ({"account": 5}, "account must be header:NAME or a function of the request, got 5"),
    ({"account": "user"}, "account must be header:NAME or a function of the request, got 'user'"),
    ({"charge": "x"}, "charge must be a function of the request, got 'x'"),
    ({"cost": "2"}, "cost must be a whole number >= 0 or a function of the request, got '2'"),
    ({"costs": 5}, "costs must be a mapping of names to costs, got 5"),
    ({"costs": {"a": "2"}}, "costs['a'] must be a whole number >= 0 or a function of the request, got '2'"),
    ({"default_plan": "pro"}, "unknown plan 'pro': give the limiter plans"),
    ({"exempt": "/x"}, "exempt must be a function of the request, got '/x': by_route makes one of routes"),
    ({"key": "cookie"}, "key must be ip, header:NAME such as header:X-API-Key, or in code a function, got 'cookie'"),
    ({"legacy": "yes"}, "legacy headers must be one of off, delta, epoch, got 'yes'"),
    ({"max_delay": -1}, "max_delay must be a number of seconds >= 0, got -1"),
    ({"max_delay": None}, "max_delay must be a number of seconds >= 0, got None"),
    ({"on_denied": 5}, "on_denied must be a function of the request, got 5"),
    ({"on_plan_error": "x"}, "on_plan_error must be one of default, closed, got 'x'"),
    ({"plan_timeout": -1}, "plan_timeout must be a number of seconds above 0, got -1"),
    ({"plan_timeout": True}, "plan_timeout must be a number of seconds above 0, got True"),
    ({"policy": 5}, "a header field cannot hold the name 5 of a policy: use printable ASCII"),
]


@pytest.mark.parametrize("door", DOORS)
def test_every_door_rejects_an_invalid_argument_at_once(door: Callable[..., Any]) -> None:
    for arguments, message in INVALID:
        with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
            door(MemoryLimiter(create("token-bucket", "5/min")), **arguments)


VALID_IN_DJANGO: list[dict[str, Any]] = [{"account": "user"}, {"max_delay": None}]
"""The user of a request counts as an account, and None stands for the default."""

INVALID_IN_DJANGO = [each for each in INVALID if each[0] not in VALID_IN_DJANGO]


@pytest.mark.parametrize("door", DJANGO)
def test_django_rejects_an_invalid_argument_with_its_place(door: Callable[..., Any]) -> None:
    for arguments, message in INVALID_IN_DJANGO:
        with pytest.raises(InputError, match=r"^(RATELAB|ratelimit of .*): ") as rejected:
            door(MemoryLimiter(create("token-bucket", "5/min")), **arguments)
        shown = str(rejected.value).partition(": ")[2]
        (name,) = arguments  # of which Django takes further values if the message has it in capitals
        assert shown == message or shown.startswith(f"{name.upper()} must be ")


@pytest.mark.parametrize("door", DOORS)
def test_an_argument_that_no_door_has_is_named_with_the_others(door: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"^unknown argument 'times': choose one of account, charge, cost, "):
        door(MemoryLimiter(create("token-bucket", "5/min")), times=5)


@pytest.mark.parametrize("door", [ratelab.flask.limit, RateLimit, ratelab.flask.limit.from_file, RateLimit.from_file])
def test_a_door_that_creates_its_limiter_names_the_options_of_a_store_too(door: Callable[..., Any]) -> None:
    with pytest.raises(TypeError, match=r"^unknown argument 'stor': choose one of .*\bmax_keys, name, .*\bstore$"):
        door("5/min", stor="valkey://localhost")


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
    name: str, choices: dict[str, Any], default: Any, message: str
) -> None:
    for door in DOORS:
        with pytest.raises(InputError, match=f"^{re.escape(message)}"):
            door(**{"limiter": LIMITER, name: by_route(choices, default)})


@pytest.mark.parametrize("door", [create_asgi, create_wsgi])
@pytest.mark.parametrize("name", ["deadline", "name", "on_store_error", "store"])
def test_a_middleware_takes_no_store_but_a_limiter_in_one(door: Callable[..., Any], name: str) -> None:
    with pytest.raises(TypeError, match=f"^unknown argument '{name}': give it to the limiter, such as ValkeyLimiter$"):
        door(LIMITER, **{name: 1})


@pytest.mark.parametrize("choices", [["/search"], "/search", None])
def test_choices_by_route_are_a_mapping(choices: Any) -> None:
    with pytest.raises(InputError, match=r"choices of by_route must be a mapping such as {'/search': 10}, got "):
        by_route(choices, default=1)


@pytest.mark.parametrize("door", [*DOORS, lambda limiter: limited(limiter)(hello)])
def test_a_class_is_no_limiter(door: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match=r"limiter must be a limiter, such as .*, got <class '.*MemoryLimiter'>"):
        door(MemoryLimiter)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_store_error": "ignore"}, "on_store_error must be one of local, open, closed, got 'ignore'"),
        ({"on_store_error": []}, "on_store_error must be one of local, open, closed, got []"),
        ({"name": 5}, "name must be text such as 'search', got 5"),
        ({"name": ""}, "name must be text such as 'search', got ''"),
        ({"name": "n" * 101}, "name must have at most 100 characters, got 101: choose a shorter one"),
        ({"deadline": 0}, "deadline must be above 0 and at most 60 seconds, got 0"),
        ({"deadline": "soon"}, "deadline must be above 0 and at most 60 seconds, got 'soon'"),
        ({"max_keys": 0}, "max_keys must be a whole number >= 1, got 0"),
        ({"max_keys": True}, "max_keys must be a whole number >= 1, got True"),
    ],
)
def test_arguments_for_a_store_are_checked_with_and_without_one(arguments: dict[str, Any], message: str) -> None:
    for door, store in product(CREATING, [{}, {"store": "unix:///nowhere"}]):
        with pytest.raises(InputError, match=f"{re.escape(message)}$"):
            door("5/min", **store, **arguments)


@pytest.mark.parametrize("middleware", [RateLimitMiddleware, ratelab.wsgi.RateLimitMiddleware])
def test_a_middleware_needs_an_application_and_the_path_of_a_file(middleware: Any) -> None:
    with pytest.raises(InputError, match=r"app must be an? .SGI application, got None"):
        middleware(None, MemoryLimiter(create("token-bucket", "5/min")))
    with pytest.raises(InputError, match="path must be the path of a policy file, got 5"):
        middleware.from_file(hello, 5)


class Served:
    async def __call__(self, scope: object, receive: object, send: object) -> None:
        """Serve a request, as an application of FastAPI does."""


@pytest.mark.parametrize("app", [Served(), Served().__call__])
def test_wsgi_rejects_an_asgi_application_with_the_middleware_for_it(app: Any) -> None:
    with pytest.raises(InputError, match=r"app must be a WSGI application, .*: use ratelab.http.RateLimitMiddleware"):
        ratelab.wsgi.RateLimitMiddleware(app, MemoryLimiter(create("token-bucket", "5/min")))


@pytest.mark.parametrize("app", [Flask("shop"), Flask("shop").wsgi_app])
def test_asgi_rejects_a_wsgi_application_with_the_middleware_for_it(app: Any) -> None:
    with pytest.raises(InputError, match=r"app must be an ASGI application, .*: use ratelab.wsgi.RateLimitMiddleware"):
        RateLimitMiddleware(app, MemoryLimiter(create("token-bucket", "5/min")))


async def show_later(request: object) -> None:
    """Respond as an asynchronous view does."""


@pytest.mark.parametrize("decorator", [ratelab.flask.limit, ratelab.django.ratelimit, RateLimit])
@pytest.mark.parametrize("view", [lambda: "ok", lambda request, name: name, show_later, Served])
def test_a_decorator_without_a_rate_is_an_error_that_names_one(decorator: Callable[..., Any], view: Any) -> None:
    with pytest.raises(InputError, match=r"^a limit needs a rate, got .*: write .*\('5/minute'\)"):
        decorator(view)


@pytest.mark.parametrize("decorator", [ratelab.flask.limit, ratelab.django.ratelimit, RateLimit])
def test_limits_may_be_one_list(decorator: Callable[..., Any]) -> None:
    decorator(["5/minute", "100/day"])


@pytest.mark.parametrize("door", [*DOORS, check_flask])
def test_a_warning_of_every_door_names_a_line_of_the_user(
    door: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RATELAB_KEY_SECRET", raising=False)
    kind = AsyncValkeyLimiter if door in (create_asgi, create_fastapi) else ValkeyLimiter
    limiter = kind("valkey://127.0.0.1:1", "gcra", "5/min", name=door.__name__)
    with pytest.warns(ConfigurationWarning, match="RATELAB_KEY_SECRET is not set") as warned:
        door(limiter)
    assert {warning.filename for warning in warned} == {__file__}


@pytest.mark.parametrize("door", [create_flask, create_fastapi])
def test_two_limits_that_share_a_counter_are_reported_at_the_line_of_the_second(
    door: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATELAB_KEY_SECRET", "secret")
    first = door("5/min", store="valkey://127.0.0.1:1", name=f"twice {door.__name__}")
    with pytest.warns(ConfigurationWarning, match="share one counter in the store") as warned:
        second = door("5/min", store="valkey://127.0.0.1:1", name=f"twice {door.__name__}")
    assert [warning.filename for warning in warned] == [__file__]
    assert first is not second
