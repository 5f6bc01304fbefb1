"""Limits as dependencies of FastAPI: where they apply, and their keys, costs and plans."""

# without `from __future__ import annotations`: FastAPI would not find the local variables in them
import asyncio
import importlib
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import pytest
from asgi import call
from fastapi import APIRouter, Depends, FastAPI, Header, Request
from fastapi_apps import fixed, limited, pong, statuses
from response_headers import parse_limits

import ratelab.fastapi
from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy
from ratelab.fastapi import RateLimit
from ratelab.http import Identity, by_route, decision_of

pytestmark = pytest.mark.usefixtures("stopped_clock")

ORIGIN = "https://elsewhere.example"

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
    router.get("/ping", dependencies=[Depends(RateLimit(fixed(2, "route")))])(pong)
    app.include_router(router)
    first, second, denied = (call(app) for _ in range(3))
    for number, reply in enumerate((first, second)):
        left = [value.partition(";t")[0] for value in reply.of("ratelimit")]
        assert left == [f'"app";r={8 - number}', f'"router";r={2 - number}', f'"route";r={1 - number}']
    assert (denied.status, len(denied.of("ratelimit"))) == (429, 3)
    assert denied.of("retry-after") == ["1800"]


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


# --- limits without Depends


def misuse_route(limit: Any) -> FastAPI:
    app = FastAPI()
    app.get("/ping", dependencies=[limit])(pong)
    return app


def misuse_router(limit: Any) -> FastAPI:
    router, app = APIRouter(dependencies=[limit]), FastAPI()
    router.get("/ping")(pong)
    app.include_router(router)
    return app


def misuse_include(limit: Any) -> FastAPI:
    router, app = APIRouter(), FastAPI()
    router.get("/ping")(pong)
    app.include_router(router, dependencies=[limit])
    return app


def misuse_application(limit: Any) -> FastAPI:
    app = FastAPI(dependencies=[limit])
    app.get("/ping")(pong)
    return app


def misuse_websocket(limit: Any) -> FastAPI:
    app = FastAPI()
    app.websocket("/ws", dependencies=[limit])(pong)
    return app


def misuse_default(limit: Any) -> FastAPI:
    app = FastAPI()
    app.get("/ping")(lambda decision=limit: "pong")
    return app


def misuse_annotation(limit: Any) -> FastAPI:
    def ping(decision: Annotated[int, limit] = 1) -> str:
        return "pong"

    app = FastAPI()
    app.get("/ping")(ping)
    return app


MISUSES = [
    *(misuse_route, misuse_router, misuse_include, misuse_application, misuse_websocket),
    *(misuse_default, misuse_annotation),
]


@pytest.mark.parametrize("misuse", MISUSES)
def test_a_limit_without_depends_is_reported_before_any_request_is_served(misuse: Callable[[Any], FastAPI]) -> None:
    async def start(app: FastAPI) -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, never, never)

    async def never(message: Any = None) -> Any:
        raise AssertionError("the application has started")

    with pytest.raises(InputError, match=r"got a RateLimit alone: write Depends\(RateLimit\('5/minute'\)\)$"):
        asyncio.run(start(misuse(RateLimit("1/h"))))
