"""Keys in a store expire when they are fully replenished, also after the server's clock was set."""

from __future__ import annotations

from collections.abc import Iterator
from random import Random
from time import monotonic
from typing import Any

import pytest
from lua_scripts import SCRIPTED, Change, ScriptedStore, change_script
from valkey import Valkey

from ratelab import Quota, create
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.server import ValkeyServer

START_US = 1_795_453_109_478_631
SECOND_US = 10**6
HOUR_US, DAY_US = 3600 * SECOND_US, 86_400 * SECOND_US

CLOCK_SLACK_MS = 3
"""Milliseconds by which the clocks of scripts and of expiry may differ: one is read once for many commands."""

RATES = ["1/day", "5/day", "1/3s", "7/min", "13/11s", "2/s", "997/s", "100000/s"]


@pytest.fixture
def client(store: ValkeyServer) -> Iterator[Any]:
    with Valkey.from_url(store.url) as connected:
        connected.flushall()
        yield connected


# --- time to live


def check_expiry(client: Any, name: str, *changes: Change) -> None:
    """Hit keys of several rates; after each hit, a key expires no later than at its reset, or does not exist."""
    random = Random(name)
    for rate in RATES:
        script = Script(create(name, rate, burst=7))
        sha = client.script_load(change_script(script.text, *changes))
        for number in range(60):
            key = f"{rate}-{random.randrange(5)}"
            cost = random.choice([0, 1, 1, 2, 7, 8])
            began = monotonic()
            (decision,) = script.decode(client.evalsha(sha, 1, key, *script.parameters, cost))
            slack_ms = CLOCK_SLACK_MS + (monotonic() - began) * 1000  # the script reads the time before it sets expiry
            ttl_ms = int(client.pttl(key))
            assert ttl_ms != -1, f"hit {number} of {rate}: {key} never expires"
            assert ttl_ms <= decision.reset_after_ns // 10**6 + slack_ms, f"hit {number} of {rate}: expires late"


@pytest.mark.parametrize("name", SCRIPTED)
def test_every_key_expires_no_later_than_its_reset(name: str, client: Any) -> None:
    check_expiry(client, name)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("token-bucket", (", 'PX', expiry", "")),
        ("sliding-log", (", 'PX', expiry", "")),
        ("gcra", ("/ 1000))", "/ 100))")),
        ("fixed-window", ("format('%.0f', max(1, ceil((reset + now - shift - clock) / 1000)))", "86400000")),
    ],
)
def test_a_key_that_outlives_its_reset_is_caught(name: str, change: Change, client: Any) -> None:
    with pytest.raises(AssertionError, match="expire"):
        check_expiry(client, name, change)


def test_a_log_that_expires_while_it_is_written_is_not_kept(client: Any) -> None:
    script = Script(create("sliding-log", "2/day"))
    sha = client.script_load(change_script(script.text, ("'PEXPIRE', key, expiry", "'PEXPIRE', key, 0")))
    for _ in range(2):
        client.evalsha(sha, 1, "alice", *script.parameters, 1)
    assert client.pttl("alice") == -2  # there is no such key


def test_the_store_is_empty_when_all_keys_are_replenished(client: Any) -> None:
    for name in SCRIPTED:
        script = Script(create(name, "1000/s", burst=100))
        sha = client.script_load(script.text)
        for number in range(200):
            client.evalsha(sha, 1, script.key(str(number)).decode(), *script.parameters, 50)
    deadline = monotonic() + 60
    while client.dbsize():
        assert monotonic() < deadline, f"{client.dbsize()} keys are left"


# --- clock steps


def check_waits(client: Any, name: str, step_us: int, rate: str, *changes: Change) -> None:
    """Check that no wait or time to live exceeds its bound after the clock was set, and that waiting is enough."""
    quota = Quota.parse(rate, 10)
    scripted = ScriptedStore(client, Script(create(name, quota)), changes)
    assert scripted.hit(START_US, quota.burst).allowed
    after = scripted.hit(START_US + step_us, 1)
    longest = 2 * quota.window if name == "sliding-counter" else quota.window
    assert after.retry_after_ns <= longest
    assert after.reset_after_ns <= longest + quota.window
    assert client.pttl("key") <= after.reset_after_ns // 10**6 + CLOCK_SLACK_MS
    if not after.allowed:
        wait_us = after.retry_after_ns // 1000
        assert not scripted.hit(START_US + step_us + wait_us - 1, 1).allowed
        assert scripted.hit(START_US + step_us + wait_us, 1).allowed


@pytest.mark.parametrize("name", SCRIPTED)
@pytest.mark.parametrize("step_us", [-HOUR_US, -DAY_US, 2 * HOUR_US])
@pytest.mark.parametrize("rate", ["10/min", "1/s", "1000/day"])
def test_a_clock_step_makes_no_client_wait_longer(name: str, step_us: int, rate: str, client: Any) -> None:
    check_waits(client, name, step_us, rate)


@pytest.mark.parametrize("change", [("if lag > MAX_LAG then", "if false then"), ("cost ~= 0 or stepped", "cost ~= 0")])
def test_a_script_that_makes_clients_wait_longer_is_caught(change: Change, client: Any) -> None:
    with pytest.raises(AssertionError):
        check_waits(client, "token-bucket", -DAY_US, "1/s", change)
