"""The middleware drops into Starlette, FastAPI and Litestar, from its first request to its shutdown."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import litestar
import pytest
from asgi import Answer, request, scope_of, started
from fastapi import FastAPI
from limited_apps import Watched
from litestar.middleware import DefineMiddleware
from response_headers import limits
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, StreamingResponse
from starlette.routing import Route

from ratelab.http.asgi import App
from ratelab.http.middleware import RateLimitMiddleware

ORIGIN = "https://elsewhere.example"
FROM_ELSEWHERE = f"Origin: {ORIGIN}"
PREFLIGHT = f"{FROM_ELSEWHERE}\nAccess-Control-Request-Method: POST"
PONG = b'{"message":"pong"}'
EXPOSED = ["RateLimit", "RateLimit-Policy", "Retry-After"]

Life = Callable[[Any], Any]


async def pong(_: Request) -> JSONResponse:
    return JSONResponse({"message": "pong"})


def starlette(limiter: Watched, life: Life) -> App:
    return Starlette(
        routes=[Route("/ping", pong)], middleware=[Middleware(RateLimitMiddleware, limiter=limiter)], lifespan=life
    )


def fastapi(limiter: Watched, life: Life) -> App:
    app = FastAPI(lifespan=life)
    app.add_middleware(RateLimitMiddleware, limiter=limiter)

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"message": "pong"}

    return app


def _litestar(life: Life, **options: Any) -> App:
    """Make the application; Litestar types what ASGI leaves open, hence the cast."""

    @litestar.get("/ping")
    async def ping() -> dict[str, str]:
        return {"message": "pong"}

    return cast("App", litestar.Litestar([ping], lifespan=[life], openapi_config=None, logging_config=None, **options))


def inside_litestar(limiter: Watched, life: Life) -> App:
    return _litestar(life, middleware=[DefineMiddleware(cast("Any", RateLimitMiddleware), limiter=limiter)])


def around_litestar(limiter: Watched, life: Life) -> App:
    return RateLimitMiddleware(_litestar(life), limiter)


async def lived(app: App, *scopes: dict[str, str]) -> list[Answer]:
    """Start an application, send it requests, and shut it down."""
    async with started(app):
        return [await request(app, scope_of(**scope)) for scope in scopes]


@pytest.mark.parametrize("make", [starlette, fastapi, inside_litestar, around_litestar])
def test_it_drops_into_a_framework(make: Callable[[Watched, Life], App]) -> None:
    seen: list[str] = []

    @asynccontextmanager
    async def life(_: object) -> AsyncIterator[None]:
        seen.append("up")
        yield
        seen.append("down")

    limiter = Watched()
    answers = asyncio.run(lived(make(limiter, life), *[{}] * 6))
    assert seen == ["up", "down"]
    assert [(answer.status, answer.body) for answer in answers[:5]] == [(200, PONG)] * 5
    assert [limits(answer.fields).r for answer in answers] == [4, 3, 2, 1, 0, 0]
    assert (answers[5].status, answers[5].of("content-type")) == (429, ["application/problem+json"])
    assert len(limiter.asked) == 6


@pytest.mark.parametrize("make", [starlette, fastapi, around_litestar])
def test_what_a_framework_refuses_is_limited_too(make: Callable[[Watched, Life], App]) -> None:
    wrong = [{"path": "/wp-login.php"}, {"method": "DELETE"}, {"method": "POST"}]
    answers = asyncio.run(lived(make(Watched(), no_life), *wrong * 2))
    assert [answer.status for answer in answers] == [404, 405, 405, 404, 405, 429]
    assert [limits(answer.fields).r for answer in answers] == [4, 3, 2, 1, 0, 0]


@asynccontextmanager
async def no_life(_: object) -> AsyncIterator[None]:
    yield


@pytest.mark.parametrize("make", [starlette, fastapi, inside_litestar, around_litestar])
def test_with_cors_outside_a_browser_may_read_why_it_is_denied_and_asks_first_for_free(
    make: Callable[[Watched, Life], App],
) -> None:
    limiter = Watched(burst=1)
    app = make(limiter, no_life)
    outside = CORSMiddleware(app, allow_origins=[ORIGIN], allow_methods=["GET", "POST"], expose_headers=EXPOSED)
    asks_first, asks = {"headers": PREFLIGHT, "method": "OPTIONS"}, {"headers": FROM_ELSEWHERE}
    answers = asyncio.run(lived(outside, asks_first, asks, asks_first, asks))
    assert [answer.status for answer in answers] == [200, 200, 200, 429]
    assert [answer.of("access-control-allow-origin") for answer in answers] == [[ORIGIN]] * 4
    assert answers[3].of("access-control-expose-headers") == [", ".join(EXPOSED)]
    assert limits(answers[3].fields).retry_after == 1
    assert len(limiter.asked) == 2


def test_a_stream_is_let_through_as_it_comes() -> None:
    async def parts() -> AsyncIterator[bytes]:
        for number in range(3):
            yield b"%d" % number

    async def stream(_: Request) -> StreamingResponse:
        return StreamingResponse(parts())

    app = Starlette(
        routes=[Route("/ping", stream)], middleware=[Middleware(RateLimitMiddleware, limiter=Watched(burst=1))]
    )
    answers = asyncio.run(lived(app, {}, {}))
    assert [(answer.status, limits(answer.fields).r) for answer in answers] == [(200, 0), (429, 0)]
    assert answers[0].body == b"012"
