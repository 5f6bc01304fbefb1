"""URLs that name several hosts: the Sentinels that watch a server, and the nodes of a cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pytest
from serve_process import wait_until
from store_setups import MASTER_NAME, Cluster, SentinelSetup, run_sentinels
from valkey_servers import LARGE_BURST, free_port, make_async_limiter, make_limiter, send_command

from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.stores.valkey.connection import StoreUrl, redact_url

pytestmark = pytest.mark.slow


def hosts_of(*servers: Any) -> str:
    return ",".join(server.url.rpartition("/")[2] for server in servers)


def hits(url: str, count: int = 1) -> list[int]:
    """Return `remaining` after hits of alice in a thread, and then in tasks."""
    limiter_async = make_async_limiter(url)

    async def hit() -> list[int]:
        async with limiter_async:
            return [(await limiter_async.hit("alice")).remaining for _ in range(count)]

    with make_limiter(url) as limiter:
        return [limiter.hit("alice").remaining for _ in range(count)] + asyncio.run(hit())


# --- Sentinels


@pytest.fixture(scope="module", params=["valkey", "redis", "redis-6.2"])
def sentinels(request: pytest.FixtureRequest) -> Iterator[SentinelSetup]:
    """Run a setup for the tests below, of which the last one stops the Sentinels."""
    with run_sentinels(request.param) as setup:
        yield setup


def url_of(setup: SentinelSetup, master: str = MASTER_NAME, login: str = "") -> str:
    return f"valkey+sentinel://{login}{hosts_of(*setup.sentinels)}/{master}"


def test_a_master_that_no_sentinel_knows_is_named(sentinels: SentinelSetup) -> None:
    with pytest.raises(StoreError, match="no Sentinel knows the master elsewhere"):
        hits(url_of(sentinels, "elsewhere"))
    with make_limiter(url_of(sentinels, "elsewhere")) as limiter, pytest.raises(StoreError, match="no Sentinel knows"):
        limiter.hit("alice")


def test_server_and_sentinels_have_their_own_passwords_and_the_server_its_database(sentinels: SentinelSetup) -> None:
    for sentinel in sentinels.sentinels:
        send_command(sentinel.url, "ACL", "SETUSER", "default", ">watch")
    send_command(sentinels.master.url, "ACL", "SETUSER", "limits", "on", ">pass", "~rl:*", "+@all")
    url = f"{url_of(sentinels, login='limits:pass@')}/3?sentinel_password="
    assert hits(f"{url}watch") == [LARGE_BURST - 1, LARGE_BURST - 2]
    with make_limiter(f"{sentinels.master.url}/3") as limiter:
        assert limiter.hit("alice", 0).remaining == LARGE_BURST - 2
    for wrong in ("wrong", ""):
        with make_limiter(f"{url}{wrong}") as limiter, pytest.raises(StoreError) as refused:
            limiter.hit("alice")
        assert refused.value.kind == "refused"
    for sentinel in sentinels.sentinels:
        send_command(sentinel.url.replace("://", "://:watch@"), "ACL", "SETUSER", "default", "nopass")


def test_sentinels_name_the_server_before_and_after_a_failover(sentinels: SentinelSetup) -> None:
    url = url_of(sentinels)

    async def hit_throughout() -> None:
        async with make_async_limiter(url) as limiter_async:
            with make_limiter(url) as limiter:
                assert limiter.hit("bob").remaining == LARGE_BURST - 1
                assert (await limiter_async.hit("bob")).remaining == LARGE_BURST - 2
                wait_until(lambda: send_command(sentinels.replica.url, "DBSIZE") == 1)
                sentinels.fail_over()
                with suppress(StoreError):  # only now, the loop sees that the connection is closed
                    await limiter_async.hit("bob", 0)
                assert limiter.hit("bob").remaining == LARGE_BURST - 3
                assert (await limiter_async.hit("bob")).remaining == LARGE_BURST - 4

    asyncio.run(hit_throughout())


def test_sentinels_that_do_not_answer_are_skipped(sentinels: SentinelSetup) -> None:
    dead = f"127.0.0.1:{free_port()}"
    url = url_of(sentinels, login=f"{dead},")
    sentinels.sentinels[0].stop()
    assert hits(url, 2) == [LARGE_BURST - number for number in range(1, 5)]
    for sentinel in sentinels.sentinels:
        sentinel.stop()
    with make_limiter(url) as limiter, pytest.raises(StoreError, match="no Sentinel names the master limits: ") as lost:
        limiter.hit("alice")
    assert lost.value.kind == "unreachable"


def test_connections_to_sentinels_and_server_are_encrypted_alike() -> None:
    for scheme, expected in (("valkeys+sentinel", "SSLConnection"), ("redis+sentinel", "Connection")):
        url = StoreUrl(f"{scheme}://a,b:7/limits", asynchronous=False)
        connections = [url.connection(None), url._create(("a", 26_379), None, {})]
        assert [type(connection).__name__ for connection in connections] == [expected] * 2


def test_the_password_of_sentinels_is_hidden() -> None:
    url = "valkey+sentinel://:hush@a:1,b:2/limits?sentinel_password=hush"
    assert redact_url(url) == "valkey+sentinel://:***@a:1,b:2/limits?sentinel_password=***"


def test_urls_of_one_store_are_recognized_in_any_order_of_hosts() -> None:
    def store(url: str) -> object:
        return StoreUrl(url, asynchronous=False).store

    assert store("valkey+sentinel://a,b:7/limits") == store("redis+sentinel://B:7,a:26379/limits")
    assert store("valkey+sentinel://a,b/limits") != store("valkey+sentinel://a,b/others")
    assert store("valkey://a,b:7?cluster=true") == store("valkey://b:7,a?cluster=true")
    assert store("valkey://a,b:7?cluster=true") != store("valkey://a,b:8?cluster=true")


# --- clusters


@pytest.mark.parametrize("name", ["first", "last"])
def test_any_node_of_a_cluster_may_be_asked_for_the_others(cluster: Cluster, name: str) -> None:
    dead = f"127.0.0.1:{free_port()}"
    nodes = hosts_of(*cluster.nodes)
    url = f"valkey://{f'{dead},{nodes}' if name == 'first' else f'{nodes},{dead}'}?cluster=true"
    limiter, limiter_async = make_limiter(url), make_async_limiter(url)

    async def hit(key: str) -> int:
        return (await limiter_async.hit(key)).remaining

    with suppress(StoreError):  # the dead node is asked once
        limiter.hit("first", 0)
    with asyncio.Runner() as runner:
        with suppress(StoreError):
            runner.run(hit("first"))
        for number in range(20):
            key = f"{name} {number}"
            assert (limiter.hit(key).remaining, runner.run(hit(key))) == (LARGE_BURST - 1, LARGE_BURST - 2)
        limiter.close()
        runner.run(close(limiter_async))


async def close(limiter: AsyncValkeyLimiter) -> None:
    limiter.close()
