"""Limits as dependencies of FastAPI: the responses that they change, handlers of denials, and the schema."""

# without `from __future__ import annotations`: FastAPI would not find the local variables in them
import asyncio
import json
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Annotated, Any

import pytest
from asgi import call, request, scope_of
from fastapi import APIRouter, Depends, FastAPI, HTTPException, Request
from fastapi.openapi.utils import get_openapi
from fastapi.responses import (
    FileResponse,
    HTMLResponse,
    JSONResponse,
    PlainTextResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from fastapi_apps import fixed, limited, pong, statuses
from response_headers import parse_limits
from starlette.middleware.cors import CORSMiddleware

from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy
from ratelab.fastapi import RateLimit, RateLimitDenied, document_limits
from ratelab.http import Identity, RateLimitMiddleware
from ratelab.http.asgi import App

ORIGIN = "https://elsewhere.example"

# --- responses


async def parts() -> AsyncIterator[bytes]:
    yield b"one"


def with_cleanup() -> Iterator[int]:
    yield 1


class Item(dict[str, int]):
    """An object that FastAPI serializes."""


async def fails() -> None:
    raise RuntimeError("failed")


async def refuses() -> None:
    raise HTTPException(403, "no", {"X-Reason": "no"})


def cleaned(value: Annotated[int, Depends(with_cleanup)]) -> Response:
    return JSONResponse(value)


def never_called(value: Annotated[Any, Depends(refuses)]) -> None:
    pass


RESPONSES: dict[str, tuple[Callable[..., Any], int]] = {
    "an object": (lambda: Item(a=1), 200),
    "nothing": (lambda: None, 200),
    "JSON": (lambda: JSONResponse({}), 200),
    "HTML": (lambda: HTMLResponse("<p>"), 200),
    "text": (lambda: PlainTextResponse("", 202), 202),
    "no content": (lambda: Response(status_code=204), 204),
    "a redirect": (lambda: RedirectResponse("/"), 307),
    "a stream": (lambda: StreamingResponse(parts()), 200),
    "a file": (lambda: FileResponse(__file__), 200),
    "a missing file": (lambda: FileResponse("/missing"), 500),
    "a refusal": (refuses, 403),
    "a failure": (fails, 500),
    "an invalid request": (lambda token: 1, 422),
    "a dependency with cleanup": (cleaned, 200),
    "a dependency that refuses": (never_called, 403),
}


@pytest.mark.parametrize("content", RESPONSES)
def test_every_response_to_an_admitted_request_has_the_fields(content: str) -> None:
    endpoint, status = RESPONSES[content]
    sent: list[Any] = []
    app = limited(RateLimit("5/h"), endpoint)

    async def watched(scope: Any, receive: Any, send: Any) -> None:
        async def send_and_note(message: Any) -> None:
            sent.append(message)
            await send(message)

        await app(scope, receive, send_and_note)

    try:
        call(watched)
    except RuntimeError:
        assert status == 500  # the server logs it
    assert sent[0]["status"] == status
    limits = parse_limits(sent[0]["headers"])
    assert (limits.name, limits.q, limits.r, limits.retry_after) == ("5/h", 5, 4, None)


def test_a_denial_is_that_of_the_middleware() -> None:
    apps: list[App] = [RateLimitMiddleware(FastAPI(), fixed()), limited(RateLimit(fixed()))]
    (_, outside), (_, inside) = ([call(app) for _ in range(2)] for app in apps)
    assert outside.status == 429
    assert inside == outside


def test_several_limits_decide_together() -> None:
    app = limited(RateLimit("2/h", Policy.create("fixed-window", "3/day", name="day")))
    replies = [call(app) for _ in range(3)]
    assert replies[0].of("ratelimit-policy") == ['"2/h";q=2;w=3600, "day";q=3;w=86400']
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert json.loads(replies[2].body)["violated-policies"] == ["2/h"]


def test_a_delayed_request_is_counted() -> None:
    limit = RateLimit(MemoryLimiter(Policy.create("leaky-bucket", "100/s", 3), ManualClock()))
    app = limited(limit)
    assert statuses(app, *["/ping"] * 4) == [200, 200, 200, 429]
    counts = limit.counts
    assert (counts.admitted, counts.delayed, counts.waiting, counts.denied) == (3, 2, 0, 1)


def test_a_request_that_is_cancelled_during_its_delay_stays_charged() -> None:
    limit = RateLimit(MemoryLimiter(Policy.create("leaky-bucket", "1/day", 2), ManualClock()))
    app = limited(limit)

    async def send() -> list[int]:
        first = await request(app, scope_of())
        delayed = asyncio.ensure_future(request(app, scope_of()))
        while not limit.counts.waiting:
            await asyncio.sleep(0)
        delayed.cancel()
        await asyncio.wait([delayed])
        assert delayed.cancelled()
        return [first.status, (await request(app, scope_of())).status]

    assert asyncio.run(send()) == [200, 429]
    assert (limit.counts.admitted, limit.counts.dropped, limit.counts.waiting) == (1, 1, 0)


def test_a_shadow_policy_is_refunded_by_the_status() -> None:
    shadow = Policy.create("fixed-window", "9/day", name="day", shadow=True)
    limiter = MemoryLimiter([shadow], ManualClock())
    app = limited(RateLimit(limiter, charge=lambda request, status: status != 403), refuses)
    replies = [call(app) for _ in range(3)]
    assert [(reply.status, reply.of("ratelimit")) for reply in replies] == [(403, [])] * 3
    assert limiter.hit_each(Identity("ip")(scope_of()), 0)[1][0].remaining == 9


def test_legacy_fields_of_several_limits_are_one_set() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("3/h", legacy="delta"))])
    app.get("/ping", dependencies=[Depends(RateLimit("2/h", legacy="delta"))])(pong)
    replies = [call(app) for _ in range(3)]
    assert [reply.of("x-ratelimit-remaining") for reply in replies] == [["1"], ["0"], ["0"]]
    assert [len(reply.of("ratelimit")) for reply in replies] == [2] * 3


