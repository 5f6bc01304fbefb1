"""The Django middleware and the decorator of views: kinds of views, several limits, and overrides."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

import django
import pytest
from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured
from django.http import Http404, HttpResponse, JsonResponse
from django.template.response import TemplateResponse
from django.test import AsyncClient, Client
from django.utils.decorators import method_decorator
from django.views import View
from django_project import override
from django_views import PEER, User, factory, get, get_in_loop, hello, hello_later, statuses, without_options

from ratelab import ManualClock, MemoryLimiter, create
from ratelab.django import RateLimitMiddleware, ratelimit, responses
from ratelab.http import Identity

pytestmark = pytest.mark.usefixtures("stopped_clock")

no_options = pytest.fixture(autouse=True)(without_options)


def grün(request: Any) -> HttpResponse:
    return HttpResponse("green")


# --- kinds of views


class Page(View):  # type: ignore[misc]
    def get(self, request: Any, *arguments: Any) -> HttpResponse:
        return HttpResponse("page")


class LaterPage(View):  # type: ignore[misc]
    async def get(self, request: Any) -> HttpResponse:
        return HttpResponse("page")


def subclass(page: Any, name: str = "Search", **attributes: Any) -> Any:
    return type(name, (page,), attributes)


def views_of(page: Any) -> list[Any]:
    """Return views of a class, limited in each way."""
    decorated, named, method = (subclass(page) for _ in range(3))
    method.get = method_decorator(ratelimit("2/min"))(page.get)
    direct = subclass(page, get=ratelimit("2/min")(page.get))
    views = [
        ratelimit("2/min")(page.as_view()),
        ratelimit("2/min")(decorated).as_view(),
        method_decorator(ratelimit("2/min"), name="dispatch")(named).as_view(),
        direct.as_view(),
    ]
    # before, a coroutine function is no longer one behind `method_decorator`
    return [*views, method.as_view()] if django.VERSION >= (5, 2) or not page.view_is_async else views


@pytest.mark.parametrize("view", [ratelimit("2/min")(hello), ratelimit("2/min")(hello_later), *views_of(Page)])
def test_a_view_is_limited_under_wsgi(view: Any) -> None:
    responses = [get(view) for _ in range(3)]
    assert [response.status_code for response in responses] == [200, 200, 429]
    assert responses[0]["RateLimit-Policy"].endswith(' 2/min";q=2;w=60')
    assert responses[2]["Retry-After"] == "30"
    assert responses[2]["Content-Type"] == "application/problem+json"


@pytest.mark.parametrize("view", [ratelimit("2/min")(hello_later), *views_of(LaterPage)])
def test_a_coroutine_view_stays_one_and_is_limited_under_asgi(view: Any) -> None:
    assert iscoroutinefunction(view)
    assert [get_in_loop(view).status_code for _ in range(3)] == [200, 200, 429]


class Callee:
    def __call__(self, request: Any) -> HttpResponse:
        return HttpResponse("called")


@pytest.mark.parametrize(("view", "name"), [(Callee(), "Callee"), (partial(hello), "hello"), (grün, r"gr\\xfcn")])
def test_any_object_that_can_be_called_is_a_view(view: Any, name: str) -> None:
    limited = ratelimit("2/min")(view)
    assert [get(limited)["RateLimit-Policy"] for _ in range(2)] == [f'"{name} 2/min";q=2;w=60'] * 2


def test_each_view_of_a_decorator_has_its_own_quota() -> None:
    limit = ratelimit("1/min")
    pages = [subclass(Page, name) for name in ("First", "Second")]
    for page in pages:
        method_decorator(limit, name="dispatch")(page)
    views = [limit(hello), limit(hello_later), *(page.as_view() for page in pages)]
    assert [statuses(view, 2) for view in views] == [[200, 429]] * 4


def test_a_subclass_of_a_limited_view_has_its_own_quota() -> None:
    base = ratelimit("1/min")(subclass(Page))
    below = subclass(base, "Below")
    assert [statuses(page.as_view(), 2) for page in (base, below)] == [[200, 429]] * 2


def test_views_share_the_quota_of_a_limiter() -> None:
    limiter = MemoryLimiter(create("token-bucket", "2/min"), ManualClock())
    views = [ratelimit(limiter)(view) for view in (hello, hello_later)]
    assert [get(view).status_code for view in [*views, *views]] == [200, 200, 429, 429]


def test_arguments_of_the_route_reach_the_view() -> None:
    view: Any = ratelimit("5/min")(lambda request, number, *, name: HttpResponse(f"{number} {name}"))
    assert view(factory.get("/"), 7, name="seven").content == b"7 seven"


def test_a_template_response_is_limited_before_it_is_rendered() -> None:
    response = get(ratelimit("5/min")(lambda request: TemplateResponse(request, "missing.html")))
    assert "RateLimit" in response
    assert not response.is_rendered


# --- several limits, and responses


def test_the_fields_of_middleware_and_decorator_are_joined() -> None:
    with override(RATE="100/hour", LEGACY="delta"):
        view = RateLimitMiddleware(ratelimit("1/min")(hello))
        admitted, denied = get(view), get(view)
    assert admitted["RateLimit-Policy"] == '"hello 1/min";q=1;w=60, "100/hour";q=100;w=3600'
    assert admitted["RateLimit"] == '"hello 1/min";r=0;t=60, "100/hour";r=99;t=36'
    assert denied["RateLimit"] == '"hello 1/min";r=0;t=60, "100/hour";r=99;t=36'
    assert [denied[f"X-RateLimit-{name}"] for name in ("Limit", "Remaining", "Reset")] == ["1", "0", "60"]


@pytest.mark.parametrize("direct", [True, False])
def test_fields_are_joined_with_those_of_the_application(direct: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(responses, "_KNOWS_STORE", direct)
    present = {"ratelimit-policy": '"mine";q=9', "RATELIMIT": '"mine";r=8;t=7', "X-Else": "kept"}
    view = ratelimit("5/min")(lambda request: HttpResponse(headers=present if "HTTP_X_MINE" in request.META else None))
    for _ in range(2):  # the second time as a known peer
        plain, joined = get(view), get(view, HTTP_X_MINE="1")
    assert plain["RateLimit-Policy"] == '"<lambda> 5/min";q=5;w=60'
    assert joined["RateLimit-Policy"] == '"mine";q=9, "<lambda> 5/min";q=5;w=60'
    assert joined["RateLimit"] == '"mine";r=8;t=7, "<lambda> 5/min";r=1;t=48'
    assert (joined["X-Else"], plain["RateLimit"]) == ("kept", '"<lambda> 5/min";r=2;t=36')


def test_the_headers_of_this_version_of_django_are_known() -> None:
    assert responses.knows_store()


def test_the_decision_of_the_innermost_limit_is_on_the_request() -> None:
    seen = []

    def view(request: Any) -> HttpResponse:
        seen.append(request.ratelimit.remaining)
        return HttpResponse()

    with override(RATE="100/hour"):
        for middleware in (RateLimitMiddleware(view), RateLimitMiddleware(ratelimit("5/min")(view))):
            assert statuses(middleware, 2) == [200, 200]
    assert seen == [99, 98, 4, 3]


@pytest.mark.parametrize("view", [hello, hello_later])
def test_the_decision_is_on_a_denied_request_for_middleware_around(view: Any) -> None:
    limited, request = ratelimit("1/min")(view), factory.get("/")
    responses = [limited(request) for _ in range(2)]
    if view is hello_later:
        responses = [asyncio.run(response) for response in responses]
    assert (responses[1].status_code, request.ratelimit.allowed) == (429, False)


def test_the_decision_on_an_exempt_request_is_none_or_that_of_another_limit() -> None:
    exempt = ratelimit("5/min", exempt=lambda request: True)
    view = exempt(lambda request: JsonResponse([request.ratelimit and request.ratelimit.remaining], safe=False))
    assert get(view).content == b"[null]"
    with override(RATE="100/hour"):
        assert get(RateLimitMiddleware(view)).content == b"[99]"


@pytest.mark.parametrize("response_kind", [HttpResponse, JsonResponse])
def test_a_custom_response_to_denied_requests_gets_the_fields(response_kind: Any) -> None:
    def answer(request: Any, decision: Any) -> Any:
        response = response_kind({"error": decision.bound_by}, status=420, headers={"Cache-Control": "private"})
        response.set_cookie("seen", "1")
        return response

    view = ratelimit("1/min", on_denied=answer)(hello)
    _, denied = get(view), get(view)
    assert (type(denied), denied.status_code, denied["Cache-Control"]) == (response_kind, 420, "private")
    assert (denied["Retry-After"], denied["RateLimit"]) == ("60", '"hello 1/min";r=0;t=60')
    assert denied.cookies["seen"].value == "1"


@pytest.mark.parametrize("view", [hello, hello_later])
def test_requests_are_refunded_by_the_status_of_their_response(view: Any) -> None:
    limited = ratelimit("2/min", charge=lambda request, status: status != 200)(view)
    assert statuses(limited, 4) == [200] * 4


@pytest.mark.parametrize(("error", "status"), [(Http404(), 404), (ImproperlyConfigured(), 500)])
def test_an_exception_of_a_view_counts_as_its_status(error: Exception, status: int) -> None:
    found = []

    def view(request: Any) -> HttpResponse:
        raise error

    def charge(request: Any, status: int) -> bool:
        found.append(status)
        return False

    limited = ratelimit("1/min", charge=charge)(view)
    for _ in range(2):
        with pytest.raises(type(error)):
            get(limited)
    assert found == [status] * 2


def test_routes_choose_the_cost_and_exemptions() -> None:
    with override(RATE="1/min", EXEMPT=["/healthz"], COST={"/export": 2}):
        view = RateLimitMiddleware(hello)
        found = [view(factory.get(path)).status_code for path in ("/healthz", "/export", "/a", "/b", "/healthz")]
    assert found == [200, 400, 200, 429, 200]


# --- overrides of settings


def test_an_override_of_the_settings_takes_effect_and_ends() -> None:
    client = Client()
    with override(RATE="1/min"):
        assert [client.get("/ping").status_code for _ in range(2)] == [200, 429]
        with override(RATE="2/min"):
            assert [client.get("/ping").status_code for _ in range(3)] == [200, 200, 429]
        assert [client.get("/ping").status_code for _ in range(2)] == [200, 429]


def test_an_override_changes_the_client_of_decorated_views() -> None:
    view = ratelimit("1/min")(hello)
    assert statuses(view, 2, HTTP_X_API_KEY="alice") == [200, 429]
    with override(KEY="header:X-API-Key"):
        assert [get(view, HTTP_X_API_KEY=key).status_code for key in ("alice", "bob", "bob")] == [200, 200, 429]


def test_another_key_of_a_view_keeps_the_proxies_of_the_project() -> None:
    for proxies in ({"KEY": Identity("ip", [PEER])}, {"TRUSTED_PROXIES": [PEER]}):
        with override(**proxies):
            view = ratelimit("1/min", key="user")(hello)
            found = [get(view, HTTP_X_FORWARDED_FOR=client).status_code for client in ("1.2.3.4", "5.6.7.8", "1.2.3.4")]
            assert found == [200, 200, 429]
            assert statuses(view, 2, User(1), HTTP_X_FORWARDED_FOR="1.2.3.4") == [200, 429]


def test_the_test_clients_of_django_are_limited_without_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    async def send() -> list[int]:
        client = AsyncClient()
        return [(await client.get("/ping")).status_code for _ in range(2)]

    with override(RATE="1/min"):
        assert asyncio.run(send()) == [200, 429]
        assert [client.get("/ping").status_code for client in [Client()] * 2] == [200, 429]
    assert [record for record in caplog.records if record.name.startswith("ratelab")] == []
