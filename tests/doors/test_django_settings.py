"""The setting `RATELAB`: valid options, invalid ones, and the system checks that find them before a request does."""

from __future__ import annotations

import gc
from pathlib import Path
from typing import Any
from weakref import WeakSet

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpResponse
from django.test import RequestFactory, override_settings
from django_project import MIDDLEWARE, override

from ratelab import InputError, MemoryLimiter, Policy, create
from ratelab.django import RateLimitMiddleware, apps, decorators, ratelimit
from ratelab.django.apps import check_deployment, check_settings
from ratelab.http import Identity
from ratelab.stores.valkey import AsyncValkeyLimiter

factory = RequestFactory()
LIMITER = MemoryLimiter(create("gcra", "1/min"))


@pytest.fixture(autouse=True)
def no_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WEB_CONCURRENCY", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(decorators, "doors", WeakSet())  # without the views of other tests
    monkeypatch.setattr(apps, "doors", decorators.doors)


def hello(request: Any) -> HttpResponse:
    return HttpResponse("hello")


def no_key(request: Any) -> None:
    """Identify a client by its address."""


def double(request: Any) -> int:
    return 2


def policies_of(response: Any) -> list[str]:
    return [item.strip() for item in response["RateLimit-Policy"].split(",")]


# --- valid options

FILE = """
version: 1
policies:
  - {name: burst, algorithm: token-bucket, rate: 5/s}
  - {name: day, algorithm: fixed-window, rate: 100/day}
"""


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"RATE": "5/minute"}, ['"5/minute";q=5;w=60']),
        ({"RATE": "5/m", "BURST": 10, "ALGORITHM": "gcra"}, ['"5/m";q=10;w=120']),
        ({"RATE": "5/minute", "POLICY": "default"}, ['"default";q=5;w=60']),
        ({"POLICIES": ["5/s", "100/hour"]}, ['"5/s";q=5;w=1', '"100/hour";q=100;w=3600']),
        (
            {"POLICIES": ("5/s", {"rate": "9/day", "algorithm": "gcra"})},
            ['"5/s";q=5;w=1', '"9/day";q=9;w=86400'],
        ),
        ({"POLICIES": [Policy.create("gcra", "5/s", name="mine")]}, ['"mine";q=5;w=1']),
        ({"LIMITER": f"{__name__}.LIMITER"}, ['"gcra";q=1;w=60']),
        ({"RATE": "5/s", "KEY": f"{__name__}.no_key", "COST": f"{__name__}.double"}, ['"5/s";q=5;w=1']),
        ({"RATE": "5/s", "KEY": Identity("header:X-API-Key"), "TRUSTED_PROXIES": None}, ['"5/s";q=5;w=1']),
        ({"RATE": "5/s", "PLANS": {"pro": {"5/s": "9/s"}}, "DEFAULT_PLAN": "pro"}, ['"5/s";q=9;w=1']),
        ({"RATE": "5/s", "OVERRIDES": {"127.0.0.1": {"5/s": "7/s"}}}, ['"5/s";q=7;w=1']),
    ],
)
def test_the_limits_of_the_setting_are_in_force(options: dict[str, Any], shown: list[str]) -> None:
    with override(**options):
        assert policies_of(RateLimitMiddleware(hello)(factory.get("/"))) == shown


def test_a_policy_file_is_in_force(tmp_path: Path) -> None:
    (tmp_path / "policies.yaml").write_text(FILE)
    with override(FILE=tmp_path / "policies.yaml"):
        shown = policies_of(RateLimitMiddleware(hello)(factory.get("/")))
    assert shown == ['"burst";q=5;w=1', '"day";q=100;w=86400']


def test_trusted_proxies_name_the_client() -> None:
    with override(RATE="1/min", TRUSTED_PROXIES=["127.0.0.1"]):
        view = RateLimitMiddleware(hello)
        found = [
            view(factory.get("/", HTTP_X_FORWARDED_FOR=client)).status_code for client in ("1.2.3.4", "5.6.7.8") * 2
        ]
    assert found == [200, 200, 429, 429]


def test_keys_are_the_same_in_all_processes_of_a_project(monkeypatch: pytest.MonkeyPatch) -> None:
    from ratelab.django.settings import create_identity

    monkeypatch.delenv("RATELAB_KEY_SECRET", raising=False)
    keys = []
    for key in ("one", "one", "other", b"other"):
        with override_settings(SECRET_KEY=key):
            keys.append(create_identity({}).key_of("192.0.2.1"))
    assert keys[0] == keys[1] != keys[2] == keys[3]
    assert create_identity({"SECRET": "one"}).key_of("192.0.2.1") == keys[0]