def test_a_denied_request_has_the_fields_of_cors() -> None:
    app = limited(RateLimit("1/h"))
    app.add_middleware(CORSMiddleware, allow_origins=[ORIGIN], expose_headers=["RateLimit", "Retry-After"])
    preflight = f"Origin: {ORIGIN}\nAccess-Control-Request-Method: GET"
    assert [call(app, method="OPTIONS", headers=preflight).status for _ in range(3)] == [200] * 3
    replies = [call(app, headers=f"Origin: {ORIGIN}") for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 429]
    assert [reply.of("access-control-allow-origin") for reply in replies] == [[ORIGIN]] * 2


# --- handlers of denials


async def render(request: Request, error: Any) -> Response:
    return JSONResponse({"code": error.status_code, "text": error.detail}, error.status_code, error.headers)


def render_in_thread(request: Request, error: Any) -> Response:
    return JSONResponse({"code": error.status_code, "text": error.detail}, error.status_code, error.headers)


@pytest.mark.parametrize("handler", [render, render_in_thread])
@pytest.mark.parametrize("denied", [RateLimitDenied, HTTPException, HTTPException.__mro__[1], 429])
def test_a_handler_of_the_application_renders_denials(denied: Any, handler: Any) -> None:
    app = limited(RateLimit(fixed()))
    app.add_exception_handler(denied, handler)
    _, denied = call(app), call(app)
    assert json.loads(denied.body) == {"code": 429, "text": "Try again in 3600 s."}
    assert denied.of("content-type") == ["application/json"]
    assert denied.of("content-length") == [str(len(denied.body))]
    assert (parse_limits(denied.fields).retry_after, denied.of("cache-control")) == (3600, ["no-store"])


