"""Throttles of Django REST framework: rates, clients, waits, refunds and header fields."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from django.test import override_settings
from django_project import override
from rest_framework.response import Response
from rest_framework.test import APIRequestFactory, force_authenticate
from rest_framework.views import APIView

from ratelab import ManualClock, MemoryLimiter, create
from ratelab.django.rest import AnonRateThrottle, RateThrottle, ScopedRateThrottle, UserRateThrottle
from ratelab.errors import StoreError
from ratelab.http import Identity

pytestmark = pytest.mark.usefixtures("stopped_clock")

factory = APIRequestFactory()


class User:
    def __init__(self, pk: int | None) -> None:
        self.pk, self.is_authenticated = pk, pk is not None


@pytest.fixture(autouse=True)
def shared_options() -> Iterator[None]:
    with override():
        yield


def view_with(*throttles: type, **attributes: Any) -> Any:
    def get(self: Any, request: Any) -> Response:
        return Response("ok")

    fields = {"throttle_classes": throttles, "get": get, "authentication_classes": (), "permission_classes": ()}
    view: Any = type("View", (APIView,), fields | attributes)
    return view.as_view()


def call(view: Any, user: User | None = None, **headers: Any) -> Any:
    request = factory.get("/", **headers)
    if user is not None:
        force_authenticate(request, user)
    response = view(request)
    response.render()
    return response


def throttle(base: type = RateThrottle, **attributes: Any) -> Any:
    return type("Throttle", (base,), attributes)


def statuses(view: Any, count: int, *arguments: Any, **headers: Any) -> list[int]:
    return [call(view, *arguments, **headers).status_code for _ in range(count)]


def limited(rate: str = "2/min", clock: ManualClock | None = None, algorithm: str = "token-bucket") -> Any:
    """Return a throttle with a limiter on a clock that stands still."""
    return throttle(limiter=MemoryLimiter(create(algorithm, rate), clock or ManualClock()))


def test_a_denied_request_gets_the_response_of_the_framework_with_the_wait() -> None:
    clock = ManualClock()
    view = view_with(limited("7/min", clock))
    assert statuses(view, 8) == [200] * 7 + [429]
    clock.advance(10**9)
    denied = call(view)
    assert denied.data["detail"] == "Request was throttled. Expected available in 8 seconds."
    assert denied["Retry-After"] == "8"
    assert denied["RateLimit"] == '"token-bucket";r=0;t=8'
    assert denied["Cache-Control"] == "no-store"
    clock.advance(8 * 10**9)
    assert statuses(view, 2) == [200, 429]


def test_the_wait_is_that_of_the_throttle_that_denies_longest() -> None:
    view = view_with(limited("1/min"), limited("1/hour"), limited("1/s"))
    assert statuses(view, 1) == [200]
    assert call(view)["Retry-After"] == "3600"


@pytest.mark.parametrize("algorithm", ["token-bucket", "gcra", "fixed-window", "sliding-log", "sliding-counter"])
def test_a_denied_request_is_refunded_by_the_other_throttles(algorithm: str) -> None:
    first, denying, last = (limited(rate, algorithm=algorithm) for rate in ("5/hour", "1/hour", "5/hour"))
    view = view_with(first, denying, last)
    assert statuses(view, 4) == [200, 429, 429, 429]
    for other in (first, last):
        assert other.limiter.look("any")[algorithm].remaining == 5
        assert statuses(view_with(other), 5) == [200] * 4 + [429]


def test_the_fields_of_all_throttles_are_on_admitted_responses() -> None:
    view = view_with(throttle(rate="5/m", scope="one"), throttle(rate="100/day", scope="two"))
    response = call(view)
    assert response["RateLimit-Policy"] == '"one 5/m";q=5;w=60, "two 100/day";q=100;w=86400'
    assert response["RateLimit"] == '"one 5/m";r=4;t=12, "two 100/day";r=99;t=864'


def test_only_throttles_that_deny_report_a_state() -> None:
    view = view_with(throttle(rate="5/m", scope="three"), throttle(rate="1/h", scope="four"))
    _, denied = call(view), call(view)
    assert denied["RateLimit"] == '"four 1/h";r=0;t=3600'
    assert denied["RateLimit-Policy"].startswith('"three 5/m";q=5;w=60, "four')


# --- rates and clients


@pytest.mark.parametrize(
    ("rate", "shown"),
    [("5/s", 1), ("5/sec", 1), ("5/m", 60), ("5/min", 60), ("5/minute", 60), ("5/h", 3600), ("5/d", 86400)],
)
def test_rates_are_spelled_as_in_the_framework(rate: str, shown: int) -> None:
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"user": rate}}):
        assert call(view_with(throttle(UserRateThrottle)))["RateLimit-Policy"] == f'"user {rate}";q=5;w={shown}'


def test_a_rate_of_none_limits_nothing() -> None:
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"user": None}}):
        response = call(view_with(throttle(UserRateThrottle)))
    assert "RateLimit" not in response


def test_users_and_anonymous_addresses_have_quotas_of_their_own() -> None:
    view = view_with(throttle(rate="1/min"))
    assert statuses(view, 2, User(1)) == [200, 429]
    assert statuses(view, 2, User(2)) == [200, 429]
    assert statuses(view, 2) == [200, 429]
    assert statuses(view, 2, REMOTE_ADDR="192.0.2.9") == [200, 429]


def test_the_throttle_for_anonymous_clients_lets_users_pass() -> None:
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": {"anon": "1/min"}}):
        view = view_with(throttle(AnonRateThrottle))
        assert statuses(view, 2) == [200, 429]
        assert statuses(view, 3, User(1)) == [200] * 3


def test_a_scope_of_a_view_chooses_its_rate() -> None:
    rates = {"search": "1/min", "upload": "2/min"}
    with override_settings(REST_FRAMEWORK={"DEFAULT_THROTTLE_RATES": rates}):
        scoped = throttle(ScopedRateThrottle)
        search, upload = (view_with(scoped, throttle_scope=scope) for scope in rates)
        assert statuses(search, 2) == [200, 429]
        assert statuses(upload, 3) == [200, 200, 429]
        assert statuses(view_with(scoped, throttle_scope="search"), 1) == [429]
        assert statuses(view_with(scoped), 3) == [200] * 3


def test_an_api_key_identifies_the_client() -> None:
    view = view_with(throttle(rate="1/min", key="header:X-API-Key"))
    assert statuses(view, 2, HTTP_X_API_KEY="alice") == [200, 429]
    assert statuses(view, 1, HTTP_X_API_KEY="bob") == [200]


def test_functions_of_a_throttle_take_the_request() -> None:
    view = view_with(throttle(rate="4/min", cost=lambda request: int(request.query_params.get("cost", "2"))))
    assert statuses(view, 3) == [200, 200, 429]


def test_forged_addresses_are_not_clients() -> None:
    view = view_with(throttle(rate="1/min"))
    assert [call(view, HTTP_X_FORWARDED_FOR=f"192.0.2.{n}").status_code for n in (1, 2)] == [200, 429]


def test_the_proxies_of_the_project_are_respected() -> None:
    for proxies in ({"KEY": Identity("ip", ["127.0.0.1"])}, {"TRUSTED_PROXIES": ["127.0.0.1"]}, {"TRUSTED_HOPS": 1}):
        with override(**proxies), override_settings(REST_FRAMEWORK={"NUM_PROXIES": 0}):
            view = view_with(throttle(rate="1/min"))
            found = [call(view, HTTP_X_FORWARDED_FOR=f"192.0.2.{n}").status_code for n in (1, 2, 1)]
        assert found == [200, 200, 429]


def test_the_number_of_proxies_of_the_framework_is_respected() -> None:
    with override_settings(REST_FRAMEWORK={"NUM_PROXIES": 1}):
        view = view_with(throttle(rate="1/min"))
        found = [call(view, HTTP_X_FORWARDED_FOR=f"192.0.2.{n}").status_code for n in (1, 2, 1)]
    assert found == [200, 200, 429]


# --- requests that cannot be decided, and invalid throttles


class Down(MemoryLimiter):
    def hit_row(self, key: Any, cost: Any = 1) -> Any:
        raise StoreError("down", "no store", 2 * 10**9)


def test_a_store_that_is_down_is_503_with_the_wait() -> None:
    response = call(view_with(throttle(limiter=Down(create("gcra", "1/s")))))
    assert (response.status_code, response["Retry-After"]) == (503, "2")


def test_a_cost_above_the_burst_is_400() -> None:
    response = call(view_with(throttle(rate="1/min", cost=2)))
    assert (response.status_code, response.data["detail"].code) == (400, "parse_error")


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({}, "Throttle needs a rate or a scope: set rate = '5/minute'"),
        ({"scope": "unknown"}, "no rate of the scope 'unknown': add it to DEFAULT_THROTTLE_RATES"),
        ({"rate": "five"}, "Throttle: rate must look like"),
        ({"rate": "5/min", "key": "users"}, "Throttle: KEY must be ip, user, .* did you mean 'user'"),
    ],
)
def test_an_invalid_throttle_is_reported_in_one_line(attributes: dict[str, Any], message: str) -> None:
    with pytest.raises(ImproperlyConfigured, match=message) as caught:
        call(view_with(throttle(**attributes)))
    assert "\n" not in str(caught.value)
