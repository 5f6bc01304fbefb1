"""Policy files in every door: in memory, and in a store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asgi
import pytest
import wsgi
from django.http import HttpResponse
from django.test import RequestFactory
from django_project import override
from fastapi import Depends, FastAPI
from flask import Flask
from valkey_servers import AMPLE_DEADLINE, collect_connections

import ratelab.django
import ratelab.flask
import ratelab.wsgi
from ratelab import InputError
from ratelab.fastapi import RateLimit
from ratelab.http import RateLimitMiddleware
from ratelab.http.identity import SECRET
from ratelab.stores.valkey.server import ValkeyServer

POLICIES = "version: 1\npolicies: [{name: pings, rate: 2/h, algorithm: token-bucket, match: /ping}]\n"


def serve_asgi(path: str, **store: Any) -> list[int]:
    app = RateLimitMiddleware.from_file(asgi_hello, path, **store)
    return [asgi.call(app, path=page).status for page in PAGES]


def serve_wsgi(path: str, **store: Any) -> list[int]:
    app = ratelab.wsgi.RateLimitMiddleware.from_file(wsgi_hello, path, **store)
    return [wsgi.call(app, path=page).status for page in PAGES]


def serve_flask(path: str, **store: Any) -> list[int]:
    app = Flask("pages")
    app.before_request(ratelab.flask.limit.from_file(path, **store).check)
    for page in {*PAGES}:
        app.add_url_rule(page, page, lambda: "hello")
    return [app.test_client().get(page).status_code for page in PAGES]


def serve_fastapi(path: str, **store: Any) -> list[int]:
    app = FastAPI(dependencies=[Depends(RateLimit.from_file(path, **store))])
    for page in {*PAGES}:
        app.get(page)(lambda: "hello")

    async def send() -> list[int]:
        async with asgi.started(app):
            return [(await asgi.request(app, asgi.scope_of(path=page))).status for page in PAGES]

    return asyncio.run(send())


def serve_django(path: str, **store: Any) -> list[int]:
    with override(FILE=path, **{name.upper(): value for name, value in store.items()}):
        view = ratelab.django.RateLimitMiddleware(lambda _: HttpResponse())
        return [view(RequestFactory().get(page)).status_code for page in PAGES]


def serve_django_view(path: str, **store: Any) -> list[int]:
    with override():
        view: Any = ratelab.django.ratelimit(file=path, **store)(lambda _: HttpResponse())
        return [view(RequestFactory().get(page)).status_code for page in PAGES]


PAGES = ("/ping", "/free", "/ping", "/free", "/ping")
GIVEN_LIMITERS = [serve_asgi, serve_wsgi]
WITH_STORE = [serve_flask, serve_fastapi, serve_django, serve_django_view]


async def asgi_hello(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"hello"})


def wsgi_hello(environ: Any, start_response: Any) -> list[bytes]:
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"hello"]


@pytest.mark.parametrize("serve", [*GIVEN_LIMITERS, *WITH_STORE])
def test_every_door_enforces_a_policy_file(serve: Callable[..., list[int]], tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    assert serve(str(path)) == [200, 200, 200, 200, 429]


@pytest.mark.slow
@pytest.mark.parametrize("serve", WITH_STORE)
def test_the_policies_of_a_file_may_be_in_a_store(
    serve: Callable[..., list[int]], tmp_path: Path, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SECRET, "a secret")
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    options = {"store": store.url, "name": f"file of {serve.__name__}", "deadline": AMPLE_DEADLINE}
    assert serve(str(path), **options) == [200, 200, 200, 200, 429]
    collect_connections()
    assert serve(str(path), **options) == [429, 200, 429, 200, 429]
    collect_connections()


@pytest.mark.parametrize("serve", WITH_STORE)
def test_options_of_a_store_are_checked_with_a_policy_file(serve: Callable[..., list[int]], tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text(POLICIES)
    with pytest.raises(InputError, match="deadline must be above 0 and at most 60 seconds, got 0"):
        serve(str(path), deadline=0)