@pytest.mark.parametrize("denied", [RateLimitDenied, HTTPException, HTTPException.__mro__[1], 429])
def test_a_handler_may_leave_out_the_header_fields(denied: Any) -> None:
    app = limited(RateLimit(fixed(), legacy="delta"))
    app.add_exception_handler(denied, lambda request, error: Response("slow", error.status_code, {"Retry-After": "9"}))
    _, reply = call(app), call(app)
    assert (reply.status, reply.of("retry-after"), reply.of("cache-control")) == (429, ["9"], ["no-store"])
    assert len(reply.of("ratelimit")) == len(reply.of("ratelimit-policy")) == len(reply.of("x-ratelimit-limit")) == 1


def test_a_handler_may_answer_with_another_status() -> None:
    app = limited(RateLimit(fixed()))
    app.add_exception_handler(RateLimitDenied, lambda request, error: Response("cached", 200))
    _, reply = call(app), call(app)
    assert (reply.status, reply.of("retry-after"), reply.of("ratelimit")) == (200, [], [])


def test_a_hook_responds_to_denied_requests_or_leaves_it() -> None:
    def hook(request: Request, decision: Decision) -> Response | None:
        name = request.headers.get("X-Name")
        return JSONResponse({"wait": decision.retry_after}, 403, {"Retry-After": "9"}) if name else None

    app = limited(RateLimit(fixed(), on_denied=hook))
    _, usual, replaced = call(app), call(app), call(app, headers="X-Name: a")
    assert (usual.status, replaced.status, replaced.body) == (429, 403, b'{"wait":3600.0}')
    assert (replaced.of("retry-after"), len(replaced.of("ratelimit"))) == (["9"], 1)
    assert replaced.of("content-length") == [str(len(replaced.body))]


def test_a_hook_that_returns_something_else_is_reported() -> None:
    app = limited(RateLimit(fixed(), on_denied=lambda request, decision: 429))
    call(app)
    with pytest.raises(InputError, match="on_denied must return a Response or None, got 429"):
        call(app)


# --- the schema


def responses(schema: dict[str, Any]) -> dict[str, list[str]]:
    """Return the documented statuses of the first method of each path."""
    return {path: [*next(iter(methods.values()))["responses"]] for path, methods in schema["paths"].items()}


def nested() -> FastAPI:
    """Create an application with limits at each level, also on a dependency of a dependency."""
    app, router, outer = FastAPI(), APIRouter(dependencies=[Depends(RateLimit("1/h"))]), APIRouter()

    def user(decision: Annotated[Any, Depends(RateLimit("1/h"))]) -> str:
        return ""

    router.get("/router")(pong)
    outer.include_router(router)
    app.include_router(outer, prefix="/v1")
    app.get("/free")(pong)
    app.get("/route/{n}", dependencies=[Depends(RateLimit("1/h"))])(lambda n: n)
    app.get("/user", dependencies=[Depends(user)])(pong)
    app.get("/own", dependencies=[Depends(user)], responses={429: {"description": "mine"}})(pong)
    app.get("/hidden", dependencies=[Depends(user)], include_in_schema=False)(pong)
    app.websocket("/ws", dependencies=[Depends(RateLimit("1/h"))])(pong)
    return app


DOCUMENTED = {
    "/v1/router": ["200", "429"],
    "/free": ["200"],
    "/route/{n}": ["200", "422", "429"],
    "/user": ["200", "429"],
    "/own": ["200", "429"],
}


def test_the_schema_documents_the_status_429_of_limited_routes() -> None:
    app = nested()
    schema = json.loads(call(app, path="/openapi.json").body)
    assert {path: sorted(each) for path, each in responses(schema).items()} == DOCUMENTED
    denial = schema["paths"]["/user"]["get"]["responses"]["429"]
    assert denial["headers"].keys() == {"Retry-After", "RateLimit", "RateLimit-Policy"}
    assert [*denial["content"]] == ["application/problem+json"]
    assert schema["paths"]["/own"]["get"]["responses"]["429"] == {"description": "mine"}
    assert app.openapi() == schema


def test_a_schema_of_its_own_is_documented_by_a_call() -> None:
    app = nested()
    schema = get_openapi(title="mine", version="1", routes=app.routes)
    document_limits(schema, app.routes)
    assert {path: sorted(each) for path, each in responses(schema).items()} == DOCUMENTED
