"""Limits of views of Flask: their scope, the decision, error handlers, and stores."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, cast

import pytest
from flask import Blueprint, Flask, Response, g, jsonify, redirect, request, stream_with_context
from flask.testing import FlaskClient
from flask.views import MethodView, View
from limited_apps import Watched
from werkzeug.exceptions import HTTPException, NotFound, TooManyRequests

from ratelab import InputError, ManualClock, MemoryLimiter, Policy, create
from ratelab.errors import ConfigurationWarning
from ratelab.flask import RequestDenied, limit
from ratelab.http import Identity, by_route
from ratelab.limiter import Decision
from ratelab.wsgi import RateLimitMiddleware, decision_of

if TYPE_CHECKING:
    from ratelab.stores.valkey.server import ValkeyServer


@pytest.fixture
def app() -> Flask:
    return Flask("shop")


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def statuses(client: FlaskClient, *paths: str, **arguments: Any) -> list[int]:
    return [client.get(path, **arguments).status_code for path in paths]


# --- scope


def test_ten_lines_limit_a_view(app: Flask, client: FlaskClient) -> None:
    @app.get("/search")
    @limit("5/minute")
    def search() -> str:
        """Search."""
        return "found"

    assert statuses(client, *["/search"] * 6) == [200] * 5 + [429]
    assert search.__doc__ == "Search."
    assert client.get("/search").headers["RateLimit-Policy"] == '"5/minute";q=5;w=60'


def test_every_view_has_its_own_quota(app: Flask, client: FlaskClient) -> None:
    twice = limit("1/hour")
    for name in ("a", "b"):
        app.add_url_rule(f"/{name}", name, twice(lambda: "ok"))
    assert statuses(client, "/a", "/a", "/b", "/b") == [200, 429, 200, 429]


def test_views_may_share_a_limiter(app: Flask, client: FlaskClient) -> None:
    shared = MemoryLimiter(create("token-bucket", "1/hour"))
    for name in ("a", "b"):
        app.add_url_rule(f"/{name}", name, limit(shared)(lambda: "ok"))
    assert statuses(client, "/a", "/b") == [200, 429]


def test_a_view_keeps_its_arguments(app: Flask, client: FlaskClient) -> None:
    @app.get("/items/<int:number>")
    @limit("1/hour")
    def item(number: int) -> dict[str, int]:
        return {"number": number}

    assert client.get("/items/7").json == {"number": 7}
    assert statuses(client, "/items/8", "/items/x") == [429, 404]


def test_a_class_of_methods_is_limited_as_a_whole(app: Flask, client: FlaskClient) -> None:
    class Orders(MethodView):
        decorators = [limit("2/hour")]  # noqa: RUF012  (as Flask declares it)

        def get(self) -> str:
            return "orders"

        def post(self) -> tuple[str, int]:
            return "made", 201

    app.add_url_rule("/orders", view_func=Orders.as_view("orders"))
    assert [client.get("/orders").status_code, client.post("/orders").status_code] == [200, 201]
    assert client.delete("/orders").status_code == 405
    assert client.get("/orders").status_code == 429


def test_a_method_of_a_class_may_have_a_limit(app: Flask, client: FlaskClient) -> None:
    class Orders(MethodView):
        def get(self) -> str:
            return "orders"

        @limit("1/hour")
        def post(self) -> str:
            return "made"

    app.add_url_rule("/orders", view_func=Orders.as_view("orders"))
    assert [client.post("/orders").status_code for _ in range(2)] == [200, 429]
    assert statuses(client, "/orders", "/orders") == [200, 200]


def test_an_asynchronous_view_is_limited(app: Flask, client: FlaskClient) -> None:
    @app.get("/")
    @limit("1/hour")
    async def page() -> str:
        return str(g.ratelimit.remaining)

    assert [client.get("/").text, client.get("/").status_code] == ["0", 429]


def test_a_view_of_a_blueprint_is_limited(app: Flask, client: FlaskClient) -> None:
    blueprint = Blueprint("api", __name__, url_prefix="/api")

    @blueprint.get("/search")
    @limit("1/hour")
    def search() -> str:
        return "found"

    app.register_blueprint(blueprint)
    assert statuses(client, "/api/search", "/api/search") == [200, 429]


def test_check_limits_all_requests_of_a_blueprint(app: Flask, client: FlaskClient) -> None:
    blueprint = Blueprint("api", __name__, url_prefix="/api")
    blueprint.before_request(limit("2/hour").check)
    for name in ("a", "b"):
        blueprint.add_url_rule(f"/{name}", name, lambda: "ok")
    app.register_blueprint(blueprint)
    app.add_url_rule("/", "page", lambda: "ok")
    assert statuses(client, "/api/a", "/api/b", "/api/a", "/") == [200, 200, 429, 200]


def test_check_limits_all_requests_of_an_application(app: Flask, client: FlaskClient) -> None:
    app.before_request(limit("2/hour", exempt=by_route({"/healthz": True}, default=False)).check)
    app.add_url_rule("/healthz", "healthz", lambda: "ok")
    assert statuses(client, "/unknown", "/static/unknown", "/unknown", "/healthz") == [404, 404, 429, 200]


def test_automatic_replies_of_flask_are_not_charged(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/", "page", limit("1/hour")(lambda: "ok"))
    assert [client.options("/").status_code, client.post("/").status_code] == [200, 405]
    assert statuses(client, "/", "/") == [200, 429]


def test_limits_of_one_decorator_decide_together(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/", "page", limit("5/minute", "2/day")(lambda: "ok"))
    replies = [client.get("/") for _ in range(3)]
    assert [reply.status_code for reply in replies] == [200, 200, 429]
    assert replies[2].headers["RateLimit-Policy"] == '"5/minute";q=5;w=60, "2/day";q=2;w=86400'
    assert json.loads(replies[2].data)["violated-policies"] == ["2/day"]


def test_limits_of_two_decorators_are_both_shown(app: Flask, client: FlaskClient) -> None:
    app.add_url_rule("/", "page", limit("5/minute")(limit("1/day")(lambda: "ok")))
    first, denied = client.get("/"), client.get("/")
    assert first.headers.getlist("RateLimit") == ['"5/minute";r=4;t=12', '"1/day";r=0;t=86400']
    assert (denied.status_code, len(denied.headers.getlist("RateLimit"))) == (429, 2)


def test_a_policy_may_replace_a_rate(app: Flask, client: FlaskClient) -> None:
    shadow = Policy.create("gcra", "1/hour", name="strict", shadow=True)
    app.add_url_rule("/", "page", limit(shadow, "2/hour")(lambda: ",".join(g.ratelimit.shadow)))
    assert [client.get("/").text for _ in range(2)] == ["", "strict"]
    assert client.get("/").status_code == 429


# --- clients and costs


def test_functions_receive_the_request(app: Flask, client: FlaskClient) -> None:
    def is_staff(request: Any) -> bool:
        return bool(request.args.get("staff"))

    def find_user(request: Any) -> str | None:
        return cast("str | None", request.args.get("user"))

    limited = limit("4/hour", key=find_user, exempt=is_staff, cost=lambda request: len(request.args))
    app.add_url_rule("/", "page", limited(lambda: "ok"))
    assert statuses(client, "/?user=a&b=2", "/?user=a&b=2", "/?user=a") == [200, 200, 429]
    assert statuses(client, "/?user=b", "/?user=a&staff=1") == [200, 200]


def test_clients_behind_a_proxy_have_their_own_quotas(app: Flask, client: FlaskClient) -> None:
    identity = Identity(trusted_proxies=["127.0.0.1"])
    app.add_url_rule("/", "page", limit("1/hour", key=identity)(lambda: "ok"))
    for address, status in (("192.0.2.1", 200), ("192.0.2.2", 200), ("192.0.2.1", 429)):
        assert client.get("/", headers={"X-Forwarded-For": address}).status_code == status


def test_requests_of_a_session_or_login_are_found_by_a_function(app: Flask, client: FlaskClient) -> None:
    @app.before_request
    def log_in() -> None:
        g.user = request.headers.get("Authorization")

    app.add_url_rule("/", "page", limit("1/hour", key=lambda request: g.user)(lambda: "ok"))
    for user, expected in (("a", 200), ("b", 200), ("a", 429)):
        assert client.get("/", headers={"Authorization": user}).status_code == expected


# --- the decision


def test_the_decision_is_in_g(app: Flask, client: FlaskClient) -> None:
    seen: list[Decision | None] = []

    @app.get("/")
    @limit("2/hour", exempt=lambda request: "exempt" in request.args)
    def page() -> str:
        seen.append(g.ratelimit)
        return "ok"

    statuses(client, "/", "/?exempt=1")
    decision, none = seen
    assert decision is not None
    assert (decision.allowed, decision.remaining, none) == (True, 1, None)


def test_the_decision_of_the_middleware_is_there_too(app: Flask, client: FlaskClient) -> None:
    app.wsgi_app = RateLimitMiddleware(app.wsgi_app, MemoryLimiter(create("gcra", "9/h")))  # type: ignore[method-assign]
    exempt = limit("5/minute", exempt=lambda request: True)
    app.add_url_rule("/", "page", exempt(lambda: str(g.ratelimit.remaining)))
    app.add_url_rule("/plain", "plain", lambda: str(decision_of(request.environ)))
    assert client.get("/").text == "8"
    assert "remaining=7" in client.get("/plain").text


def test_the_counts_of_a_view_are_those_of_its_gate(app: Flask, client: FlaskClient) -> None:
    view: Any = limit("1/hour")(lambda: "ok")
    app.add_url_rule("/", "page", view)
    statuses(client, "/", "/", "/")
    assert (view.gate.counts.admitted, view.gate.counts.denied) == (1, 2)


# --- errors


def test_an_error_handler_renders_a_denial_with_the_fields_of_the_limit(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(429)
    def render(error: TooManyRequests) -> tuple[str, int]:
        assert isinstance(error, RequestDenied)
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
    @app.errorhandler(RequestDenied)
    def render(error: RequestDenied) -> tuple[str, int, dict[str, str]]:
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
    for each in (app, other):
        for name in ("page", "search"):
            each.add_url_rule(f"/{name}", name, limit("2/hour", store=store.url, name=name)(lambda: "ok"))
    clients = [client, other.test_client()]
    assert [each.get("/page").status_code for _ in range(2) for each in clients] == [200, 200, 429, 429]
    assert statuses(client, "/search") == [200]


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
    assert name_of(view.__wrapped__) == "test_flask.orders 1/hour"
    assert name_of(view) == "orders of shops 2/hour"
    assert name_of(limit("1/hour", store=url)(accented)) == r"test_flask.caf\xe9 1/hour"


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits": ()}, "limits must be rates"),
        ({"limits": ("5 apples",)}, "rate must look like"),
        ({"limits": (5,)}, "limiter must be a limiter"),
        ({"key": "cookie:id"}, "key must be ip or header:NAME"),
        ({"cost": -1}, "cost must be a whole number"),
        ({"max_delay": -1}, "max_delay must be a number of seconds"),
        ({"on_denied": "no"}, "on_denied must be a function of the request, got 'no'"),
        ({"legacy": "yes"}, "legacy headers must be one of"),
        ({"plan": "gold"}, "plan"),
    ],
    ids=str,
)
def test_invalid_arguments_are_rejected_where_the_view_is_defined(arguments: dict[str, Any], message: str) -> None:
    limits = arguments.pop("limits", ("5/minute",))
    with pytest.raises(InputError, match=message):
        limit(*limits, **arguments)(lambda: "ok")


def test_a_class_is_not_a_view() -> None:
    with pytest.raises(InputError, match=r"give a class decorators=\[limit\(...\)\]"):
        limit("5/minute")(MethodView)


def test_check_needs_a_name_in_a_store() -> None:
    with pytest.raises(InputError, match="name must be given with a store"):
        _ = limit("5/minute", store="valkey://localhost").check


def test_threads_share_the_quota_of_a_view(app: Flask) -> None:
    limiter = Watched(burst=20)
    app.add_url_rule("/", "page", limit(limiter)(lambda: jsonify(g.ratelimit.remaining)))
    found: list[int] = []

    def send() -> None:
        client = app.test_client()
        found.extend(client.get("/").status_code for _ in range(8))

    threads = [threading.Thread(target=send) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (found.count(200), found.count(429)) == (20, 12)


def test_a_request_is_refunded_by_the_status_of_an_error_handler(app: Flask, client: FlaskClient) -> None:
    @app.errorhandler(RuntimeError)
    def render(error: RuntimeError) -> tuple[str, int]:
        return "busy", 503

    @app.get("/")
    @limit(MemoryLimiter([Policy.create("gcra", "1/hour")], ManualClock()), charge=lambda request, status: status < 500)
    def page() -> str:
        raise RuntimeError

    assert statuses(client, *["/"] * 3) == [503] * 3
