"""The ASGI middleware on single routes of Starlette and handlers of Litestar."""

import asyncio
from collections.abc import Callable
from typing import Any, cast

import litestar
import pytest
from asgi import AsgiResponse, request, scope_of, started
from response_headers import parse_limits
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route, Router

from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.http import RateLimitMiddleware, decision_of
from ratelab.http.asgi import App


def fixed(burst: int) -> MemoryLimiter:
    """Return a limiter whose quota does not return."""
    return MemoryLimiter(Policy.create("token-bucket", f"{burst}/h"), ManualClock())


async def left(request: Request) -> PlainTextResponse:
    decision = decision_of(request.scope)
    return PlainTextResponse("none" if decision is None else str(decision.remaining))


def starlette_route() -> App:
    limit = Middleware(RateLimitMiddleware, limiter=fixed(2))
    return Starlette(routes=[Route("/limited", left, middleware=[limit]), Route("/free", left)])


def starlette_mount() -> App:
    limit = Middleware(RateLimitMiddleware, limiter=fixed(2))
    routes = [Mount("/limited", Router([Route("/", left)]), middleware=[limit]), Route("/free", left)]
    return Starlette(routes=routes)


LITESTAR: dict[str, Any] = {"openapi_config": None, "logging_config": None}


def litestar_handlers() -> list[Any]:
    async def left(request: litestar.Request[Any, Any, Any]) -> str:
        decision = decision_of(cast("Any", request.scope))
        return "none" if decision is None else str(decision.remaining)

    return [litestar.get("/limited")(left), litestar.get("/free")(left)]


def litestar_limit() -> Any:
    """Return middleware as a function, since Litestar copies the arguments of other middleware."""
    limiter = fixed(2)
    return lambda app: RateLimitMiddleware(app, limiter)


def litestar_handler() -> App:
    limited, free = litestar_handlers()
    limited = litestar.get("/limited", middleware=[litestar_limit()])(limited.fn)
    return cast("App", litestar.Litestar([limited, free], **LITESTAR))


def litestar_router() -> App:
    limited, free = litestar_handlers()
    router = litestar.Router("/", route_handlers=[limited], middleware=[litestar_limit()])
    return cast("App", litestar.Litestar([router, free], **LITESTAR))


def litestar_controller() -> App:
    limited, free = litestar_handlers()
    respond = limited.fn

    class Limited(litestar.Controller):
        path = "/"
        middleware = [litestar_limit()]  # noqa: RUF012  (as Litestar has it)

        @litestar.get("/limited")
        async def left(self, request: litestar.Request[Any, Any, Any]) -> str:
            return cast("str", await respond(request))

    return cast("App", litestar.Litestar([Limited, free], **LITESTAR))


MAKE = [starlette_route, starlette_mount, litestar_handler, litestar_router, litestar_controller]


async def send(app: App, *paths: str) -> list[AsgiResponse]:
    async with started(app):
        return [await request(app, scope_of(path=path)) for path in paths]


@pytest.mark.parametrize(
    "make", [starlette_route, starlette_mount, litestar_handler, litestar_router, litestar_controller]
)
def test_the_middleware_limits_one_route(make: Callable[[], App]) -> None:
    path = "/limited/" if make is starlette_mount else "/limited"
    replies = asyncio.run(send(make(), path, "/free", path, path, "/free"))
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 200]
    assert [reply.body for reply in replies[:3]] == [b"1", b"none", b"0"]
    assert [parse_limits(replies[index].fields).r for index in (0, 2, 3)] == [1, 0, 0]
    assert replies[1].of("ratelimit") == []
    assert replies[3].of("content-type") == ["application/problem+json"]
