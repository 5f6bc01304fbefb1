"""Stacked limits: a request that one of them denies is charged by none, in every door and across doors."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import asgi
import pytest
import wsgi
from django.core.handlers.asgi import ASGIHandler
from django.core.handlers.wsgi import WSGIHandler
from django.http import HttpResponse
from django.test import override_settings
from django.urls import path
from django_project import override
from fastapi import APIRouter, Depends, FastAPI, WebSocket
from fastapi_apps import pong
from flask import Flask
from limited_apps import Handler
from rest_framework.response import Response
from rest_framework.views import APIView
from starlette.responses import PlainTextResponse
from wsgi_apps import hello

import ratelab.flask
import ratelab.wsgi
from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.django import ratelimit
from ratelab.django.rest import RateThrottle
from ratelab.fastapi import RateLimit, RateLimitDenied
from ratelab.http import RateLimitMiddleware

Client = Callable[[], tuple[int, list[str]]]
"""Send a request; return the status of the response and its `RateLimit` lines."""

Limiters = tuple[Any, Any]
"""The outer limiter, and the inner one, which admits a single request."""


def wsgi_client(app: Any) -> Client:
    def send() -> tuple[int, list[str]]:
        reply = wsgi.call(app)
        return reply.status, reply.of("ratelimit")

    return send


def asgi_client(app: Any) -> Client:
    def send() -> tuple[int, list[str]]:
        reply = asgi.call(app)
        return reply.status, [value.decode() for name, value in reply.fields if name.lower() == b"ratelimit"]

    return send


# --- WSGI and Flask


def two_wsgi(outer: Any, inner: Any, **arguments: Any) -> Client:
    middleware = ratelab.wsgi.RateLimitMiddleware
    return wsgi_client(middleware(middleware(hello, inner), outer, **arguments))


def two_decorators_of_flask(outer: Any, inner: Any, **arguments: Any) -> Client:
    app, limit = Flask("shop"), ratelab.flask.limit
    app.add_url_rule("/ping", "ping", limit(outer, **arguments)(limit(inner)(lambda: "pong")))
    return wsgi_client(app)


def flask_application(outer: Any, inner: Any, **arguments: Any) -> Client:
    app, limit = Flask("shop"), ratelab.flask.limit
    app.before_request(limit(outer, **arguments).check)
    app.add_url_rule("/ping", "ping", limit(inner)(lambda: "pong"))
    app.register_error_handler(429, lambda error: ("slow down", 429))
    return wsgi_client(app)


def wsgi_around_flask(outer: Any, inner: Any, **arguments: Any) -> Client:
    app = Flask("shop")
    app.add_url_rule("/ping", "ping", ratelab.flask.limit(inner)(lambda: "pong"))
    return wsgi_client(ratelab.wsgi.RateLimitMiddleware(app, outer, **arguments))


# --- ASGI and FastAPI


def two_asgi(outer: Any, inner: Any, **arguments: Any) -> Client:
    return asgi_client(RateLimitMiddleware(RateLimitMiddleware(Handler(), inner), outer, **arguments))


def levels_of_fastapi(outer: Any, inner: Any, **arguments: Any) -> Client:
    app, router = FastAPI(dependencies=[Depends(RateLimit(outer, **arguments))]), APIRouter()
    router.get("/ping", dependencies=[Depends(RateLimit(inner))])(pong)
    app.include_router(router)
    return asgi_client(app)


def fastapi_with_handler(outer: Any, inner: Any, **arguments: Any) -> Client:
    app = FastAPI()
    both = [Depends(RateLimit(outer, **arguments)), Depends(RateLimit(inner))]
    app.get("/ping", dependencies=both)(pong)
    app.add_exception_handler(RateLimitDenied, lambda request, error: PlainTextResponse("slow down", 429))
    return asgi_client(app)


def asgi_around_fastapi(outer: Any, inner: Any, **arguments: Any) -> Client:
    app = FastAPI()
    app.get("/ping", dependencies=[Depends(RateLimit(inner))])(pong)
    return asgi_client(RateLimitMiddleware(app, outer, **arguments))


def middleware_of_fastapi(outer: Any, inner: Any, **arguments: Any) -> Client:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, limiter=outer, **arguments)
    app.get("/ping", dependencies=[Depends(RateLimit(inner))])(pong)
    return asgi_client(app)


# --- Django

urlpatterns: list[Any] = []


def django_client(view: Any, asynchronous: bool = False, **options: Any) -> Client:
    urlpatterns[:] = [path("ping", view)]
    middleware = ["ratelab.django.RateLimitMiddleware"] if options else []
    with override(**options), override_settings(MIDDLEWARE=middleware, ROOT_URLCONF=__name__):
        app: Any = ASGIHandler() if asynchronous else WSGIHandler()
    client = asgi_client(app) if asynchronous else wsgi_client(app)

    def send() -> tuple[int, list[str]]:
        with override_settings(ROOT_URLCONF=__name__, RATELAB=options):
            return client()

    return send


def view(request: Any) -> HttpResponse:
    return HttpResponse("pong")


async def async_view(request: Any) -> HttpResponse:
    return HttpResponse("pong")


def two_decorators_of_django(outer: Any, inner: Any, **arguments: Any) -> Client:
    return django_client(ratelimit(outer, **arguments)(ratelimit(inner)(view)))


def two_async_decorators(outer: Any, inner: Any, **arguments: Any) -> Client:
    return django_client(ratelimit(outer, **arguments)(ratelimit(inner)(async_view)), True)


def django_middleware(outer: Any, inner: Any, **arguments: Any) -> Client:
    named = {name.upper(): value for name, value in arguments.items()}
    return django_client(ratelimit(inner)(view), LIMITER=outer, **named)


def django_middleware_in_a_loop(outer: Any, inner: Any, **arguments: Any) -> Client:
    named = {name.upper(): value for name, value in arguments.items()}
    return django_client(ratelimit(inner)(async_view), True, LIMITER=outer, **named)


def throttle_within_middleware(outer: Any, inner: Any, **arguments: Any) -> Client:
    throttle = type("Inner", (RateThrottle,), {"limiter": inner, "key": "ip"})

    class View(APIView):  # type: ignore[misc]
        throttle_classes, authentication_classes, permission_classes = (throttle,), (), ()

        def get(self, request: Any) -> Response:
            return Response("pong")

    named = {name.upper(): value for name, value in arguments.items()}
    return django_client(View.as_view(), LIMITER=outer, **named)


def wsgi_around_django(outer: Any, inner: Any, **arguments: Any) -> Client:
    urlpatterns[:] = [path("ping", ratelimit(inner)(view))]
    with override(), override_settings(MIDDLEWARE=[], ROOT_URLCONF=__name__):
        app = ratelab.wsgi.RateLimitMiddleware(WSGIHandler(), outer, **arguments)
    client = wsgi_client(app)

    def send() -> tuple[int, list[str]]:
        with override_settings(ROOT_URLCONF=__name__):
            return client()

    return send


STACKS = [
    *(two_wsgi, two_decorators_of_flask, flask_application, wsgi_around_flask),
    *(two_asgi, levels_of_fastapi, fastapi_with_handler, asgi_around_fastapi, middleware_of_fastapi),
    *(two_decorators_of_django, two_async_decorators, django_middleware, django_middleware_in_a_loop),
    *(throttle_within_middleware, wsgi_around_django),
]


def outer_limiter(several: bool = False) -> MemoryLimiter:
    policies = [Policy.create("token-bucket", "9/h", name="outer")]
    if several:
        policies.append(Policy.create("fixed-window", "99/day", name="day"))
    return MemoryLimiter(policies, ManualClock())


def inner_limiter() -> MemoryLimiter:
    return MemoryLimiter(Policy.create("token-bucket", "1/h", name="inner"), ManualClock())


def states(lines: list[str]) -> dict[str, int]:
    """Return the remaining quota by the name of each policy."""
    found = re.findall(r'"(\w+)";r=(\d+)', ", ".join(lines))
    assert len(found) == len(dict(found))
    return {name: int(left) for name, left in found}


@pytest.mark.parametrize("stack", STACKS)
@pytest.mark.parametrize("several", [False, True], ids=["one policy", "two policies"])
def test_a_denied_request_is_charged_by_no_limit_of_a_stack(stack: Callable[..., Client], several: bool) -> None:
    send = stack(outer_limiter(several), inner_limiter())
    (first, admitted), *denied = [send() for _ in range(4)]
    assert (first, [status for status, _ in denied]) == (200, [429] * 3)
    assert states(admitted) == {"outer": 8, "inner": 0}
    assert [states(lines) for _, lines in denied] == [{"outer": 8, "inner": 0}] * 3


@pytest.mark.parametrize("stack", STACKS)
def test_a_denied_request_is_refunded_once_also_if_its_status_is_not_charged(stack: Callable[..., Client]) -> None:
    limiter = outer_limiter()
    send = stack(limiter, inner_limiter(), charge=lambda _, status: status != 429)
    shown = [states(lines)["outer"] for _, lines in (send() for _ in range(4))]
    assert shown == [8, 8, 8, 8]


@pytest.mark.parametrize("stack", STACKS)
def test_an_admitted_request_is_charged_by_all_limits(stack: Callable[..., Client]) -> None:
    inner = MemoryLimiter(Policy.create("token-bucket", "5/h", name="inner"), ManualClock())
    send = stack(outer_limiter(), inner)
    assert [states(lines) for _, lines in (send() for _ in range(3))] == [
        {"outer": 8 - number, "inner": 4 - number} for number in range(3)
    ]


def test_a_websocket_that_an_inner_limit_denies_is_charged_by_none() -> None:
    outer, app = outer_limiter(), FastAPI()

    @app.websocket("/ws", dependencies=[Depends(RateLimit(outer)), Depends(RateLimit(inner_limiter()))])
    async def chat(websocket: WebSocket) -> None:
        await websocket.accept()

    async def connect() -> str:
        return str((await asgi.converse(app))[0]["type"])

    assert [asyncio.run(connect()) for _ in range(3)] == ["websocket.accept", "websocket.close", "websocket.close"]
    (table,) = {one.remaining for one in outer.look(RateLimit(outer)._find_key(asgi.scope_of())).values()}
    assert table == 8
