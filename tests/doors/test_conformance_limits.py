"""Limits that every door enforces: costs, functions, stores, policies, refunds, delays and threads."""

from __future__ import annotations

import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any
from unittest.mock import patch

import http_sf
import pytest
from door_conformance import Door, Reply, Request, problem_of, statuses
from limited_apps import Watched
from response_headers import parse_limits

from ratelab import InputError, ManualClock, MemoryLimiter, Policy, create
from ratelab.errors import StoreError
from ratelab.limiter import Costs, Decision, Keys, Row

pytest_plugins = ("door_conformance",)

# --- costs, hooks and stores


def test_a_cost_above_the_burst_is_answered_400(door: Door) -> None:
    reply = door.serve(Watched(), cost=6)(Request())
    assert (reply.status, reply.of("retry-after")) == (400, [])
    assert "above 5 is never granted" in problem_of(reply)["detail"]


class Silent(Watched):
    """A limiter whose store makes no decision."""

    def hit_row(self, key: Keys, cost: Costs = 1) -> Row:
        raise StoreError("timeout", "no answer", 2_500_000_000)


def test_a_request_without_a_decision_is_answered_503(door: Door) -> None:
    reply = door.serve(Silent())(Request())
    assert (reply.status, reply.of("retry-after"), reply.of("cache-control")) == (503, ["3"], ["no-store"])
    assert problem_of(reply)["type"].endswith("#temporary-reduced-capacity")


def test_a_custom_denial_keeps_the_fields_of_the_limit(door: Door) -> None:
    client = door.serve(Watched(burst=1), on_denied=door.on_denied)
    _, denied = client(Request()), client(Request())
    assert (denied.status, denied.body, denied.of("x-door")) == (418, b"teapot", ["closed"])
    assert denied.of("content-length") == ["6"]
    assert parse_limits(denied.raw_fields).retry_after == 1


class Later:
    """An object whose call is a coroutine."""

    async def __call__(self, *arguments: Any) -> Any:
        return True


@pytest.mark.parametrize("name", ["exempt", "cost", "key", "account", "on_denied", "charge", "plan"])
def test_a_function_that_would_be_awaited_is_rejected(door: Door, name: str) -> None:
    awaited = name == "plan" and not door.blocks
    with nullcontext() if awaited else pytest.raises(InputError, match="must be a plain function"):
        door.serve(Watched(), **{name: Later()})


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # the coroutine of the lambda is never awaited
@pytest.mark.parametrize("name", ["exempt", "cost", "key"])
def test_a_function_that_returns_a_coroutine_admits_no_request(door: Door, name: str) -> None:
    limiter = Watched()
    client = door.serve(limiter, **{name: lambda _: Later()()})
    with suppress(InputError):
        assert client(Request()).status == 500
    assert limiter.asked == []


def test_a_hit_within_a_hit_is_decided(door: Door) -> None:
    limiter = Watched(burst=4)

    def cost(_: Any) -> int:
        limiter.hit_row("within", 3)
        return 1

    assert statuses(door.serve(limiter, cost=cost), *[Request()] * 5) == [200] * 4 + [429]
    assert limiter.hit_row("within", 1)[1] == 0


class SoftTimeLimitExceededError(Exception):
    """An exception that a signal handler raises."""


class Interrupted(Watched):
    def hit_row(self, key: Keys, cost: Costs = 1) -> Row:
        raise SoftTimeLimitExceededError


def test_an_exception_of_a_signal_handler_is_not_a_failure_of_the_store(door: Door) -> None:
    client = door.serve(Interrupted())
    with suppress(SoftTimeLimitExceededError):
        assert client(Request()).status == 500


# --- several policies


SECOND = Policy.create("token-bucket", "10/s", burst=3, name="second")
DAY = Policy.create("fixed-window", "5/day", name="day")


def items_of(reply: Reply, name: str) -> dict[str, dict[str, int]]:
    """Return the items of a structured field by name."""
    (line,) = reply.of(name)
    items: Any = http_sf.parse(line.encode(), tltype="list")
    return {item: dict(parameters) for item, parameters in items}


def test_several_policies_decide_together(door: Door) -> None:
    clock = ManualClock()
    client = door.serve(MemoryLimiter([SECOND, DAY], clock))
    first = client(Request())
    assert items_of(first, "ratelimit-policy").keys() == {"second", "day"}
    assert items_of(first, "ratelimit") == {"second": {"r": 2, "t": 1}}
    assert statuses(client, *[Request()] * 3) == [200, 200, 429]
    clock.advance(10**9)
    assert statuses(client, *[Request()] * 2) == [200, 200]
    denied = client(Request())
    assert problem_of(denied)["violated-policies"] == ["day"]
    assert int(denied.of("retry-after")[0]) >= items_of(denied, "ratelimit")["day"]["t"] > 86_000