# --- invalid options

INVALID: dict[str, dict[str, Any]] = {
    "unknown name 'RATES': did you mean 'RATE'": {"RATES": "5/minute"},
    "unknown name 'rate': did you mean 'RATE'": {"rate": "5/minute"},
    "unknown name 'TRUSTED_PROXY': did you mean 'TRUSTED_PROXIES'": {"TRUSTED_PROXY": []},
    "expected one of RATE, POLICIES, FILE, LIMITER, got none": {"KEY": "ip"},
    "expected one of RATE, POLICIES, FILE, LIMITER, got RATE, FILE": {"RATE": "5/s", "FILE": "x"},
    "rate must look like": {"RATE": "often"},
    "rate must be text such as '5/minute', got 5": {"RATE": 5},
    "BURST needs RATE, got POLICIES": {"POLICIES": ["5/s"], "BURST": 5},
    "POLICIES must be a list of policies, got '5/s'": {"POLICIES": "5/s"},
    "a policy must be a rate, a dictionary or a Policy, got 5": {"POLICIES": [5]},
    "unknown field of a policy 'rates': did you mean 'rate'": {"POLICIES": [{"rates": "5/s"}]},
    "token-bucket": {"RATE": "5/s", "ALGORITHM": "token-buckets"},
    "KEY must be ip, user, header:NAME or a function of the request, got 'users': did you mean 'user'": {
        "RATE": "5/s",
        "KEY": "users",
    },
    "cannot import 'shop.keys.find'": {"RATE": "5/s", "KEY": "shop.keys.find"},
    "trusted proxy": {"RATE": "5/s", "TRUSTED_PROXIES": ["*"]},
    "must not cover all addresses": {"RATE": "5/s", "TRUSTED_PROXIES": ["0.0.0.0/0"]},
    "trusted_proxies must be a list": {"RATE": "5/s", "TRUSTED_PROXIES": "10.0.0.1"},
    "trusted_hops must be": {"RATE": "5/s", "TRUSTED_HOPS": "1"},
    "trusted_hops must be a whole number from 0 to": {"RATE": "5/s", "TRUSTED_HOPS": [1]},
    "legacy headers must be one of off, delta, epoch": {"RATE": "5/s", "LEGACY": "on"},
    "EXEMPT must be a list of routes or a function, got '/healthz'": {"RATE": "5/s", "EXEMPT": "/healthz"},
    "cost must be": {"RATE": "5/s", "COST": -1},
    "max_keys must be": {"RATE": "5/s", "MAX_KEYS": 0},
    "max_delay must be": {"RATE": "5/s", "MAX_DELAY": "long"},
    "on_denied must be a function": {"RATE": "5/s", "ON_DENIED": 429},
    "invalid store URL": {"RATE": "5/s", "STORE": "localhost"},
    "deadline must be": {"RATE": "5/s", "STORE": "valkey://localhost", "DEADLINE": 0},
    "deadline must be above 0": {"RATE": "5/s", "DEADLINE": "soon"},
    "name must be text such as 'search', got 5": {"RATE": "5/s", "NAME": 5},
    "name must have at most 100 characters, got 101": {"RATE": "5/s", "NAME": "n" * 101},
    "deadline must be above 0 and at most 60 seconds, got 61": {"LIMITER": f"{__name__}.LIMITER", "DEADLINE": 61},
    "max_keys must be a whole number": {"LIMITER": f"{__name__}.LIMITER", "MAX_KEYS": 0},
    "invalid store URL localhost": {"LIMITER": f"{__name__}.LIMITER", "STORE": "localhost"},
    "PLANS needs RATE or POLICIES, got LIMITER: give them to the limiter": {
        "LIMITER": f"{__name__}.LIMITER",
        "PLANS": {},
    },
    "OVERRIDES needs RATE or POLICIES, got FILE: write them into the file": {"FILE": "x", "OVERRIDES": {}},
    "trusted_hops must be a whole number": {"RATE": "5/s", "KEY": Identity(), "TRUSTED_HOPS": "1"},
    "trusted_proxies must be a list, got '10.0.0.1'": {"RATE": "5/s", "KEY": Identity(), "TRUSTED_PROXIES": "10.0.0.1"},
    "ipv6_prefix must be": {"RATE": "5/s", "KEY": Identity(), "IPV6_PREFIX": 200},
    "on_store_error must be one of": {"RATE": "5/s", "STORE": "valkey://localhost", "ON_STORE_ERROR": "ignore"},
    "on_store_error must be one of local, open, closed, got 5": {"RATE": "5/s", "ON_STORE_ERROR": 5},
    "path must be the path of a policy file, got 5": {"FILE": 5},
    "overrides must be a mapping of names to quotas, got 5": {"RATE": "5/s", "OVERRIDES": 5},
    "costs must be a mapping of names to costs, got 'export'": {"RATE": "5/s", "COSTS": "export"},
    "algorithm must be the name of one, such as token-bucket, got 5": {"RATE": "5/s", "ALGORITHM": 5},
    "a header field cannot hold the name 5 of a policy": {"RATE": "5/s", "POLICY": 5},
    "account must be header:NAME or a function of the request, got 'users'": {"RATE": "5/s", "ACCOUNT": "users"},
    "plan_timeout must be a number of seconds above 0, got 'long'": {"RATE": "5/s", "PLAN_TIMEOUT": "long"},
    "unknown plan 'pro': give the limiter plans": {"RATE": "5/s", "PLAN": "header:X-Plan", "DEFAULT_PLAN": "pro"},
}


