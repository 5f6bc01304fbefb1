"""Limits of FastAPI in a store: instances, the lifespan, and outages."""

import asyncio
from typing import Any

import pytest
from asgi import AsgiResponse, request, scope_of, started
from fastapi import Depends, FastAPI
from response_headers import parse_limits
from valkey_servers import collect_connections, extend_default_deadlines, run_valkey, send_command

from ratelab.errors import ConfigurationWarning
from ratelab.fastapi import RateLimit
from ratelab.http.identity import SECRET
from ratelab.stores.valkey.server import ValkeyServer


@pytest.fixture(autouse=True)
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SECRET, "a secret")


def limited(*limits: str, **arguments: Any) -> FastAPI:
    """Create an application with one limited route, `/ping`."""
    app = FastAPI()
    app.get("/ping", dependencies=[Depends(RateLimit(*limits, **arguments))])(lambda: "pong")
    return app


async def send(app: FastAPI, count: int) -> list[AsgiResponse]:
    """Start an application, send requests, and shut it down; return the responses."""
    async with started(app):
        return [await request(app, scope_of()) for _ in range(count)]


def test_instances_share_a_quota_and_close_their_connections(store: ValkeyServer) -> None:
    apps = [limited("3/h", store=store.url, name="shared") for _ in range(2)]
    replies = [reply for app in apps for reply in asyncio.run(send(app, 2))]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]
    assert [parse_limits(reply.fields).r for reply in replies] == [2, 1, 0, 0]


@pytest.mark.parametrize(("mounted", "denied"), [(False, False), (True, False), (False, True)])
def test_connections_are_closed_at_the_shutdown(mounted: bool, denied: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(url: str) -> None:
        if denied:
            await send(limited("3/h", store=url), 3)
        app = limited("3/h", store=url)
        served = FastAPI() if mounted else app
        served.mount("/v1", app)
        async with started(served):
            assert (await request(served, scope_of(path="/v1/ping" if mounted else "/ping"))).status == (
                429 if denied else 200
            )
            assert count_clients(url) == 2
        while count_clients(url) > 1:
            await asyncio.sleep(0.001)

    extend_default_deadlines(monkeypatch)
    with run_valkey() as server:
        asyncio.run(asyncio.wait_for(run(server.url), 30))


def test_limits_in_one_store_share_a_connection() -> None:
    async def run(url: str) -> None:
        limits = [RateLimit("3/h", store=url, name=name) for name in ("outer", "inner")]
        unused = RateLimit("3/h", store=url, name="unused")
        app = FastAPI(dependencies=[Depends(each) for each in limits])
        app.get("/ping")(lambda: "pong")
        async with started(app):
            assert [(await request(app, scope_of())).status for _ in range(4)] == [200, 200, 200, 429]
            assert count_clients(url) == 2
        while count_clients(url) > 1:
            await asyncio.sleep(0.001)
        assert unused.counts.admitted == 0

    with run_valkey() as server:
        asyncio.run(asyncio.wait_for(run(server.url), 30))


def test_applications_in_two_event_loops_at_once_have_a_connection_each(store: ValkeyServer) -> None:
    apps = [limited("3/h", store=store.url, name="two loops") for _ in range(2)]

    async def run() -> list[int]:
        async with started(apps[0]):
            first = [(await request(apps[0], scope_of())).status for _ in range(2)]
            others = await asyncio.to_thread(lambda: asyncio.run(send(apps[1], 2)))
            return [*first, *(reply.status for reply in others)]

    assert asyncio.run(run()) == [200, 200, 200, 429]


def count_clients(url: str) -> int:
    """Return how many clients are connected to a store, with the one that asks."""
    return len(send_command(url, "CLIENT", "LIST").splitlines())


def test_an_application_may_start_again(store: ValkeyServer) -> None:
    app = limited("3/h", store=store.url, name="again")
    replies = [reply for _ in range(2) for reply in asyncio.run(send(app, 2))]
    assert [reply.status for reply in replies] == [200, 200, 200, 429]


def test_several_limits_in_a_store_decide_together(store: ValkeyServer) -> None:
    app = limited("2/h", "3/day", store=store.url, name="several", key=Depends(lambda: "alice"))
    replies = asyncio.run(send(app, 3))
    assert [reply.status for reply in replies] == [200, 200, 429]
    assert replies[0].of("ratelimit-policy") == ['"several 2/h";q=2;w=3600, "several 3/day";q=3;w=86400']


def test_two_limits_with_one_name_are_a_warning(store: ValkeyServer) -> None:
    first = RateLimit("7/h", store=store.url)
    with pytest.warns(ConfigurationWarning, match="give each its own name"):
        RateLimit("7/h", store=store.url)
    assert first.policy_guard is None


@pytest.mark.parametrize(
    ("on_store_error", "expected"), [("local", [200, 429]), ("open", [200, 200]), ("closed", [503] * 2)]
)
def test_a_store_that_is_down_is_replaced_by_the_fallback(on_store_error: str, expected: list[int]) -> None:
    app = limited("1/h", store="valkey://127.0.0.1:1", on_store_error=on_store_error)

    async def run() -> list[AsgiResponse]:
        return await send(app, 2)

    replies = asyncio.run(run())
    assert [reply.status for reply in replies] == expected
    assert on_store_error != "closed" or replies[0].of("retry-after")


def test_a_limit_in_a_store_works_without_a_lifespan(store: ValkeyServer) -> None:
    async def ask(app: FastAPI) -> list[int]:
        return [(await request(app, scope_of())).status for _ in range(2)]

    statuses = asyncio.run(ask(limited("1/h", store=store.url, name="no lifespan")))
    collect_connections()
    assert statuses == [200, 429]
