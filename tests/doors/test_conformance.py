"""HTTP behavior that every door has: identity, methods, bodies, failures, and the fields and bodies of denials."""

from __future__ import annotations

import json
import re
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext, suppress
from typing import Any

import http_sf
import pytest
from asgi import scope_of
from door_conformance import DOORS, FILE, LATER, PEER, Client, Door, Reply, Request, find_door
from identity_table import TABLE
from limited_apps import Watched
from response_headers import parse_limits

from ratelab import InputError, ManualClock, MemoryLimiter, Policy, create
from ratelab.errors import StoreError
from ratelab.http import by_route
from ratelab.http.identity import AmbiguousClientError, Identity
from ratelab.limiter import Costs, Keys, Row

SECRET = "a secret"  # noqa: S105
PREFLIGHT = "Origin: https://elsewhere.example\nAccess-Control-Request-Method: POST"
LIMIT_FIELDS = ("ratelimit-policy", "ratelimit", "retry-after", "cache-control", "content-type")


@pytest.fixture(params=DOORS, scope="module")
def door(request: pytest.FixtureRequest) -> Door:
    return find_door(request.param)


def statuses(client: Client, *requests: Request) -> list[int]:
    return [client(request).status for request in requests]


def problem_of(reply: Reply) -> dict[str, Any]:
    """Return the problem in a reply; check its type, its status and its length."""
    problem: dict[str, Any] = json.loads(reply.body)
    assert reply.of("content-type") == ["application/problem+json"]
    assert reply.of("content-length") == [str(len(reply.body))]
    assert problem["status"] == reply.status
    return problem


# --- admitted or denied


def test_fields_are_added_to_the_response_of_the_application(door: Door) -> None:
    reply = door.serve(Watched())(Request())
    assert (reply.status, reply.body) == (200, b"pong")
    assert reply.of("content-type")[0].startswith("text/plain")
    assert parse_limits(reply.raw_fields) == ("token-bucket", 5, 3, 4, 1, None)


def test_a_denied_request_gets_a_problem_that_no_cache_stores(door: Door) -> None:
    client = door.serve(Watched(burst=1))
    _, denied = client(Request()), client(Request())
    limits = parse_limits(denied.raw_fields)
    assert (denied.status, limits.r, denied.of("cache-control")) == (429, 0, ["no-store"])
    assert limits.retry_after is not None
    assert limits.retry_after >= limits.t >= 1
    problem = problem_of(denied)
    assert problem["type"] == "https://iana.org/assignments/http-problem-types#quota-exceeded"
    assert problem["violated-policies"] == ["token-bucket"]


def test_a_quota_returns_with_time(door: Door) -> None:
    clock = ManualClock()
    client = door.serve(MemoryLimiter(create("token-bucket", "1/s", 2), clock))
    assert statuses(client, *[Request()] * 3) == [200, 200, 429]
    clock.advance(10**9)
    assert statuses(client, *[Request()] * 2) == [200, 429]


def test_every_client_has_a_quota(door: Door) -> None:
    client = door.serve(Watched(burst=1))
    assert statuses(client, *(Request(peer=f"198.51.100.{number % 3}") for number in range(6))) == [200] * 3 + [429] * 3


def test_the_application_sees_the_decision(door: Door) -> None:
    client = door.serve(Watched(), exempt=by_route({"HEAD /{path:path}": False, "/ping": True}, default=False))
    assert [client(Request("/remaining")).body for _ in range(2)] == [b"4", b"3"]
    assert client(Request("/ping")).of("ratelimit") == []


# --- identity


@pytest.mark.parametrize("promise", TABLE)
def test_requests_come_from_the_client_of_the_table(door: Door, promise: str) -> None:
    options, rows = TABLE[promise]
    identity, limiter = Identity(**options, secret=SECRET), Watched(rate="1000000/s", burst=10**6)
    client = door.serve(limiter, key=identity)
    header = str(options.get("key", "")).removeprefix("header:").lower()
    for row in rows:
        joined = any(
            line.lower().startswith(f"{header}: ") and "," in line for line in row.headers.split("\n") if header
        )
        try:
            expected: str | None = identity(scope_of(row.peer, row.headers))
        except AmbiguousClientError:
            expected = None
        if joined and not door.tells_repeated_fields and "proxies" not in promise:
            expected = None
        limiter.asked.clear()
        status = client(Request(peer=row.peer, headers=row.headers)).status
        keys = [key for key, _ in limiter.asked]
        assert (status, keys) == ((400, []) if expected is None else (200, [expected])), row


def test_a_repeated_header_that_identifies_the_client_is_answered_400(door: Door) -> None:
    limiter = Watched()
    reply = door.serve(limiter, key="header:X-API-Key")(Request(headers="X-API-Key: alice\nX-API-Key: bob"))
    assert (reply.status, limiter.asked) == (400, [])
    assert "x-api-key must be sent once" in problem_of(reply)["detail"]


