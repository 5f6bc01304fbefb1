"""Limits as dependencies of FastAPI: where they apply, the responses they change, and the schema."""

# without `from __future__ import annotations`: FastAPI would not find the local variables in them
import importlib
import json
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
from asgi import call, scope_of
from fastapi import APIRouter, Depends, FastAPI, Header, HTTPException, Request
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
from response_headers import parse_limits
from starlette.middleware.cors import CORSMiddleware

import ratelab.fastapi
from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy
from ratelab.fastapi import RateLimit, RateLimitDenied, document_limits
from ratelab.http import Identity, RateLimitMiddleware, by_route, decision_of
from ratelab.http.asgi import App

ORIGIN = "https://elsewhere.example"


def fixed(burst: int = 1, name: str = "limit") -> MemoryLimiter:
    """Return a limiter whose quota does not return."""
    return MemoryLimiter(Policy.create("token-bucket", f"{burst}/h", name=name), ManualClock())


async def pong() -> str:
    return "pong"


def limited(limit: RateLimit, endpoint: Callable[..., Any] = pong, **options: Any) -> FastAPI:
    """Create an application with one limited route, `/ping`."""
    app = FastAPI(**options)
    app.get("/ping", dependencies=[Depends(limit)])(endpoint)
    return app


def statuses(app: FastAPI, *paths: str, headers: str = "") -> list[int]:
    return [call(app, path=path, headers=headers).status for path in paths]


# --- routes, routers and applications


@pytest.mark.parametrize("level", ["route", "router", "include", "outer router", "application"])
def test_a_limit_applies_at_every_level(level: str) -> None:
    dependencies = {level: [Depends(RateLimit("2/h"))]}
    app = FastAPI(dependencies=dependencies.get("application"))
    outer = APIRouter(prefix="/v1", dependencies=dependencies.get("outer router"))
    inner = APIRouter(dependencies=dependencies.get("router"))
    inner.get("/ping", dependencies=dependencies.get("route"))(pong)
    outer.include_router(inner, dependencies=dependencies.get("include"))
    app.include_router(outer)
    replies = [call(app, path="/v1/ping") for _ in range(3)]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert [parse_limits(reply.fields).r for reply in replies] == [1, 0, 0]


def test_limits_of_several_levels_add_their_fields() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit(fixed(9, "app")))])
    router = APIRouter(dependencies=[Depends(RateLimit(fixed(3, "router")))])
    router.get("/ping", dependencies=[Depends(RateLimit(fixed(1, "route")))])(pong)
    app.include_router(router)
    admitted, denied = call(app), call(app)
    assert [value.partition(";t")[0] for value in admitted.of("ratelimit")] == [
        '"app";r=8',
        '"router";r=2',
        '"route";r=0',
    ]
    assert (denied.status, len(denied.of("ratelimit"))) == (429, 3)
    assert denied.of("retry-after") == ["3600"]


def test_routes_with_one_limit_share_its_quota_and_others_do_not() -> None:
    shared, app = RateLimit("2/h"), FastAPI()
    for path, limit in {"/a": shared, "/b": shared, "/c": RateLimit("2/h")}.items():
        app.get(path, dependencies=[Depends(limit)])(pong)
    assert statuses(app, "/a", "/b", "/a", "/b", "/c", "/c", "/c") == [200, 200, 429, 429, 200, 200, 429]


def test_a_request_that_meets_a_limit_several_times_is_charged_once() -> None:
    limit = RateLimit("2/h")
    app = FastAPI(dependencies=[Depends(limit)])
    app.get("/ping", dependencies=[Depends(limit)])(pong)
    assert statuses(app, *["/ping"] * 3) == [200, 200, 429]


def test_the_endpoint_receives_the_decision() -> None:
    limit, app = RateLimit("5/h"), FastAPI()

    @app.get("/ping")
    def ping(request: Request, decision: Annotated[Decision, Depends(limit)]) -> list[int]:
        assert request.state.ratelimit == decision == decision_of(request.scope)
        return [decision.remaining, limit.counts.admitted]

    assert [call(app).body for _ in range(2)] == [b"[4,1]", b"[3,2]"]


