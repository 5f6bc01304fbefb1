"""Requests that policies count: keys, accounts, routes, costs, and the status of the response."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from asgi import call, request, scope_of
from limited_apps import Handler

from ratelab import InputError, ManualClock, MemoryLimiter, Policy
from ratelab.errors import StoreError
from ratelab.http import Identity, RateLimitMiddleware
from ratelab.http.asgi import Receive, Scope, Send


def limited(*policies: Policy, app: Any = None, **arguments: Any) -> RateLimitMiddleware:
    """Limit an application, by default a handler, by policies on a clock that stands still."""
    return RateLimitMiddleware(app or Handler(), MemoryLimiter([*policies], ManualClock()), **arguments)


def policy(name: str, burst: int = 2, **fields: Any) -> Policy:
    return Policy.create("token-bucket", "1/min", burst=burst, name=name, **fields)


# --- keys


def test_policies_count_addresses_headers_accounts_and_all_clients() -> None:
    app = limited(
        policy("client", 3),
        policy("address", 4, key="ip"),
        policy("account", 5, key="account"),
        policy("everyone", 6, key="all"),
        key="header:X-API-Key",
        account="header:X-Account",
    )

    def bound_by(key: str, account: str, peer: str) -> list[str]:
        response = call(app, peer, headers=f"X-API-Key: {key}\nX-Account: {account}")
        return [] if response.status == 200 else json.loads(response.body)["violated-policies"]

    assert [bound_by("a", "acme", "192.0.2.1") for _ in range(4)] == [[], [], [], ["client"]]
    assert [bound_by(key, "acme", "192.0.2.1") for key in "bc"] == [[], ["address"]]
    assert [bound_by(key, "acme", "192.0.2.2") for key in "de"] == [[], ["account"]]
    assert [bound_by(key, "other", "192.0.2.3") for key in "fg"] == [[], ["everyone"]]


def test_a_policy_may_count_by_a_header_with_the_proxies_and_secret_of_the_identity() -> None:
    identity = Identity("ip", trusted_proxies=["10.0.0.1"], secret="one")  # noqa: S106  (not used elsewhere)
    app = limited(policy("token", 1, key="header:X-Token"), policy("address", 9), key=identity)

    def status(headers: str) -> int:
        return call(app, "10.0.0.1", headers=headers).status

    assert [status("X-Token: a"), status("X-Token: a"), status("X-Token: b")] == [200, 429, 200]
    assert [status(f"X-Forwarded-For: 192.0.2.{n}") for n in (7, 7, 8)] == [200, 429, 200]  # without it, the address


def test_an_account_may_be_found_by_a_function() -> None:
    app = limited(policy("account", 1, key="account"), account=lambda scope: scope["path"])
    assert [call(app, path=path).status for path in ("/a", "/a", "/b")] == [200, 429, 200]


def test_a_repeated_header_of_a_policy_is_answered_400_and_charges_nothing() -> None:
    app = limited(policy("client", 1), policy("token", key="header:X-Token"))
    assert call(app, headers="X-Token: a\nX-Token: b").status == 400
    assert call(app, headers="X-Token: a").status == 200
    assert app.counts.ambiguous == 1


# --- routes


def test_a_policy_applies_to_its_route_alone() -> None:
    app = limited(policy("all", 5), policy("login", 1, match="POST /login"), policy("items", 2, match="/items/{id}"))
    listed = [
        call(app, path="/").of("ratelimit-policy"),
        call(app, method="POST", path="/login").of("ratelimit-policy"),
    ]
    assert listed == [['"all";q=5;w=300'], ['"all";q=5;w=300, "login";q=1;w=60']]
    assert [call(app, method=method, path="/login").status for method in ("GET", "POST")] == [200, 429]
    assert [call(app, path=f"/items/{n}").status for n in (1, 2, 3)] == [200, 200, 429]


def test_a_request_that_no_policy_applies_to_is_neither_limited_nor_counted() -> None:
    app = limited(policy("login", 1, match="POST /login"))
    assert [call(app).of("ratelimit") for _ in range(3)] == [[], [], []]
    assert app.counts.admitted == 0


def test_a_policy_with_its_own_cost_may_apply_to_one_route() -> None:
    points = policy("points", 10, cost="points", match="POST /graphql")
    app = limited(policy("all", 9), points, costs={"points": lambda scope: 6})
    assert [call(app, path="/").status for _ in range(3)] == [200] * 3
    assert [call(app, method="POST", path="/graphql").status for _ in range(2)] == [200, 429]


# --- costs


def test_policies_charge_their_own_costs() -> None:
    app = limited(policy("requests", 5), policy("points", 10, cost="points"), costs={"points": lambda scope: 4})
    first, second, third = (call(app) for _ in range(3))
    assert first.of("ratelimit-policy") == ['"requests";q=5;w=300, "points";q=10;qu="points";w=600']
    assert first.of("ratelimit") == ['"requests";r=4;t=60, "points";r=6;t=240']
    assert (second.status, third.of("ratelimit")) == (200, ['"points";r=0;t=120'])


def test_the_cost_of_requests_is_that_of_the_middleware() -> None:
    app = limited(policy("requests", 5), policy("other", 9), cost=lambda scope: 2)
    assert call(app).of("ratelimit") == ['"requests";r=3;t=120']


def test_bytes_are_the_content_length() -> None:
    app = limited(policy("requests", 9), policy("bytes", 100, cost="bytes"))
    assert [call(app, headers=f"Content-Length: {n}").status for n in (60, 40, 1)] == [200, 200, 429]
    assert call(app).status == 200  # without a body
    assert call(app, headers="Content-Length: 101").status == 400


@pytest.mark.parametrize("headers", ["Transfer-Encoding: chunked", "Content-Length: 1\nContent-Length: 2"])
def test_a_body_of_unknown_length_is_answered_411(headers: str) -> None:
    app = limited(policy("bytes", 100, cost="bytes"))
    assert call(app, headers=headers).status == 411
    assert app.counts.ambiguous == 1


def test_http_2_needs_a_length_for_methods_with_a_body() -> None:
    app = limited(policy("bytes", 100, cost="bytes"))
    posted, read = scope_of(method="POST"), scope_of()
    posted["http_version"] = read["http_version"] = "2"
    assert [asyncio.run(request(app, scope)).status for scope in (posted, read)] == [411, 200]


def test_an_invalid_cost_raises_with_a_remedy() -> None:
    app = limited(policy("points", cost="points"), costs={"points": lambda scope: 1.5})
    with pytest.raises(
        InputError, match=r"cost must be a whole number >= 0, got 1.5: use an int, or 0 for a free request"
    ):
        call(app)


# --- charge by status


class Status(Handler):
    """A handler that answers the status in the path."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.start = {**self.start, "status": int(scope["path"][1:])}
        await super().__call__(scope, receive, send)


