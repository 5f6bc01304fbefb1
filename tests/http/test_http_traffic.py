"""`/ping` under random traffic: every response keeps the contract, and waiting for `Retry-After` is enough."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest
from asgi import AsgiResponse, request, scope_of
from response_headers import parse_limits
from slow_parameters import mark_slow

from ratelab import Algorithm, ManualClock, MemoryLimiter, Policy, Quota, create
from ratelab.algorithms import build_policy
from ratelab.http.app import is_health_check, ping_app
from ratelab.http.asgi import App
from ratelab.http.middleware import RateLimitMiddleware
from ratelab.quota import NS_PER_S

METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
PATHS = ("/ping", "/ping", "/healthz", "/", "/ping/", "/PING", "/favicon.ico")
EXTRA_HEADERS = ("", "Origin: https://elsewhere.example\nAccess-Control-Request-Method: POST")
SLEEP = "ratelab.http.delayed_admission.asyncio.sleep"


async def skip_sleep(seconds: float) -> None:
    """Return at once."""


class LimitedSite:
    """`/ping` and `/healthz` behind a limiter with a manual clock."""

    def __init__(self, policy: Policy) -> None:
        self.clock = ManualClock()
        self.limiter = MemoryLimiter(policy, self.clock)
        self.app: App = RateLimitMiddleware(ping_app, self.limiter, exempt=is_health_check)

    async def send(self, peer: str, method: str = "GET", path: str = "/ping", headers: str = "") -> AsgiResponse:
        return await request(self.app, scope_of(peer, headers, method, path))


# --- every response


def check_page(response: AsgiResponse, method: str, path: str) -> None:
    """Check the response of the site to an admitted request."""
    known = path in ("/ping", "/healthz")
    assert response.status == (404 if not known else 200 if method in ("GET", "HEAD") else 405)
    assert response.of("allow") == (["GET, HEAD"] if response.status == 405 else [])
    assert response.of("retry-after") == []
    check_body(response, method)


def check_body(response: AsgiResponse, method: str) -> None:
    """Check that an error is a problem with its status, and that `Content-Length` is right."""
    failed = response.status >= 400
    assert response.of("content-type") == ["application/problem+json" if failed else "application/json"]
    assert response.of("cache-control") == (["no-store"] if failed else [])
    if method == "HEAD":
        assert (response.body, response.of("content-length")[0].isdecimal()) == (b"", True)
        return
    content = json.loads(response.body)
    assert content["status"] == response.status if failed else content in ({"message": "pong"}, {"status": "ok"})
    assert response.of("content-length") == [str(len(response.body))]


async def check_burst(site: LimitedSite, peer: str, draw: random.Random) -> AsyncIterator[int]:
    """Send a client's requests at one instant, check the responses, and yield their statuses."""
    before: int | None = None
    for _ in range(draw.randint(1, 12)):
        method, path = draw.choice(METHODS), draw.choice(PATHS)
        response = await site.send(peer, method, path, draw.choice(EXTRA_HEADERS))
        yield response.status
        if path == "/healthz":
            assert {name for name, _ in response.fields} <= {
                b"content-type",
                b"content-length",
                b"allow",
                b"cache-control",
            }
            check_page(response, method, path)
            continue
        limit = parse_limits(response.fields)
        assert limit[:3] == ("token-bucket", 5, 3)
        assert before is None or limit.r == max(0, before - 1)
        assert before is None or (response.status == 429) == (before == 0)
        before = limit.r
        if response.status == 429:
            assert (limit.r, limit.retry_after) == (0, limit.t)
            check_body(response, method)
        else:
            check_page(response, method, path)


@pytest.mark.slow
def test_ten_thousand_responses_keep_the_contract() -> None:
    site, draw = LimitedSite(create("token-bucket", "2/s", burst=5)), random.Random(6)
    peers = [f"192.0.2.{number}" for number in range(20)] + [f"2001:db8:0:{number}::1" for number in range(20)]

    async def send_all() -> list[int]:
        statuses: list[int] = []
        while len(statuses) < 10_000:
            statuses += [status async for status in check_burst(site, draw.choice(peers), draw)]
            site.clock.advance(draw.randrange(NS_PER_S // 10))
        return statuses

    statuses = asyncio.run(send_all())
    assert {status for status, times in Counter(statuses).items() if times > 500} == {200, 404, 405, 429}


# --- waiting for Retry-After


QUOTAS = [Quota.parse("7/13s", burst=5), Quota.parse("2/s", burst=5), Quota.parse("1000/s", burst=3)]


async def exhaust_and_wait(site: LimitedSite, peer: str) -> None:
    """Use up a client's quota; check that waiting for `Retry-After` is enough, and a second less is not."""
    while (response := await site.send(peer)).status == 200:
        pass
    retry_after = parse_limits(response.fields).retry_after
    assert retry_after is not None
    site.clock.advance((retry_after - 1) * NS_PER_S)
    assert (await site.send(peer)).status == 429
    site.clock.advance(NS_PER_S)
    assert (await site.send(peer)).status == 200


def check_retry_after(kind: type[Algorithm], quota: Quota, clients: int = 50, cycles: int = 20) -> None:
    site, draw = LimitedSite(build_policy(kind, quota)), random.Random(7)

    async def send_all() -> None:
        for peer in (f"192.0.2.{number}" for number in range(clients)):
            for _ in range(cycles):
                await exhaust_and_wait(site, peer)
                site.clock.advance(draw.randrange(NS_PER_S))

    with patch(SLEEP, skip_sleep):
        asyncio.run(send_all())


@pytest.mark.parametrize("quota", mark_slow(QUOTAS, QUOTAS[:1]), ids=str)
def test_retry_after_is_enough_and_a_second_less_is_not(kind: type[Algorithm], quota: Quota) -> None:
    check_retry_after(kind, quota)
