"""A key of the store goes when it is as good as new, and a clock that is set back does no harm."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from random import Random
from time import monotonic
from typing import Any

import pytest
from lua_scripts import PATIENCE, ScriptedStore
from valkey import Valkey

from ratelab import ALGORITHMS, Decision, Quota
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.server import ValkeyServer

BEGUN = 1_795_453_109_478_631
SECOND = 10**6
DAY = 86_400 * SECOND

CLOCKS = 3
"""Milliseconds by which the clock of scripts and that of expiry may differ, for it is read once for many commands."""

RATES = ["1/day", "5/day", "1/3s", "7/min", "13/11s", "2/s", "997/s", "100000/s"]


@pytest.fixture
def client(store: ValkeyServer) -> Iterator[Any]:
    with Valkey.from_url(store.url) as connected:
        connected.flushall()
        yield connected


# --- a key's time to live


def check_expiry(client: Any, name: str, change: tuple[str, str] | None = None) -> None:
    """Hit keys of every rate now and then; after each hit a key has a time to live, or is gone."""
    random = Random(name)
    for rate in RATES:
        script = Script(name, rate, burst=7)
        text = script.text.replace(*change) if change else script.text
        sha = client.script_load(text)
        for number in range(60):
            key = f"{rate}-{random.randrange(5)}"
            cost = random.choice([0, 1, 1, 2, 7, 8])
            (decision,) = script.decode(client.evalsha(sha, 1, key, *script.parameters, cost))
            left = int(client.pttl(key))
            assert left != -1, f"hit {number} of {rate}: {key} stays for ever"
            assert left <= decision.reset_after_ns // 10**6 + CLOCKS, f"hit {number} of {rate}: {key} stays too long"


@pytest.mark.parametrize("name", ALGORITHMS)
def test_every_key_has_a_time_to_live_no_longer_than_its_reset(name: str, client: Any) -> None:
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
def test_a_key_that_stays_is_noticed(name: str, change: tuple[str, str], client: Any) -> None:
    with pytest.raises(AssertionError, match="stays"):
        check_expiry(client, name, change)


def test_the_store_is_empty_when_all_keys_are_as_good_as_new(client: Any) -> None:
    for name in ALGORITHMS:
        script = Script(name, "1000/s", burst=100)
        sha = client.script_load(script.text)
        for number in range(200):
            client.evalsha(sha, 1, script.key(str(number)).decode(), *script.parameters, 50)
    deadline = monotonic() + 60
    while client.dbsize():
        assert monotonic() < deadline, f"{client.dbsize()} keys are left"


# --- a clock that is set


def used_up(scripted: ScriptedStore, quota: Quota, clock: int) -> None:
    assert scripted.hit(clock, quota.burst).allowed


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("step", [-3600 * SECOND, -DAY, 2 * 3600 * SECOND])
@pytest.mark.parametrize("rate", ["10/min", "1/s", "1000/day"])
def test_nobody_waits_longer_than_the_quota_says(name: str, step: int, rate: str, client: Any) -> None:
    quota = Quota.parse(rate, 10)
    scripted = ScriptedStore(client, Script(name, quota))
    used_up(scripted, quota, BEGUN)
    after = scripted.hit(BEGUN + step, 1)
    longest = 2 * quota.window if name == "sliding-counter" else quota.window
    assert after.retry_after_ns <= longest
    assert after.reset_after_ns <= longest + quota.window
    assert client.pttl("key") <= after.reset_after_ns // 10**6 + CLOCKS
    if not after.allowed:
        wait = after.retry_after_ns // 1000
        assert not scripted.hit(BEGUN + step + wait - 1, 1).allowed
        assert scripted.hit(BEGUN + step + wait, 1).allowed


@pytest.mark.parametrize("name", ALGORITHMS)
@pytest.mark.parametrize("swing", [1, 1000, SECOND // 2, PATIENCE])
def test_a_clock_that_swings_mints_nothing(name: str, swing: int, client: Any) -> None:
    scripted = ScriptedStore(client, Script(name, "10/s", burst=10), (("1, ceil((", "86400000, ceil(("),))
    begun = BEGUN - BEGUN % SECOND  # the beginning of a window
    decisions = scripted.hits([(begun - swing * (number % 2), 1) for number in range(200)])
    assert sum(decision.allowed for decision in decisions) == 10


WAITS = partial(test_nobody_waits_longer_than_the_quota_says, "token-bucket", -DAY, "1/s")
SWINGS = partial(test_a_clock_that_swings_mints_nothing, "fixed-window", SECOND // 2)


@pytest.mark.parametrize(
    ("right", "wrong", "promise"),
    [
        ("if stepped then", "if false then", WAITS),
        ("cost > 0 or stepped", "cost > 0", WAITS),
        ("max(clock + shift, last)", "clock + shift", SWINGS),
    ],
)
def test_a_clock_that_harms_is_noticed(
    right: str, wrong: str, promise: Callable[[Any], None], client: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = ScriptedStore.__init__

    def changed(
        store: ScriptedStore, connected: Any, script: Script, changes: tuple[tuple[str, str], ...] = ()
    ) -> None:
        hits(store, connected, script, (*changes, (right, wrong)))

    monkeypatch.setattr(ScriptedStore, "__init__", changed)
    with pytest.raises(AssertionError):
        promise(client)


def test_a_step_forward_grants_one_burst_at_most(client: Any) -> None:
    for name in ALGORITHMS:
        scripted = ScriptedStore(client, Script(name, "10/min", burst=10), (("1, ceil((", "86400000, ceil(("),))
        steps = [(BEGUN + (number >= 50) * 2 * 3600 * SECOND, 1) for number in range(100)]
        decisions: list[Decision] = scripted.hits(steps)
        assert sum(decision.allowed for decision in decisions) == 20