def test_an_exempt_request_has_no_decision() -> None:
    app = FastAPI()

    @app.get("/ping")
    def ping(request: Request, decision: Annotated[Any, Depends(RateLimit("1/h", exempt=lambda _: True))]) -> bool:
        return decision is None and request.state.ratelimit is None

    replies = [call(app) for _ in range(2)]
    assert [(reply.body, reply.of("ratelimit")) for reply in replies] == [(b"true", [])] * 2


def test_an_exemption_from_an_inner_limit_keeps_the_decision_of_the_outer_one() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("5/h"))])

    @app.get("/ping")
    def ping(request: Request, decision: Annotated[Any, Depends(RateLimit("1/h", exempt=lambda _: True))]) -> list[Any]:
        return [decision, request.state.ratelimit.remaining, decision_of(request.scope) == request.state.ratelimit]

    assert call(app).body == b"[null,4,true]"


def test_paths_and_methods_without_a_route_are_not_limited() -> None:
    app = FastAPI(dependencies=[Depends(RateLimit("1/h"))])
    app.get("/ping")(pong)
    assert statuses(app, "/missing", "/missing", "/ping", "/missing", "/ping") == [404, 404, 200, 404, 429]
    assert call(app, method="POST").status == 405


def test_a_mounted_application_and_its_parent_have_their_own_limits() -> None:
    inner = FastAPI(dependencies=[Depends(RateLimit(fixed(2, "inner")))])
    inner.get("/ping")(pong)
    app = FastAPI(dependencies=[Depends(RateLimit(fixed(1, "outer")))])
    app.get("/ping")(pong)
    app.mount("/v1", inner)
    replies = [call(app, path=path) for path in ("/ping", "/v1/ping", "/v1/ping", "/v1/ping", "/ping")]
    assert [reply.status for reply in replies] == [200, 200, 200, 429, 429]
    assert {parse_limits(reply.fields).name for reply in replies[1:4]} == {"inner"}


def test_an_override_replaces_a_limit_in_tests() -> None:
    limit = RateLimit("1/h")
    app = limited(limit)
    app.dependency_overrides[limit] = lambda: None
    assert statuses(app, *["/ping"] * 3) == [200] * 3


def test_a_reloaded_module_limits_as_before() -> None:
    before = FastAPI.build_middleware_stack, FastAPI.openapi
    names = dict(vars(ratelab.fastapi))
    try:
        app = limited(importlib.reload(ratelab.fastapi).RateLimit("1/h"))
        replies = [call(app) for _ in range(2)]
    finally:
        FastAPI.build_middleware_stack, FastAPI.openapi = before  # type: ignore[method-assign]
        vars(ratelab.fastapi).update(names)
    assert [reply.status for reply in replies] == [200, 429]
    assert [len(reply.of("ratelimit")) for reply in replies] == [1, 1]


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


# --- keys, costs and plans


def user_name(name: Annotated[str | None, Header(alias="X-User")] = None) -> str | None:
    return name


def test_a_key_may_be_a_dependency_which_is_solved_once() -> None:
    solved: list[str | None] = []

    async def user(name: Annotated[str | None, Depends(user_name)]) -> str | None:
        solved.append(name)
        return name

    app = FastAPI()

    @app.get("/ping", dependencies=[Depends(RateLimit("1/h", key=Depends(user)))])
    def ping(name: Annotated[str, Depends(user)]) -> str:
        return name

    headers = [f"X-User: {name}" for name in ("alice", "bob", "alice")]
    assert [statuses(app, "/ping", headers=each) for each in headers] == [[200], [200], [429]]
    assert solved == ["alice", "bob", "alice"]


def test_a_client_without_a_key_is_its_address() -> None:
    app = limited(RateLimit("1/h", key=Depends(user_name)))
    replies = [call(app, peer=f"192.0.2.{host}").status for host in (1, 2, 1)]
    assert replies == [200, 200, 429]


def test_functions_take_the_request() -> None:
    app = FastAPI()
    limit = RateLimit(
        "10/h",
        key=lambda request: request.path_params["team"],
        cost=lambda request: int(request.query_params.get("n", 5)),
        exempt=lambda request: request.method == "POST",
    )
    app.api_route("/{team}", methods=["GET", "POST"], dependencies=[Depends(limit)])(lambda team: team)
    assert statuses(app, "/a", "/b", "/a", "/a") == [200, 200, 200, 429]
    assert call(app, path="/a", method="POST").status == 200