@pytest.mark.parametrize("rule", INVALID)
def test_an_invalid_option_is_reported_in_one_line_at_start_and_by_the_check(rule: str) -> None:
    with override(**INVALID[rule]):
        with pytest.raises(ImproperlyConfigured) as caught:
            RateLimitMiddleware(hello)
        (message,) = check_settings()
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)
    assert (message.id, message.msg) == ("ratelab.E001", str(caught.value))


def test_an_invalid_option_of_decorators_is_found_by_the_check() -> None:
    with override(KEY="users"):
        (message,) = check_settings()
    assert message.msg.startswith("RATELAB: KEY must be")
    view = ratelimit("5/s", key="users")(hello)
    with override(RATE="5/s"):
        (message,) = check_settings()
    assert message.msg.startswith(f"ratelimit of {__name__}.hello: KEY must be")
    del view
    gc.collect()  # so that other tests do not find it


def test_the_check_accepts_what_only_asgi_can_serve() -> None:
    with override(LIMITER=AsyncValkeyLimiter("valkey://localhost", create("gcra", "1/s"))):
        assert check_settings() == []


def test_a_setting_that_is_no_dictionary_is_reported() -> None:
    rule = "RATELAB: the setting must be a dictionary"
    with override_settings(RATELAB="5/minute"), pytest.raises(InputError, match=rule):
        RateLimitMiddleware(hello)


@pytest.mark.parametrize(
    ("arguments", "options", "rule"),
    [
        ((), {}, "ratelimit needs rates, policies or one limiter, got ()"),
        (("often",), {}, "rate must look like"),
        (("5/s",), {"keys": "ip"}, "unknown option of ratelimit 'keys': did you mean 'key'"),
        (("5/s", LIMITER), {}, "ratelimit needs rates, policies or one limiter"),
        (("5/s",), {"rate": "4/s"}, "ratelimit needs one limit, got '5/s' and rate"),
        (("5/s",), {"limiter": LIMITER}, "ratelimit needs one limit, got '5/s' and limiter"),
        ((), {"rate": "5/s", "file": "x"}, "expected one of RATE, POLICIES, FILE, LIMITER, got RATE, FILE"),
        (("5/s", "9/min"), {"burst": 3}, "BURST needs RATE, got POLICIES"),
    ],
)
def test_an_invalid_decorator_is_reported_where_it_is_written(arguments: Any, options: Any, rule: str) -> None:
    with pytest.raises(InputError) as caught:
        ratelimit(*arguments, **options)
    assert rule in str(caught.value)


def test_a_decorator_needs_a_view() -> None:
    with pytest.raises(InputError, match="needs a view"):
        ratelimit("5/s")(int)
    with pytest.raises(
        InputError, match=r"ratelimit needs a view, got <WSGIRequest: .*: write @ratelimit\('5/minute'\)"
    ):
        ratelimit(hello)(RequestFactory().get("/"))


