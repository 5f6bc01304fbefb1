"""`/ping` behind the middleware under traffic: every answer keeps the contract, and waiting as told is enough."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from unittest.mock import patch

import pytest
from asgi import Answer, request, scope_of
from response_headers import limits

from ratelab import Algorithm, ManualClock, MemoryLimiter, Quota, create
from ratelab.http.app import is_health_check, ping_app
from ratelab.http.asgi import App
from ratelab.http.middleware import RateLimitMiddleware

SECOND = 10**9
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH")
PATHS = ("/ping", "/ping", "/healthz", "/", "/ping/", "/PING", "/favicon.ico")
ORIGINS = ("", "Origin: https://elsewhere.example\nAccess-Control-Request-Method: POST")
SLEEP = "ratelab.http.middleware.asyncio.sleep"


async def at_once(seconds: float) -> None:
    """Sleep no time at all."""


class Site:
    """`/ping` and `/healthz` held to a quota, on a clock that is moved by hand."""

    def __init__(self, algorithm: Algorithm) -> None:
        self.clock = ManualClock()
        self.limiter = MemoryLimiter(algorithm, self.clock)
        self.app: App = RateLimitMiddleware(ping_app, self.limiter, exempt=is_health_check)

    async def ask(self, peer: str, method: str = "GET", path: str = "/ping", headers: str = "") -> Answer:
        return await request(self.app, scope_of(peer, headers, method, path))


# --- every answer


def check_the_page(answer: Answer, method: str, path: str) -> None:
    """Check for what the site says to those who are let through."""
    known = path in ("/ping", "/healthz")
    assert answer.status == (404 if not known else 200 if method in ("GET", "HEAD") else 405)
    assert answer.of("allow") == (["GET, HEAD"] if answer.status == 405 else [])
    assert answer.of("retry-after") == []
    check_the_body(answer, method)


def check_the_body(answer: Answer, method: str) -> None:
    """Check that an error is a problem which says its status, and that a body is as long as it is said to be."""
    failed = answer.status >= 400
    assert answer.of("content-type") == ["application/problem+json" if failed else "application/json"]
    assert answer.of("cache-control") == (["no-store"] if failed else [])
    if method == "HEAD":
        assert (answer.body, answer.of("content-length")[0].isdecimal()) == (b"", True)
        return
    told = json.loads(answer.body)
    assert told["status"] == answer.status if failed else told in ({"message": "pong"}, {"status": "ok"})
    assert answer.of("content-length") == [str(len(answer.body))]


async def check_a_burst(site: Site, peer: str, draw: random.Random) -> AsyncIterator[int]:
    """Send a client's requests at one instant and yield their status, which must be 429 where nothing was left."""
    before: int | None = None
    for _ in range(draw.randint(1, 12)):
        method, path = draw.choice(METHODS), draw.choice(PATHS)
        answer = await site.ask(peer, method, path, draw.choice(ORIGINS))
        yield answer.status
        if path == "/healthz":
            assert {name for name, _ in answer.fields} <= {
                b"content-type",
                b"content-length",
                b"allow",
                b"cache-control",
            }
            check_the_page(answer, method, path)
            continue
        told = limits(answer.fields)
        assert told[:3] == ("token-bucket", 5, 3)
        assert before is None or told.r == max(0, before - 1)
        assert before is None or (answer.status == 429) == (before == 0)
        before = told.r
        if answer.status == 429:
            assert (told.r, told.retry_after) == (0, told.t)
            check_the_body(answer, method)
        else:
            check_the_page(answer, method, path)


def test_ten_thousand_answers_keep_the_contract() -> None:
    site, draw = Site(create("token-bucket", "2/s", burst=5)), random.Random(6)
    peers = [f"192.0.2.{number}" for number in range(20)] + [f"2001:db8:0:{number}::1" for number in range(20)]

    async def send() -> list[int]:
        statuses: list[int] = []
        while len(statuses) < 10_000:
            statuses += [status async for status in check_a_burst(site, draw.choice(peers), draw)]
            site.clock.advance(draw.randrange(SECOND // 10))
        return statuses

    statuses = asyncio.run(send())
    assert {status for status, times in Counter(statuses).items() if times > 500} == {200, 404, 405, 429}


# --- waiting as told


QUOTAS = [Quota.parse("7/13s", burst=5), Quota.parse("2/s", burst=5), Quota.parse("1000/s", burst=3)]


async def visit(site: Site, peer: str) -> None:
    """Use a client's quota up, wait as told and no less, and see that it was enough."""
    while (answer := await site.ask(peer)).status == 200:
        pass
    told = limits(answer.fields).retry_after
    assert told is not None
    site.clock.advance((told - 1) * SECOND)
    assert (await site.ask(peer)).status == 429
    site.clock.advance(SECOND)
    assert (await site.ask(peer)).status == 200


def waiting_as_told_is_enough(kind: type[Algorithm], quota: Quota, clients: int = 50, cycles: int = 20) -> None:
    site, draw = Site(kind.from_quota(quota)), random.Random(7)

    async def send() -> None:
        for peer in (f"192.0.2.{number}" for number in range(clients)):
            for _ in range(cycles):
                await visit(site, peer)
                site.clock.advance(draw.randrange(SECOND))

    with patch(SLEEP, at_once):
        asyncio.run(send())


@pytest.mark.parametrize("quota", QUOTAS, ids=str)
def test_waiting_as_told_is_enough_and_a_second_less_is_not(kind: type[Algorithm], quota: Quota) -> None:
    waiting_as_told_is_enough(kind, quota)
