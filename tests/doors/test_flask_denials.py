"""Denials of views of Flask, the fields of errors, refunds, and limits in a store."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from flask import Flask, Response, g, redirect, request, stream_with_context
from flask.testing import FlaskClient
from flask.views import View
from flask_apps import statuses
from werkzeug.exceptions import HTTPException, NotFound, TooManyRequests

from ratelab import ManualClock, MemoryLimiter, Policy
from ratelab.errors import ConfigurationWarning
from ratelab.flask import RateLimitDenied, limit
from ratelab.limiter import Decision

pytestmark = pytest.mark.usefixtures("stopped_clock")

if TYPE_CHECKING:
    from ratelab.stores.valkey.server import ValkeyServer

pytest_plugins = ("flask_apps",)


# --- errors


def test_an_error_handler_renders_a_denial_with_the_fields_of_the_limit(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(429)
    def render(error: TooManyRequests) -> tuple[str, int]:
        assert isinstance(error, RateLimitDenied)
        assert error.decision.bound_by == "1/hour"
        return f"{error.description} {g.ratelimit.retry_after:.0f} {error.retry_after}", 429

    app.add_url_rule("/", "page", limit("1/hour")(lambda: "ok"))
    client.get("/")
    denied = client.get("/")
    assert denied.text == "Try again in 3600 s. 3600 3600"
    assert denied.headers["Content-Type"] == "text/html; charset=utf-8"
    assert denied.headers.getlist("Retry-After") == ["3600"]
    assert denied.headers.getlist("RateLimit") == ['"1/hour";r=0;t=3600']
    assert denied.headers["Cache-Control"] == "no-store"


def test_a_handler_of_all_errors_may_change_the_default_response(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(HTTPException)
    def render(error: HTTPException) -> Any:
        response: Any = error.get_response()
        response.data = json.dumps({"code": error.code})
        response.content_type = "application/json"
        return response

    app.add_url_rule("/", "page", limit("1/hour")(lambda: "ok"))
    client.get("/")
    denied = client.get("/")
    assert (denied.status_code, denied.json) == (429, {"code": 429})
    assert denied.headers.getlist("RateLimit-Policy") == ['"1/hour";q=1;w=3600']
    assert denied.headers["Content-Length"] == str(len(denied.data))


def test_a_handler_may_set_its_own_fields(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(RateLimitDenied)
    def render(error: RateLimitDenied) -> tuple[str, int, dict[str, str]]:
        return "", 503, {"Retry-After": "7", "Cache-Control": "private"}

    app.add_url_rule("/", "page", limit("1/hour")(lambda: "ok"))
    client.get("/")
    denied = client.get("/")
    assert [denied.headers.getlist(name) for name in ("Retry-After", "Cache-Control")] == [["7"], ["private"]]


@pytest.mark.parametrize(
    ("answer", "status"),
    [("slow down", 200), (("slow down", 429), 429), ({"error": "slow down"}, 200), (redirect("/elsewhere"), 302)],
    ids=["text", "status", "json", "response"],
)
def test_on_denied_returns_any_response_of_a_view(app: Flask, client: FlaskClient, answer: Any, status: int) -> None:
    app.add_url_rule("/", "page", limit("1/hour", on_denied=lambda request, decision: answer)(lambda: "ok"))
    client.get("/")
    denied = client.get("/")
    assert denied.status_code == status
    assert denied.headers["RateLimit"] == '"1/hour";r=0;t=3600'


def test_on_denied_may_only_count(app: Flask, client: FlaskClient) -> None:
    seen: list[tuple[str, Decision]] = []

    def count(request: Any, decision: Decision) -> None:
        seen.append((request.path, decision))

    app.add_url_rule("/", "page", limit("1/hour", on_denied=count)(lambda: "ok"))
    assert statuses(client, "/", "/") == [200, 429]
    assert [(path, decision.allowed) for path, decision in seen] == [("/", False)]


def test_errors_of_a_view_have_the_fields_of_the_limit(app: Flask, client: FlaskClient) -> None:
    @app.get("/<kind>")
    @limit("9/hour")
    def page(kind: str) -> str:
        raise NotFound if kind == "missing" else RuntimeError

    for path, status in (("/missing", 404), ("/broken", 500)):
        reply = client.get(path)
        assert (reply.status_code, "RateLimit" in reply.headers) == (status, True)


def test_a_streamed_response_has_the_context_of_its_request(app: Flask, client: FlaskClient) -> None:
    @app.get("/")
    @limit("1/hour")
    def page() -> Response:
        def parts() -> Iterator[str]:
            yield f"{g.ratelimit.remaining} {request.path}"

        return Response(stream_with_context(parts()))

    assert client.get("/").text == "0 /"


# --- stores


def test_a_store_is_shared_by_applications(
    app: Flask, client: FlaskClient, store: ValkeyServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATELAB_KEY_SECRET", "a secret")
    other = Flask("shop")
    limiters: list[Any] = []
    for each in (app, other):
        for name in ("page", "search"):
            view: Any = limit("2/hour", store=store.url, name=name)(lambda: "ok")
            each.add_url_rule(f"/{name}", name, view)
            limiters.append(view.gate._limiter)
    clients = [client, other.test_client()]
    assert [each.get("/page").status_code for _ in range(2) for each in clients] == [200, 200, 429, 429]
    assert statuses(client, "/search") == [200]
    for limiter in limiters:
        limiter.close()


def test_a_store_without_a_secret_is_warned_about() -> None:
    with pytest.warns(ConfigurationWarning, match="RATELAB_KEY_SECRET is not set"):
        limit("2/hour", store="valkey://localhost")(lambda: "ok")


def test_a_limit_without_its_store_is_decided_as_configured(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RATELAB_KEY_SECRET", "a secret")
    url = "valkey://127.0.0.1:1"
    for mode in ("local", "open", "closed"):
        limited = limit("1/hour", store=url, name=mode, on_store_error=mode)
        app.add_url_rule(f"/{mode}", mode, limited(lambda: "ok"))
    found = [client.get(f"/{mode}").status_code for mode in ("local", "open", "closed") for _ in range(2)]
    assert found == [200, 429, 200, 200, 503, 503]


def test_names_in_a_store_follow_the_view_or_are_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RATELAB_KEY_SECRET", "a secret")
    url = "valkey://localhost"

    class Orders(View):
        decorators = [limit("1/hour", store=url), limit("2/hour", store=url, name="orders of shops")]  # noqa: RUF012

    def name_of(view: Any) -> str:
        return cast("str", view.gate.policy_guard is None and view.gate._limiter.policy.name)

    def accented() -> str:
        return "ok"

    accented.__qualname__ = accented.__name__ = "caf\xe9"
    view: Any = Orders.as_view("orders")
    assert name_of(view.__wrapped__) == f"{__name__}.orders 1/hour"
    assert name_of(view) == "orders of shops 2/hour"
    assert name_of(limit("1/hour", store=url)(accented)) == rf"{__name__}.caf\xe9 1/hour"


def test_a_request_is_refunded_by_the_status_of_an_error_handler(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(RuntimeError)
    def render(error: RuntimeError) -> tuple[str, int]:
        return "busy", 503

    @app.get("/")
    @limit(MemoryLimiter([Policy.create("gcra", "1/hour")], ManualClock()), charge=lambda request, status: status < 500)
    def page() -> str:
        raise RuntimeError

    assert statuses(client, *["/"] * 3) == [503] * 3
