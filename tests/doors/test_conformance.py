"""HTTP behavior that every door has: admission, denials, identity, methods, bodies, failures and mount points."""

from __future__ import annotations

import pytest
from asgi import scope_of
from door_conformance import FILE, LATER, PEER, Door, Request, problem_of, statuses
from identity_table import TABLE
from limited_apps import Watched
from response_headers import parse_limits

from ratelab import InputError, ManualClock, MemoryLimiter, Policy, create
from ratelab.http import by_route
from ratelab.http.identity import AmbiguousClientError, Identity

pytest_plugins = ("door_conformance",)

SECRET = "a secret"  # noqa: S105
PREFLIGHT = "Origin: https://elsewhere.example\nAccess-Control-Request-Method: POST"
LIMIT_FIELDS = ("ratelimit-policy", "ratelimit", "retry-after", "cache-control", "content-type", "content-length")


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
