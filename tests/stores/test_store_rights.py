"""The rights that the manual lists for a user of the store: enough for each algorithm, and each of them needed."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from lua_scripts import SCRIPTED
from store_setups import Cluster
from valkey_servers import AMPLE_DEADLINE, find_server, run_valkey, send_command

import ratelab
from ratelab import Policy, create
from ratelab.errors import StoreError
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.stores.valkey.session import SlotMap

MANUAL = (Path(ratelab.__file__).parent / "docs" / "stores.md").read_text("utf-8")
RIGHTS = {
    purpose: re.findall("`(.+?)`", rights.replace("\\|", "|"))
    for purpose, rights in re.findall(r"^\| (.+) \| (`[+~].+) \|$", MANUAL, re.M)
}
"""The rights by their purpose, as the manual lists them."""


SECRET = "the middleware and `ratelab serve`"  # noqa: S105  (a purpose)


def rights_of(algorithm: str, *purposes: str) -> set[str]:
    kind = "`sliding-log`" if algorithm == "sliding-log" else "any other algorithm"
    return {right for purpose in ("every limiter", kind, *purposes) for right in RIGHTS[purpose]}


@contextmanager
def user_with(servers: list[ValkeyServer], rights: set[str]) -> Iterator[str]:
    """Create a user who has nothing but `rights`; yield the URL of the first server for this user."""
    for server in servers:
        send_command(server.url, "ACL", "SETUSER", "limits", "reset", "on", ">pass", *sorted(rights))
    yield servers[0].url.replace("://", "://limits:pass@")
    for server in servers:
        send_command(server.url, "ACL", "DELUSER", "limits")


def use(url: str, algorithm: str) -> None:
    """Use each path of a script: new and old keys, every kind of cost, denials, and the end of a ring."""
    with ValkeyLimiter(url, algorithm, "3/h", deadline=AMPLE_DEADLINE) as limiter:
        assert [limiter.hit("alice", cost).allowed for cost in (0, 2, 0, 1, 1, 4)] == [True] * 4 + [False] * 2


def missing_right(url: str, algorithm: str) -> str:
    with pytest.raises(StoreError) as refused:
        use(url, algorithm)
    assert refused.value.kind == "refused"
    return str(refused.value)


@pytest.fixture(scope="module", params=["valkey", "redis", "redis-6.2"])
def guarded(request: pytest.FixtureRequest) -> Iterator[ValkeyServer]:
    with run_valkey(program=find_server(request.param)) as started:
        yield started


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_the_rights_of_an_algorithm_are_enough(guarded: ValkeyServer, algorithm: str) -> None:
    send_command(guarded.url, "FLUSHALL")
    with user_with([guarded], rights_of(algorithm)) as url:
        use(url, algorithm)


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_every_right_of_an_algorithm_is_needed(guarded: ValkeyServer, algorithm: str) -> None:
    rights = rights_of(algorithm)
    for right in rights:
        send_command(guarded.url, "FLUSHALL")
        send_command(guarded.url, "SCRIPT", "FLUSH")
        with user_with([guarded], rights - {right}) as url:
            assert f"grant it {right}" in missing_right(url, algorithm)


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_a_reset_and_the_key_secret_need_a_few_more(guarded: ValkeyServer, algorithm: str) -> None:
    async def compare(url: str) -> None:
        async with AsyncValkeyLimiter(url, algorithm, "3/h", deadline=AMPLE_DEADLINE) as limiter:
            await limiter.check_secret("fingerprint", False)
            await limiter.probe()

    send_command(guarded.url, "FLUSHALL")
    with (
        user_with([guarded], rights_of(algorithm)) as url,
        ValkeyLimiter(url, algorithm, "3/h", deadline=30) as limiter,
        pytest.raises(StoreError, match=r"grant it \+del"),
    ):
        limiter.reset("alice")
    with user_with([guarded], rights_of(algorithm, "`reset`", SECRET)) as url:
        with ValkeyLimiter(url, algorithm, "3/h", deadline=AMPLE_DEADLINE) as limiter:
            limiter.reset("alice")
        asyncio.run(compare(url))


@pytest.mark.parametrize("algorithm", SCRIPTED)
def test_tickets_plans_and_lists_need_the_documented_rights(guarded: ValkeyServer, algorithm: str) -> None:
    send_command(guarded.url, "FLUSHALL")
    policies = [Policy.create(algorithm, "5/h", name="one"), Policy.create("sliding-log", "5/h", name="log")]
    tickets, plans, scan = "`reserve`, `settle` and `refund`", "plans and overrides", "`scan` and `ratelab keys list`"
    with (
        user_with([guarded], rights_of(algorithm, tickets)) as url,
        ValkeyLimiter(url, algorithm, "5/h", deadline=AMPLE_DEADLINE) as limiter,
    ):
        assert limiter.reserve("alice", 3).settle(1)
        limiter.refund("alice")
    with (
        user_with([guarded], rights_of(algorithm) | rights_of("sliding-log", tickets)) as url,
        ValkeyLimiter(url, policies, deadline=AMPLE_DEADLINE) as limiter,
    ):
        assert limiter.reserve("alice", 3).settle(1)
        limiter.probe()
    with (
        user_with([guarded], rights_of(algorithm) | rights_of("sliding-log", plans, scan)) as url,
        ValkeyLimiter(
            url, policies, deadline=AMPLE_DEADLINE, plans={"large": {"one": "50/h", "log": "9/h"}}
        ) as limiter,
    ):
        assert limiter.hit("alice", 3).allowed
        assert limiter.hit("alice", 3, "large").allowed
        assert [*limiter.look("alice")] == [*next(limiter.scan())[1]] == ["one", "log"]
        limiter.reset({"log": "alice"})


def test_another_database_needs_one_more(guarded: ValkeyServer) -> None:
    with user_with([guarded], rights_of("gcra", "a database other than 0")) as url:
        use(f"{url}?db=1" if "unix" in url else f"{url}/1", "gcra")


async def hit_in_task(url: str) -> None:
    async with AsyncValkeyLimiter(url, "gcra", "3/h", deadline=AMPLE_DEADLINE) as limiter:
        await limiter.hit("alice")


@pytest.mark.slow
def test_a_cluster_needs_two_more(cluster: Cluster) -> None:
    rights = rights_of("gcra", "a cluster")
    slot = SlotMap(cluster=True).slot(Script(create("gcra", "3/h")).key("alice"))
    destination = next(node for node in cluster.nodes if node is not cluster.first_owner(slot))
    with user_with([*cluster.nodes], rights) as url, cluster.migrating(slot, destination):
        use(f"{url}?cluster=true", "gcra")
    for right in ("+cluster|slots", "+asking"):
        for node in cluster.nodes:
            send_command(node.url, "FLUSHALL")
        with user_with([*cluster.nodes], rights - {right}) as url, cluster.migrating(slot, destination):
            assert f"grant it {right}" in missing_right(f"{url}?cluster=true", "gcra")
            with pytest.raises(StoreError, match=re.escape(f"grant it {right}")):
                asyncio.run(hit_in_task(f"{url}?cluster=true"))