def test_forged_headers_do_not_change_the_client(door: Door) -> None:
    client = door.serve(Watched())
    names = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "CF-Connecting-IP", "True-Client-IP")
    forged = [Request(headers="\n".join(f"{name}: 198.51.100.{n}" for name in names)) for n in range(20)]
    assert statuses(client, *forged).count(200) == 5


@pytest.mark.parametrize("name", ["CF-Connecting-IP", "True-Client-IP", "X-Client-IP", "Fastly-Client-IP", "X-Real-IP"])
def test_a_header_with_an_address_needs_trusted_proxies(door: Door, name: str) -> None:
    with pytest.raises(InputError, match="can be forged by clients"):
        door.serve(Watched(), key=f"header:{name}")


# --- methods


def test_the_reply_to_head_has_the_fields_of_get_and_no_body(door: Door) -> None:
    for cost in (1, 6):
        get, head = (door.serve(Watched(), cost=cost)(Request(method=method)) for method in ("GET", "HEAD"))
        assert head.status == get.status
        assert head.body == b"" or cost == 1  # a server removes the body of the application
        assert [head.of(name) for name in LIMIT_FIELDS] == [get.of(name) for name in LIMIT_FIELDS]


def test_head_is_charged_as_get_is(door: Door) -> None:
    client = door.serve(Watched(burst=2))
    replies = [client(Request(method=method)) for method in ("GET", "HEAD", "HEAD", "GET")]
    assert [reply.status for reply in replies] == [200, 200, 429, 429]
    assert replies[2].body == b""
    assert replies[2].of("retry-after") == ["1"]


def test_a_preflight_that_is_exempt_is_not_charged(door: Door) -> None:
    client = door.serve(Watched(burst=1), exempt=by_route({"OPTIONS /{path:path}": True}, default=False))
    assert 429 not in statuses(client, *[Request(method="OPTIONS", headers=PREFLIGHT)] * 3)
    assert statuses(client, *[Request()] * 2) == [200, 429]


def test_a_preflight_is_charged_where_the_limit_covers_it(door: Door) -> None:
    client = door.serve(Watched(burst=1))
    assert client(Request(method="OPTIONS", headers=PREFLIGHT)).status != 429
    assert client(Request()).status == (429 if door.covers_all else 200)


# --- bodies and failures


def test_a_streamed_body_arrives_whole(door: Door) -> None:
    reply = door.serve(Watched())(Request("/stream"))
    assert (reply.status, reply.body) == (200, b"onetwo")
    assert parse_limits(reply.raw_fields).r == 4


def test_a_file_arrives_whole(door: Door) -> None:
    reply = door.serve(Watched())(Request("/file"))
    assert (reply.status, reply.body, reply.of("content-length")) == (200, FILE, [str(len(FILE))])
    assert parse_limits(reply.raw_fields).r == 4


def test_a_failure_of_the_application_is_charged(door: Door) -> None:
    client = door.serve(Watched(burst=2))
    assert statuses(client, *[Request("/fail")] * 3) == [500, 500, 429]


def test_an_unknown_path_is_charged_where_the_limit_covers_it(door: Door) -> None:
    client = door.serve(Watched(burst=2))
    expected = [404, 404, 429] if door.covers_all else [404] * 3
    assert statuses(client, *[Request("/unknown")] * 3) == expected


def test_background_work_of_an_admitted_request_is_done(door: Door) -> None:
    LATER.clear()
    client = door.serve(Watched(burst=2))
    assert statuses(client, *[Request("/later")] * 3) == [200, 200, 429]
    assert LATER == ["later", "later"]


# --- mount points


def test_routes_are_those_below_the_mount_point(door: Door) -> None:
    client = door.serve(
        Watched(burst=10),
        cost=by_route({"/ping": 5}, default=1),
        exempt=by_route({"/stream": True}, default=False),
    )
    for root in ("", "/api"):
        peer = PEER if root else "198.51.100.1"
        replies = [client(Request(path, root=root, peer=peer)) for path in ("/ping", "/stream", "/refused", "/ping")]
        assert [reply.status for reply in replies] == [200, 200, 401, 429], root
        assert replies[1].of("ratelimit") == []


def test_a_policy_applies_to_its_route_below_the_mount_point(door: Door) -> None:
    policy = Policy.create("token-bucket", "1/h", name="pings", match="/ping")
    client = door.serve(MemoryLimiter([policy], ManualClock()))
    requests = [Request("/ping", root="/api"), Request("/ping", root="/api"), Request("/remaining", root="/api")]
    assert statuses(client, *requests) == [200, 429, 200]


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
    for policies in SLOW_QUEUES if door.blocks else ():
        limiter = MemoryLimiter(policies, ManualClock())
        client = door.serve(limiter, max_delay=1)
        replies = [client(Request()) for _ in range(3)]
        assert [reply.status for reply in replies] == [200, 429, 429]
        assert replies[2].of("retry-after") == ["9"]
        assert problem_of(replies[2])["violated-policies"] == [limiter.policies[0].name]


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