def test_a_function_of_an_identity_takes_the_request() -> None:
    def team(request: Any) -> str:
        return str(request.path_params["team"])

    app = FastAPI()
    app.get("/{team}", dependencies=[Depends(RateLimit("1/h", key=Identity(team)))])(pong)
    assert statuses(app, "/a", "/b", "/a") == [200, 200, 429]


def test_costs_and_plans_may_be_dependencies() -> None:
    async def items(n: int = 1) -> int:
        return n

    async def plan(name: Annotated[str | None, Depends(user_name)]) -> str | None:
        return "pro" if name == "alice" else None

    day = Policy.create("fixed-window", "4/day", name="day")
    limiter = MemoryLimiter([day], ManualClock(), plans={"pro": {"day": "6/day"}})
    app = limited(RateLimit(limiter, key=Depends(user_name), cost=Depends(items), plan=Depends(plan)))
    assert [call(app, headers=f"X-User: {name}").status for name in ["bob"] * 5] == [200] * 4 + [429]
    assert [call(app, headers="X-User: alice").status for _ in range(7)] == [200] * 6 + [429]


def test_routes_choose_costs_and_limiters() -> None:
    small, large = fixed(1, "small"), fixed(4, "large")
    limit, app = RateLimit(by_route({"/a": small}, default=large), cost=by_route({"/c": 4}, default=1)), FastAPI()
    for path in ("/a", "/b", "/c"):
        app.get(path, dependencies=[Depends(limit)])(pong)
    assert statuses(app, "/a", "/a", "/c", "/b") == [200, 429, 200, 429]


def test_a_limit_may_be_called_in_the_endpoint() -> None:
    limit, app = RateLimit("1/h", key=Depends(user_name)), FastAPI()

    @app.get("/ping")
    async def ping(request: Request, name: str) -> int:
        decision = await limit(request, key=name)
        assert decision is not None
        return decision.remaining

    app.get("/ping/{name}")(ping)
    replies = [call(app, path=f"/ping/{name}") for name in ("a", "b", "a")]
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert {len(reply.of("ratelimit")) for reply in replies} == {1}


def test_a_shadow_policy_is_refunded_by_the_status() -> None:
    shadow = Policy.create("fixed-window", "9/day", name="day", shadow=True)
    limiter = MemoryLimiter([shadow], ManualClock())
    app = limited(RateLimit(limiter, charge=lambda request, status: status != 403), refuses)
    replies = [call(app) for _ in range(3)]
    assert [(reply.status, reply.of("ratelimit")) for reply in replies] == [(403, [])] * 3
    assert limiter.hit_each(Identity("ip")(scope_of()), 0)[1][0].remaining == 9


@pytest.mark.parametrize("values", [{}, {"key": "a", "cost": 1}, {"name": "a"}])
def test_a_call_without_the_value_of_a_dependency_is_reported(values: dict[str, Any]) -> None:
    limit, app = RateLimit("1/h", key=Depends(user_name)), FastAPI()

    @app.get("/ping")
    async def ping(request: Request) -> None:
        await limit(request, **values)

    with pytest.raises(InputError, match="takes key, which are dependencies"):
        call(app)


def test_policies_of_a_file_apply(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("version: 1\npolicies: [{name: pings, rate: 1/h, algorithm: token-bucket, match: /ping}]\n")
    app = limited(RateLimit.from_file(str(path)))
    app.get("/free", dependencies=[Depends(RateLimit.from_file(str(path)))])(pong)
    assert statuses(app, "/ping", "/ping", "/free", "/free") == [200, 429, 200, 200]


@pytest.mark.parametrize(
    ("limits", "arguments", "message"),
    [
        ((), {}, "limits must be rates"),
        (("5/minuet",), {}, "5/minuet"),
        (("5/minute", fixed()), {}, "limits must be rates"),
        (("5/minute",), {"key": "header:"}, "key must be ip, header:NAME such as"),
        (("5/minute",), {"key": pong}, "key must be a plain function"),
        (("5/minute",), {"cost": -1}, "cost must be a whole number"),
        (("5/minute",), {"on_denied": 429}, "on_denied must be a function of the request"),
        (("5/minute",), {"on_denied": pong}, "on_denied must be a plain function"),
    ],
)
def test_an_invalid_argument_is_reported_at_once(limits: Any, arguments: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        RateLimit(*limits, **arguments)


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
