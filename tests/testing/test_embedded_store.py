"""The embedded store of tests: its scripts decide by the clock of the test, in this process and in others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from textwrap import dedent
from threading import active_count

import pytest
from lua_scripts import SCRIPTED
from test_limiter_clock import check_paced_request
from valkey import Valkey
from valkey_servers import AMPLE_DEADLINE
from waiting_runs import wait_until

from ratelab import Policy, create
from ratelab.errors import ConfigurationWarning
from ratelab.pacing import Pacer
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.server import ValkeyServer
from ratelab.testing import LimiterClock
from ratelab.testing.store import EmbeddedStore, run_store

pytest_plugins = ["clock_fixtures"]


def connect(store: EmbeddedStore, *policies: Policy, **options: object) -> ValkeyLimiter:
    return ValkeyLimiter(store.url, policies, deadline=AMPLE_DEADLINE, **options)  # type: ignore[arg-type]


def exhaust(limiter: ValkeyLimiter) -> int:
    while (decision := limiter.hit("alice")).allowed:
        pass
    return decision.retry_after_ns // 1000


POLICIES = {
    **{name: [create(name, "5/min")] for name in SCRIPTED},
    "calendar": [Policy.create("fixed-window", "5/day", timezone="Europe/Berlin")],
    "several": [Policy.create("gcra", "5/min", name="a"), Policy.create("sliding-log", "7/day", name="b")],
}


@pytest.mark.parametrize("policies", POLICIES.values(), ids=POLICIES.keys())
def test_a_client_is_admitted_after_the_promised_wait_and_not_before(
    policies: list[Policy], embedded: EmbeddedStore, clock: LimiterClock
) -> None:
    with closing(connect(embedded, *policies)) as limiter:
        wait = exhaust(limiter)
        clock.advance(f"{wait - 1}us")
        assert not limiter.hit("alice").allowed
        clock.advance("1us")
        assert limiter.hit("alice").allowed


def test_time_stands_still_and_no_key_expires(embedded: EmbeddedStore, clock: LimiterClock) -> None:
    for name in SCRIPTED:
        with closing(connect(embedded, create(name, "1000/s", burst=1))) as limiter:
            assert [limiter.hit("alice").allowed for _ in range(30)] == [True] + [False] * 29
    with Valkey.from_url(embedded.url) as client:
        assert {client.pttl(key) for key in client.scan_iter()} == {-1}


def test_plans_penalties_tickets_and_refunds_follow(embedded: EmbeddedStore, clock: LimiterClock) -> None:
    login = Policy.create("gcra", "2/min", name="all", penalty={"after": 1, "within": "1min", "for": "5min"})
    limiter = connect(embedded, login, plans={"gold": {"all": "9/min"}})
    assert exhaust(limiter) == 300 * 10**6
    clock.advance("5min")
    assert limiter.hit("alice").allowed
    ticket = limiter.reserve("bob", 2, deadline=60)
    assert not limiter.hit("bob").allowed
    clock.advance(61)
    assert not ticket.settle(0)
    limiter.close()


def test_awaited_hits_follow(embedded: EmbeddedStore, clock: LimiterClock) -> None:
    async def check() -> None:
        limiter = AsyncValkeyLimiter(embedded.url, "gcra", "5/min", deadline=AMPLE_DEADLINE)
        decisions = await asyncio.gather(*(limiter.hit("alice") for _ in range(50)))
        assert sum(decision.allowed for decision in decisions) == 5
        clock.advance("24s")
        decisions = await asyncio.gather(*(limiter.hit("alice") for _ in range(50)))
        assert sum(decision.allowed for decision in decisions) == 2
        limiter.close()

    asyncio.run(check())


def test_a_waiting_client_is_admitted_exactly_when_promised(embedded: EmbeddedStore, clock: LimiterClock) -> None:
    limiter = connect(embedded, create("gcra", "5/h"))
    wait, before = exhaust(limiter), clock.now
    assert limiter.wait("alice").allowed
    assert clock.now - before == timedelta(microseconds=wait)
    limiter.close()


def test_a_request_whose_pace_is_shared_waits_by_the_clock(embedded: EmbeddedStore, clock: LimiterClock) -> None:
    with Pacer(timeout=None, store=embedded.url) as pacer:
        check_paced_request(pacer, clock)


def test_a_limiter_used_before_the_clock_stopped_follows(embedded: EmbeddedStore, process: LimiterClock) -> None:
    limiter = connect(embedded, create("gcra", "5/day"))
    exhaust(limiter)
    with process.stop():
        assert exhaust(limiter) > 0
        process.advance("2 days")
        assert limiter.hit("alice").remaining == 4
    limiter.close()


@pytest.mark.slow
def test_other_processes_follow(embedded: EmbeddedStore, clock: LimiterClock) -> None:
    limiter = connect(embedded, create("gcra", "1/day"))
    exhaust(limiter)
    clock.advance("1day")
    program = f"""
        from ratelab.stores.valkey import ValkeyLimiter
        print(ValkeyLimiter({embedded.url!r}, "gcra", "1/day", deadline={AMPLE_DEADLINE}).hit("alice").allowed)
    """
    command = [sys.executable, "-c", dedent(program)]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "True\n"
    assert not limiter.hit("alice").allowed
    limiter.close()


def test_a_connection_that_has_ended_leaves_nothing() -> None:
    with run_store(lambda: None) as store, Valkey(unix_socket_path=store._server) as server:
        server.ping()
        threads = active_count()
        for _ in range(20):
            with Valkey.from_url(store.url) as client:
                client.ping()
        wait_until(lambda: active_count() <= threads and len(server.client_list()) == 1)


def test_other_clients_may_use_the_store(embedded: EmbeddedStore, clock: LimiterClock) -> None:
    with Valkey.from_url(embedded.url) as client:
        assert client.set("note", "x" * 100_000)
        assert client.eval("return #redis.call('GET', KEYS[1])", 1, "note") == 100_000
        script = client.register_script("return redis.call('TIME')")
        seconds, _ = script()
        assert int(seconds) < clock.now.timestamp()
        assert client.pipeline().incr("a").incr("a").execute() == [1, 2]


def test_a_limiter_that_uses_another_store_causes_a_warning(
    store: ValkeyServer, embedded: EmbeddedStore, clock: LimiterClock
) -> None:
    limiter = ValkeyLimiter(store.url, "gcra", "5/min", deadline=AMPLE_DEADLINE, name="login")
    clock.advance(1)
    limiter.hit("alice")
    with pytest.warns(ConfigurationWarning, match=r"the limiter login decides by the clock of its store, .*: use "):
        clock.advance(1)
    limiter.close()
    clock.advance(1)


@pytest.mark.slow
def test_the_socket_is_gone_afterwards() -> None:
    with run_store(lambda: None) as store:
        assert Path(store.path).exists()
    assert not Path(store.path).parent.exists()