def test_a_limit_may_be_named() -> None:
    with override(RATE="5/s"):
        response = ratelimit(rate="2/min", burst=1)(hello)(RequestFactory().get("/"))
    assert response.headers["RateLimit-Policy"] == '"hello 2/min";q=1;w=30'


# --- system checks

AUTHENTICATION = "django.contrib.auth.middleware.AuthenticationMiddleware"
CORS = "corsheaders.middleware.CorsMiddleware"


def check(options: dict[str, Any], **settings: Any) -> list[str]:
    with override_settings(RATELAB={"RATE": "5/s", **options}, **settings):
        return [message.id for message in [*check_settings(), *check_deployment()]]


@pytest.fixture
def deployed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "1")


@pytest.mark.parametrize(
    ("settings", "options", "found"),
    [
        ({}, {}, []),
        ({"USE_X_FORWARDED_HOST": True}, {}, ["ratelab.W001"]),
        ({"USE_X_FORWARDED_HOST": True}, {"TRUSTED_PROXIES": [], "TRUSTED_HOPS": 0, "KEY": None}, ["ratelab.W001"]),
        ({"USE_X_FORWARDED_PORT": True}, {"KEY": "user"}, ["ratelab.W001"]),
        ({"SECURE_PROXY_SSL_HEADER": ("HTTP_X_FORWARDED_PROTO", "https")}, {}, ["ratelab.W001"]),
        ({"USE_X_FORWARDED_HOST": True}, {"TRUSTED_PROXIES": ["10.0.0.0/8"]}, []),
        ({"USE_X_FORWARDED_HOST": True}, {"TRUSTED_HOPS": 1}, []),
        ({"USE_X_FORWARDED_HOST": True}, {"KEY": "header:X-API-Key"}, []),
        ({}, {"TRUSTED_PROXIES": ["0.0.0.0/1", "10.0.0.0/8"]}, ["ratelab.W002"]),
        ({"USE_X_FORWARDED_HOST": True}, {"KEY": Identity("ip", ["10.0.0.0/8"])}, []),
        ({}, {"TRUSTED_PROXIES": ["2000::/3"]}, ["ratelab.W002"]),
        ({}, {"TRUSTED_PROXIES": ["unix", "10.0.0.0/8", "2001:db8::/32"]}, []),
        ({"MIDDLEWARE": [MIDDLEWARE, AUTHENTICATION]}, {"KEY": "user"}, ["ratelab.E002"]),
        ({"MIDDLEWARE": [AUTHENTICATION, MIDDLEWARE]}, {"KEY": "user"}, []),
        ({"MIDDLEWARE": [MIDDLEWARE, AUTHENTICATION]}, {}, []),
        ({"MIDDLEWARE": [MIDDLEWARE, MIDDLEWARE]}, {}, ["ratelab.W005"]),
        ({"MIDDLEWARE": [MIDDLEWARE, CORS]}, {}, ["ratelab.W006"]),
        ({"MIDDLEWARE": [CORS, MIDDLEWARE]}, {}, []),
    ],
)
@pytest.mark.usefixtures("deployed")
def test_the_checks_find_what_limits_the_wrong_clients(
    settings: dict[str, Any], options: dict[str, Any], found: list[str]
) -> None:
    assert check(options, **settings) == found


@pytest.mark.parametrize(
    ("variable", "value", "found"),
    [
        ("WEB_CONCURRENCY", "4", ["ratelab.W003"]),
        ("WEB_CONCURRENCY", "1", []),
        ("WEB_CONCURRENCY", "", ["ratelab.W004"]),
        ("GUNICORN_CMD_ARGS", "--bind=:80 --workers=3", ["ratelab.W003"]),
        ("GUNICORN_CMD_ARGS", "-w 3", ["ratelab.W003"]),
        ("GUNICORN_CMD_ARGS", "-w1", []),
        ("GUNICORN_CMD_ARGS", "--bind=:80", ["ratelab.W004"]),
    ],
)
def test_the_checks_find_quotas_of_several_workers_outside_a_store(
    variable: str, value: str, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    assert check({}) == check({"STORE": None}) == found
    assert check({"STORE": "valkey://store"}) == []


def test_a_project_without_limits_is_not_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WEB_CONCURRENCY", "4")
    with override_settings(RATELAB={}, MIDDLEWARE=[]):
        assert [*check_settings(), *check_deployment()] == []