def test_only_failures_are_charged() -> None:
    app = limited(policy("login", 2), policy("day", 9), app=Status(), charge=lambda scope, status: status == 401)
    assert [call(app, path=path).status for path in ("/200", "/200", "/200", "/401", "/401", "/200")] == [
        *(200, 200, 200, 401, 401),
        429,
    ]


def test_only_successes_are_charged() -> None:
    app = limited(policy("uploads", 1), app=Status(), charge=lambda scope, status: status < 400)
    assert [call(app, path=path).status for path in ("/500", "/404", "/201", "/404")] == [500, 404, 201, 429]


def test_a_shadow_policy_that_would_have_denied_is_not_refunded() -> None:
    app = limited(
        policy("login", 9), policy("tight", 1, shadow=True), app=Status(), charge=lambda _, status: status > 300
    )
    assert [call(app, path=path).status for path in ("/401", "/200", "/401")] == [401, 200, 401]
    assert app.counts.policies["tight"].denied == 2


def test_an_exception_of_the_application_counts_as_500() -> None:
    async def fail(scope: Scope, receive: Receive, send: Send) -> None:
        raise ZeroDivisionError

    seen: list[int] = []

    def note(scope: Scope, status: int) -> bool:
        seen.append(status)
        return False

    app = limited(policy("uploads", 1), app=fail, charge=note)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            call(app)
    assert seen == [500, 500]


def test_a_refund_that_the_store_does_not_confirm_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Failing(MemoryLimiter):
        def refund(self, *arguments: object) -> None:
            raise StoreError("timeout", "no reply")

    limiter = Failing([policy("login", 2)], ManualClock())
    app = RateLimitMiddleware(Handler(), limiter, charge=lambda scope, status: False)
    assert call(app).status == 200
    assert caplog.messages == ["a request that should be refunded stays charged (timeout: no reply)"]


def test_charge_must_return_true_or_false() -> None:
    with pytest.raises(InputError, match="charge must return True or False, got 1"):
        call(limited(policy("login"), charge=lambda scope, status: 1))
