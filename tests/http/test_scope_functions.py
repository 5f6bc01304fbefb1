"""Functions of the ASGI scope: the path below a mount, and the choice by route."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgi import AsgiResponse, call, request, scope_of
from fastapi import FastAPI
from limited_apps import Handler, Watched
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from ratelab import InputError
from ratelab.http import RateLimitMiddleware, by_route, decision_of, route_path
from ratelab.http.asgi import App, Scope

# --- the path below the mount point


@pytest.mark.parametrize(
    ("root", "path", "expected"),
    [
        ("", "/search", "/search"),
        ("/api", "/api/search", "/search"),
        ("/api", "/search", "/search"),
        ("/api/", "/api/search", "/search"),
        ("/api/v1", "/api/v1/search", "/search"),
        ("/api", "/apis/search", "/apis/search"),
        ("/api", "/api", "/"),
        ("/api", "/api/", "/"),
        ("/api", "/api/api/search", "/api/search"),
        ("/", "/search", "/search"),
        ("", "", "/"),
        (None, "/search", "/search"),
        ("/api", "/api/search\n", "/search"),
        ("/api", "/api\n", "/"),
    ],
)
def test_the_path_does_not_include_the_mount_point(root: str | None, path: str, expected: str) -> None:
    assert route_path({"path": path, "root_path": root}) == expected


def test_a_scope_without_a_root_path_has_its_path() -> None:
    assert route_path({"path": "/search"}) == "/search"


# --- the choice by route

ROUTES = {
    "/": "root",
    "/search": "search",
    "POST /login": "login",
    "/items/{item_id:int}": "number",
    "GET /items/{item_id}": "item",
    "/items/{item_id}/price": "price",
    "/files/{name:path}": "file",
    "/v1.0/{x:float}": "float",
    "/things/{thing:uuid}": "thing",
    "/items/new/": "new",
}


@pytest.mark.parametrize(
    ("request_line", "choice"),
    [
        ("GET /", "root"),
        ("GET /search", "search"),
        ("DELETE /search/", "search"),
        ("GET //search", "search"),
        ("GET /Search", "other"),
        ("GET /search/more", "other"),
        ("GET /search\n", "search"),
        ("GET /search\n\n", "other"),
        ("GET /items/12\n", "number"),
        ("POST /login", "login"),
        ("GET /login", "other"),
        ("PUT /items/12", "number"),
        ("GET /items/twelve", "item"),
        ("HEAD /items/twelve", "item"),
        ("PUT /items/twelve", "other"),
        ("GET /items/new", "new"),
        ("GET /items/12/price", "price"),
        ("GET /items//price", "item"),
        ("GET /files/a/b.txt", "file"),
        ("GET /files", "file"),
        ("GET /v1.0/2.5", "float"),
        ("GET /v1x0/2.5", "other"),
        ("GET /things/123e4567-e89b-12d3-a456-426614174000", "thing"),
        ("GET /things/1", "other"),
    ],
)
@pytest.mark.parametrize("root", ["", "/api"])
def test_a_route_is_chosen_by_method_and_pattern(root: str, request_line: str, choice: str) -> None:
    method, _, path = request_line.partition(" ")
    assert by_route(ROUTES, default="other")({**scope_of(method=method, path=path), "root_path": root}) == choice
    below = {**scope_of(method=method, path=root + path), "root_path": root}
    assert by_route(ROUTES, default="other")(below) == choice


@pytest.mark.parametrize(
    ("route", "message"),
    [
        ("search", "a route must be a path, such as /search or POST /login, got 'search'"),
        ("", "a route must be a path"),
        ("post /login", "a route must be a path"),
        ("/a b", "a route must be a path"),
        ("/search?q=1", "a route must be a path"),
        (7, "a route must be a path, such as /search or POST /login, got 7"),
        ("/items/{id", "a parameter of a route must be {name} or {name:path}, got '/items/{id'"),
        ("/items/{}", "a parameter of a route must be"),
        ("/static/*", "a parameter of a route must be {name} or {name:path}, got '/static/*'"),
        ("/items/<id>", "a parameter of a route must be"),
        ("/items/:id", "a parameter of a route must be"),
        (
            "/items/{id:number}",
            "a parameter must be of str, path, int, float, uuid, got number in '/items/{id:number}'",
        ),
    ],
)
def test_an_invalid_route_is_rejected(route: Any, message: str) -> None:
    with pytest.raises(InputError) as rejected:
        by_route({route: 1}, default=0)
    assert str(rejected.value).startswith(message)


# --- mounts of frameworks


async def page(_: Request) -> PlainTextResponse:
    return PlainTextResponse("ok")


PATHS = ("/search", "/healthz", "/export", "/items/{item_id:int}")


def options(usual: Watched, search: Watched) -> dict[str, Any]:
    return {
        "limiter": by_route({"/search": search, "/items/{item_id:int}": search}, default=usual),
        "cost": by_route({"/export": 3}, default=1),
        "exempt": by_route({"/healthz": True}, default=False),
    }


def starlette_app(usual: Watched, search: Watched) -> App:
    routes = [Route(path, page) for path in PATHS]
    return Starlette(routes=routes, middleware=[Middleware(RateLimitMiddleware, **options(usual, search))])


def fastapi_app(usual: Watched, search: Watched) -> App:
    app = FastAPI()
    app.add_middleware(RateLimitMiddleware, **options(usual, search))
    for path in PATHS:
        app.add_api_route(path, page)
    return app


def mounted(app: App) -> App:
    return Starlette(routes=[Mount("/api", app)])


def mounted_twice(app: App) -> App:
    return Starlette(routes=[Mount("/v1", Starlette(routes=[Mount("/api", app)]))])


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
@pytest.mark.parametrize(
    ("wrap", "root", "prefix"),
    [
        (lambda app: app, "", ""),
        (lambda app: app, "/api", "/api"),  # uvicorn --root-path, or hypercorn behind a proxy that keeps the prefix
        (lambda app: app, "/api", ""),  # hypercorn and granian behind a proxy that strips the prefix
        (mounted, "", "/api"),
        (mounted_twice, "", "/v1/api"),
    ],
    ids=["alone", "root in path", "root not in path", "mounted", "mounted twice"],
)
def test_limits_by_route_hold_below_a_mount(make: Any, wrap: Any, root: str, prefix: str) -> None:
    usual, search = Watched(burst=5), Watched(burst=2)
    app = wrap(make(usual, search))

    async def send(path: str) -> int:
        return (await request(app, {**scope_of(path=prefix + path), "root_path": root})).status

    async def send_all() -> list[int]:
        return [await send(path) for path in ["/search"] * 3 + ["/healthz"] * 3 + ["/export"] * 2]

    assert asyncio.run(send_all()) == [200, 200, 429, 200, 200, 200, 200, 429]
    assert ([cost for _, cost in search.asked], [cost for _, cost in usual.asked]) == ([1, 1, 1], [3, 3])


@pytest.mark.parametrize("make", [starlette_app, fastapi_app])
@pytest.mark.parametrize("path", ["/search", "/search\n", "/items/7", "/items/7\n"])
def test_every_path_that_reaches_a_route_has_the_limit_of_the_route(make: Any, path: str) -> None:
    usual, search = Watched(), Watched()
    assert call(make(usual, search), path=path).status == 200
    assert (len(search.asked), len(usual.asked)) == (1, 0)


# --- the decision, for the application


def test_the_application_sees_the_decision() -> None:
    seen = []

    async def app(scope: Scope, receive: Any, send: Any) -> None:
        seen.append(decision_of(scope))
        await Handler()(scope, receive, send)

    exempt = by_route({"/healthz": True}, default=False)
    limited = RateLimitMiddleware(app, Watched(), exempt=exempt)
    responses: list[AsgiResponse] = [call(limited, path=path) for path in ("/ping", "/ping", "/healthz")]
    assert [response.status for response in responses] == [200] * 3
    first, second, unlimited = seen
    assert first is not None
    assert second is not None
    assert (first.allowed, first.remaining, first.reset_after, second.remaining, unlimited) == (True, 4, 0.5, 3, None)