def test_a_shadow_policy_denies_no_request(door: Door) -> None:
    shadow = Policy.create("gcra", "1/h", name="shadow", shadow=True)
    client = door.serve(MemoryLimiter([shadow, DAY], ManualClock()))
    replies = [client(Request()) for _ in range(6)]
    assert [reply.status for reply in replies] == [200] * 5 + [429]
    assert {tuple(items_of(reply, "ratelimit-policy")) for reply in replies} == {("day",)}


def test_a_plan_changes_the_quota(door: Door) -> None:
    limiter = MemoryLimiter([DAY], ManualClock(), plans={"pro": {"day": "8/day"}})
    client = door.serve(limiter, plan="header:X-Plan")
    usual, pro = Request(), Request(headers="X-Plan: pro", peer="198.51.100.1")
    assert Counter(statuses(client, *[usual, pro] * 9)) == {200: 5 + 8, 429: 4 + 1}


def test_a_policy_of_each_account_counts_accounts(door: Door) -> None:
    team = Policy.create("token-bucket", "2/h", name="team", key="account")
    client = door.serve(MemoryLimiter([team], ManualClock()), account="header:X-Team")
    sent = [Request(headers=f"X-Team: {team}", peer=f"198.51.100.{n}") for n, team in enumerate("aabab")]
    assert statuses(client, *sent) == [200, 200, 200, 429, 200]


@pytest.mark.parametrize(("path", "status"), [("/refused", 401), ("/fail", 500), ("/stream", 200), ("/file", 200)])
def test_a_request_that_its_status_does_not_charge_is_refunded(door: Door, path: str, status: int) -> None:
    seen: list[int] = []

    def charge(_: Any, status: int) -> bool:
        seen.append(status)
        return len(seen) > 3

    client = door.serve(MemoryLimiter([DAY], ManualClock()), charge=charge)
    assert [client(Request(path)).status for _ in range(9)] == [status] * 8 + [429]
    assert seen == [status] * 8


# --- X-RateLimit-*


def test_legacy_fields_are_one_set(door: Door) -> None:
    client = door.serve(Watched(), legacy="delta")
    assert client(Request()).of("x-ratelimit-remaining") == ["4"]
    reply = client(Request("/legacy"))
    assert [reply.of(f"x-ratelimit-{name}") for name in ("limit", "remaining", "reset")] == [["60"], ["2"], ["1"]]
    assert parse_limits(reply.raw_fields).r == 3


# --- delays


def test_a_delayed_request_waits_for_its_turn(door: Door) -> None:
    client = door.serve(MemoryLimiter(create("leaky-bucket", "50/s", 3)))
    start = time.monotonic()
    assert statuses(client, *[Request()] * 2) == [200, 200]
    assert time.monotonic() - start >= 0.015


SLOW_QUEUES: list[Policy | list[Policy]] = [
    create("leaky-bucket", "1/10s", 3),
    [Policy.create("leaky-bucket", "1/10s", 3, name="slow"), DAY],
]


def test_a_delay_above_the_bound_is_refunded_and_denied(door: Door) -> None:
    for policies in SLOW_QUEUES:
        denials: list[Decision] = []

        def note(_: Any, decision: Decision, seen: list[Decision] = denials) -> None:
            seen.append(decision)

        limiter = MemoryLimiter(policies, ManualClock())
        client = door.serve(limiter, max_delay=1, on_denied=note)
        with patch("time.sleep") as sleep:
            replies = [client(Request()) for _ in range(3)]
        assert ([reply.status for reply in replies], sleep.mock_calls) == ([200, 429, 429], [])
        assert replies[2].of("retry-after") == ["9"]
        assert problem_of(replies[2])["violated-policies"] == [limiter.policies[0].name]
        alone = MemoryLimiter(policies, ManualClock())
        alone.hit("first")
        assert {(one.retry_after, one.reset_after) for one in denials} == {(9.0, alone.hit("first", 0).reset_after)}


# --- threads


@pytest.fixture
def switching() -> Iterator[None]:
    """Switch threads very often."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("switching")
@pytest.mark.parametrize("several", [False, True], ids=["one policy", "two policies"])
def test_threads_share_one_quota_exactly(door: Door, several: bool) -> None:
    policies = [Policy.create("token-bucket", "50/h", name=name) for name in ("a", "b")[: 1 + several]]
    client, found = door.serve(MemoryLimiter(policies, ManualClock())), Counter[int]()

    def send() -> None:
        mine = Counter(statuses(client, *[Request()] * 15))
        with lock:
            found.update(mine)

    lock = threading.Lock()
    threads = [threading.Thread(target=send) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {200: 50, 429: 40}


# --- fields of every reply


def test_waits_are_whole_seconds_of_at_least_one(door: Door) -> None:
    client = door.serve(MemoryLimiter(create("gcra", "7/10s", 2), ManualClock()))
    for reply in [client(Request()) for _ in range(5)]:
        limits = parse_limits(reply.raw_fields)
        assert all(re.fullmatch("[1-9][0-9]*", wait) for wait in reply.of("retry-after"))
        assert limits.retry_after is None or limits.retry_after >= limits.t
