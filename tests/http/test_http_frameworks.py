"""The middleware in Starlette, FastAPI and Litestar, from startup to shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import litestar
import pytest
from asgi import AsgiResponse, request, scope_of, started
from fastapi import FastAPI
from limited_apps import Watched
from litestar.middleware import DefineMiddleware
from response_headers import parse_limits
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from ratelab.http.asgi import App
from ratelab.http.middleware import RateLimitMiddleware

ORIGIN = "https://elsewhere.example"
CROSS_ORIGIN = f"Origin: {ORIGIN}"
PREFLIGHT = f"{CROSS_ORIGIN}\nAccess-Control-Request-Method: POST"
PONG = b'{"message":"pong"}'
EXPOSED = ["RateLimit", "RateLimit-Policy", "Retry-After"]

Lifespan = Callable[[Any], Any]


async def pong(_: Request) -> JSONResponse:
    return JSONResponse({"message": "pong"})


def starlette(limiter: Watched, lifespan: Lifespan) -> App:
    return Starlette(
        routes=[Route("/ping", pong)], middleware=[Middleware(RateLimitMiddleware, limiter=limiter)], lifespan=lifespan
    )


def fastapi(limiter: Watched, lifespan: Lifespan) -> App:
    app = FastAPI(lifespan=lifespan)
    app.add_middleware(RateLimitMiddleware, limiter=limiter)

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"message": "pong"}

    return app


def _litestar(lifespan: Lifespan, **options: Any) -> App:
    """Create the application; Litestar's types are stricter than ASGI's, hence the cast."""

    @litestar.get("/ping")
    async def ping() -> dict[str, str]:
        return {"message": "pong"}

    return cast(
        "App", litestar.Litestar([ping], lifespan=[lifespan], openapi_config=None, logging_config=None, **options)
    )


def inside_litestar(limiter: Watched, lifespan: Lifespan) -> App:
    return _litestar(lifespan, middleware=[DefineMiddleware(cast("Any", RateLimitMiddleware), limiter=limiter)])


def around_litestar(limiter: Watched, lifespan: Lifespan) -> App:
    return RateLimitMiddleware(_litestar(lifespan), limiter)


async def run_app(app: App, *scopes: dict[str, str]) -> list[AsgiResponse]:
    """Start an application, send requests, and shut it down; return the responses."""
    async with started(app):
        return [await request(app, scope_of(**scope)) for scope in scopes]


@pytest.mark.parametrize("make", [starlette, fastapi, inside_litestar, around_litestar])
def test_requests_to_a_framework_are_limited(make: Callable[[Watched, Lifespan], App]) -> None:
    events: list[str] = []

    @asynccontextmanager
    async def lifespan(_: object) -> AsyncIterator[None]:
        events.append("startup")
        yield
        events.append("shutdown")

    limiter = Watched()
    responses = asyncio.run(run_app(make(limiter, lifespan), *[{}] * 6))
    assert events == ["startup", "shutdown"]
    assert [(response.status, response.body) for response in responses[:5]] == [(200, PONG)] * 5
    assert [parse_limits(response.fields).r for response in responses] == [4, 3, 2, 1, 0, 0]
    assert (responses[5].status, responses[5].of("content-type")) == (429, ["application/problem+json"])
    assert len(limiter.asked) == 6


@pytest.mark.parametrize("make", [starlette, fastapi, around_litestar])
def test_a_frameworks_404_and_405_responses_are_limited_too(make: Callable[[Watched, Lifespan], App]) -> None:
    invalid = [{"path": "/wp-login.php"}, {"method": "DELETE"}, {"method": "POST"}]
    responses = asyncio.run(run_app(make(Watched(), empty_lifespan), *invalid * 2))
    assert [response.status for response in responses] == [404, 405, 405, 404, 405, 429]
    assert [parse_limits(response.fields).r for response in responses] == [4, 3, 2, 1, 0, 0]


@asynccontextmanager
async def empty_lifespan(_: object) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("make", [starlette, fastapi, inside_litestar, around_litestar])
def test_cors_outside_exposes_headers_and_preflights_are_free(
    make: Callable[[Watched, Lifespan], App],
) -> None:
    limiter = Watched(burst=1)
    app = make(limiter, empty_lifespan)
    outside = CORSMiddleware(app, allow_origins=[ORIGIN], allow_methods=["GET", "POST"], expose_headers=EXPOSED)
    preflight, get = {"headers": PREFLIGHT, "method": "OPTIONS"}, {"headers": CROSS_ORIGIN}
    responses = asyncio.run(run_app(outside, preflight, get, preflight, get))
    assert [response.status for response in responses] == [200, 200, 200, 429]
    assert [response.of("access-control-allow-origin") for response in responses] == [[ORIGIN]] * 4
    assert responses[3].of("access-control-expose-headers") == [", ".join(EXPOSED)]
    assert parse_limits(responses[3].fields).retry_after == 1
    assert len(limiter.asked) == 2


def test_a_streaming_response_passes_through() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(parts())

    app = Starlette(
        routes=[Route("/ping", stream)], middleware=[Middleware(RateLimitMiddleware, limiter=Watched(burst=1))]
    )
    responses = asyncio.run(run_app(app, {}, {}))
    assert [(response.status, parse_limits(response.fields).r) for response in responses] == [(200, 0), (429, 0)]
    assert responses[0].body == b"012"
