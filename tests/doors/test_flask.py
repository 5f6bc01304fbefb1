"""Limits of views of Flask: their scope, the decision, error handlers, and stores."""

from __future__ import annotations

import json
import threading
from typing import Any, cast

import pytest
from flask import Blueprint, Flask, g, jsonify, request
from flask.testing import FlaskClient
from flask.views import MethodView
from flask_apps import statuses
from limited_apps import Watched

from ratelab import InputError, ManualClock, MemoryLimiter, Policy, create
from ratelab.flask import limit
from ratelab.http import Identity, by_route
from ratelab.limiter import Decision
from ratelab.wsgi import RateLimitMiddleware, decision_of

pytestmark = pytest.mark.usefixtures("stopped_clock")

pytest_plugins = ("flask_apps",)


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


def test_a_function_may_choose_the_limiter(app: Flask, client: FlaskClient) -> None:
    few, many = (MemoryLimiter(create("token-bucket", rate)) for rate in ("1/hour", "2/hour"))
    app.add_url_rule("/", "page", limit(lambda request: many if "paid" in request.args else few)(lambda: "ok"))
    assert statuses(client, "/", "/", "/?paid=1", "/?paid=1", "/?paid=1") == [200, 429, 200, 200, 429]


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


# --- arguments


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"limits": ()}, "limits must be rates"),
        ({"limits": ("5 apples",)}, "rate must look like"),
        ({"limits": (5,)}, "limits must be rates such as '5/minute', policies or one limiter, got 5"),
        ({"key": "cookie:id"}, "key must be ip, header:NAME such as"),
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


def test_a_view_with_a_parameter_and_a_limit_without_a_rate_is_an_error_at_its_route(app: Flask) -> None:
    with pytest.raises(AttributeError, match=r"a limit is not a view: write @limit\('5/minute'\)"):
        app.get("/<name>")(limit(lambda name: name))


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


# --- clients that are known by their address


def test_the_fields_of_a_known_client_follow_its_quota_and_time(app: Flask, client: FlaskClient) -> None:
    client.environ_base["REMOTE_ADDR"] = "192.0.2.1"
    limiter = Watched(burst=3)  # of 2/s
    app.add_url_rule("/", "page", limit(limiter)(lambda: "ok"))
    fields = [client.get("/").headers["RateLimit"].partition(";")[2] for _ in range(4)]
    assert fields == ["r=2;t=1", "r=1;t=1", "r=0;t=2", "r=0;t=1"]
    assert statuses(client, "/") == [429]


def test_a_known_client_waits_for_its_turn_in_a_queue(app: Flask, client: FlaskClient) -> None:
    client.environ_base["REMOTE_ADDR"] = "192.0.2.1"
    view = limit(MemoryLimiter(create("leaky-bucket", "200/s", 5), ManualClock()))(lambda: "ok")
    app.add_url_rule("/", "page", view)
    assert statuses(client, *"////") == [200] * 4
    assert cast("Any", view).gate.counts.delayed == 3


def test_a_decorator_without_its_rate_is_one_line() -> None:
    with pytest.raises(InputError, match=r"a limit needs a rate, got <function .*: write @limit\('5/minute'\) above a"):
        limit(lambda: "a view")  # type: ignore[arg-type, misc]


def test_a_limit_of_all_requests_is_called_by_its_check() -> None:
    with pytest.raises(InputError, match=r"got none: write limit\(...\)\.check for before_request"):
        limit("5/minute")()
