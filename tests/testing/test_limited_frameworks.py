"""Limits of applications in each framework, and of a limiter whose store is down, under the clock of tests."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from django.test import Client
from django_project import override
from failing_stores import FlakyStore
from fastapi import Depends, FastAPI
from flask import Flask
from httpx import ASGITransport, AsyncClient

from ratelab import create
from ratelab.fastapi import RateLimit
from ratelab.flask import limit
from ratelab.stores.resilient import ResilientLimiter
from ratelab.testing import LimiterClock, assert_limited

pytest_plugins = ["clock_fixtures"]


def check_clients(send: Any, clock: LimiterClock) -> None:
    """Check that five requests are admitted, then one after twelve seconds, then five after a minute.

    Another number of requests is an error that shows the header fields.
    """
    assert assert_limited(send, after=5).headers["Retry-After"] == "12"
    clock.advance(12)
    assert_limited(send, after=1)
    clock.advance("1min")
    assert_limited(send, after=5)
    with pytest.raises(AssertionError, match=r"(?i)status 429, ratelimit-policy: .*, ratelimit: .*, retry-after: 12"):
        assert_limited(send, after=5)


def test_flask(clock: LimiterClock) -> None:
    app = Flask("shop")
    app.add_url_rule("/", view_func=limit("5/min")(lambda: "ok"))
    check_clients(lambda: app.test_client().get("/"), clock)


def test_django(clock: LimiterClock) -> None:
    with override(RATE="5/min"):
        client = Client()
        check_clients(lambda: client.get("/ping"), clock)


def test_fastapi(clock: LimiterClock) -> None:
    app = FastAPI()
    app.add_api_route("/", lambda: "ok", dependencies=[Depends(RateLimit("5/min"))])

    async def check() -> None:
        async with AsyncClient(transport=ASGITransport(app), base_url="http://test") as client:
            denied = await assert_limited(lambda: client.get("/"), after=5)
            assert denied.headers["Retry-After"] == "12"
            clock.advance("1min")
            await assert_limited(lambda: client.get("/"), after=5)

    asyncio.run(check())


def test_a_limiter_whose_store_is_down(clock: LimiterClock) -> None:
    async def check() -> None:
        store = FlakyStore(create("gcra", "5/min"))
        limiter = ResilientLimiter(store)
        store.fail()
        await assert_limited(lambda: limiter.hit("alice"), after=5)
        assert not limiter.health.up
        clock.advance(12)
        await assert_limited(lambda: limiter.hit("alice"), after=1)
        store.recover()
        await limiter.hit("alice")
        assert not limiter.health.up
        clock.advance(1)
        await limiter.hit("alice")
        assert limiter.health.up

    asyncio.run(check())
