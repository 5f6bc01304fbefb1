"""Names of limiters: a counter is shared by limiters of one name, and by no others."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from valkey import Valkey

from ratelab import InputError, Policy, create
from ratelab.errors import ConfigurationWarning
from ratelab.stores.arguments import MAX_NAME_CHARS
from ratelab.stores.valkey import AsyncValkeyLimiter, ValkeyLimiter
from ratelab.stores.valkey.script import Script
from ratelab.stores.valkey.server import ValkeyServer

SERVERS = ["valkey"]
NAMES = ["login", "Login", "login:", "log/in", "{login}", "log in", "log*n", "l\u00f6gin", "\ud800", None]


@contextmanager
def named(url: str, name: str | None = None, quota: str = "5/h") -> Iterator[ValkeyLimiter]:
    with ValkeyLimiter(url, "token-bucket", quota, deadline=30, name=name) as limiter:
        yield limiter


def hit_async(url: str, name: str | None, cost: int = 1) -> int:
    """Return `remaining` after a hit of alice in a task."""

    async def hit() -> int:
        async with AsyncValkeyLimiter(url, "token-bucket", "5/h", deadline=30, name=name) as limiter:
            return (await limiter.hit("alice", cost)).remaining

    return asyncio.run(hit())


def check_that_names_separate_counters(store: ValkeyServer) -> None:
    for name in NAMES:
        with named(store.url, name) as limiter:
            assert limiter.hit("alice").remaining == 4
    for name in NAMES:
        assert hit_async(store.url, name) == 3


def test_limiters_of_one_name_share_a_counter_and_others_do_not(store: ValkeyServer) -> None:
    check_that_names_separate_counters(store)


def test_the_name_is_that_of_the_policy_unless_it_is_given(store: ValkeyServer) -> None:
    with named(store.url) as first, named(store.url, "login") as second:
        assert (first.name, second.name, second.policy.name) == ("token-bucket", "login", "token-bucket")
    assert AsyncValkeyLimiter(store.url, "gcra", "5/h", name="search").name == "search"


@pytest.mark.slow
def test_processes_share_a_counter_by_its_name(store: ValkeyServer) -> None:
    code = (
        "import sys; from ratelab.stores.valkey import ValkeyLimiter;"
        "limiter = ValkeyLimiter(sys.argv[1], 'token-bucket', '5/h', deadline=30, name=sys.argv[2]);"
        "print(limiter.hit('alice').remaining)"
    )
    runs = [
        subprocess.run([sys.executable, "-c", code, store.url, name], check=True, capture_output=True, text=True).stdout
        for name in ("login", "search", "login")
    ]
    assert runs == ["4\n", "4\n", "3\n"]


def test_keys_show_the_name_and_can_be_listed_by_it(store: ValkeyServer) -> None:
    with named(store.url, "log*n {1}") as limiter, named(store.url, "login {1}") as other:
        limiter.hit("alice")
        other.hit("alice")
    with Valkey.from_url(store.url) as client:
        assert len([*client.scan_iter("rl:*:log%2An%20%7B1%7D:*")]) == 1


@given(name=st.text(min_size=1, max_size=MAX_NAME_CHARS), other=st.text(min_size=1, max_size=MAX_NAME_CHARS))
def test_names_neither_collide_nor_change_the_slot(name: str, other: str) -> None:
    key, other_key = (Script(create("gcra", "5/h"), text).key("alice") for text in (name, other))
    assert (key == other_key) == (name == other)
    assert key.count(b"{") == key.count(b"}") == 1
    assert key.partition(b"}")[0] == Script(create("gcra", "5/h")).key("alice").partition(b"}")[0]


@pytest.mark.parametrize("limiter", [ValkeyLimiter, AsyncValkeyLimiter])
@pytest.mark.parametrize("name", ["", "n" * (MAX_NAME_CHARS + 1), 1, b"login", ["login"]])
def test_an_invalid_name_is_rejected(limiter: Any, name: object) -> None:
    with pytest.raises(InputError, match="name must be a text of 1 to 100 characters, got "):
        limiter("valkey://host", "gcra", "5/h", name=name)


def test_policies_whose_names_are_too_long_together_need_a_name() -> None:
    policies = [Policy.create("gcra", "5/h", name=f"policy {number}") for number in range(32)]
    with pytest.raises(InputError, match=r"1 to 100 characters, got 'policy 0.* its policies: give name="):
        ValkeyLimiter("valkey://host", policies)


# --- two limiters of one name in a process


@pytest.mark.parametrize("name", [None, "login"])
@pytest.mark.parametrize("second", [ValkeyLimiter, AsyncValkeyLimiter])
@pytest.mark.parametrize("first", [ValkeyLimiter, AsyncValkeyLimiter])
def test_a_second_limiter_of_one_name_and_quota_is_warned_about(first: Any, second: Any, name: str | None) -> None:
    kept = first("valkey://host", "gcra", "5/h", name=name)
    with pytest.warns(ConfigurationWarning) as caught:
        second("valkey://HOST:6379/0", "gcra", "5/h", name=name)
    text = f"two limiters named {kept.name!r} for 5/h, burst 5 share one counter in the store: give each its own name"
    assert str(caught[0].message).startswith(text)
    assert caught[0].filename == __file__


OTHERS: list[dict[str, Any]] = [
    {"name": "other"},
    {"store": "valkey://host/1"},
    {"store": "valkey://other"},
    {"store": "valkey://host:6380"},
    {"store": "unix:///host"},
    {"algorithm": "token-bucket"},
    {"rate": "6/h"},
    {"burst": 6},
]


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_limiters_with_separate_counters_cause_no_warning(other: dict[str, Any]) -> None:
    options: dict[str, Any] = {"store": "valkey://host", "algorithm": "gcra", "rate": "5/h"}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        kept = [ValkeyLimiter(**options), AsyncValkeyLimiter(**{**options, **other})]
        assert len(kept) == 2


@pytest.mark.parametrize("limiter", [ValkeyLimiter, AsyncValkeyLimiter])
def test_a_limiter_may_replace_one_that_is_closed_or_collected(limiter: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(3):
            limiter("valkey://host", "gcra", "5/h")
        for _ in range(3):
            closed = limiter("valkey://host", "gcra", "5/h")
            closed.close()
