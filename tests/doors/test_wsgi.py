"""The WSGI middleware: how a response starts, who the peer is, refunds by status, and arguments."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import patch

import pytest
from limited_apps import Watched
from wsgi import WsgiResponse, call, environ_of, run

from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy, create
from ratelab.http import Identity
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.wsgi import RateLimitMiddleware, decision_of

Environ = dict[str, Any]
LIMIT = [("ratelimit-policy", '"token-bucket";q=5;w=3'), ("ratelimit", '"token-bucket";r=4;t=1')]
TEXT = [("content-type", "text/plain")]
DAY = Policy.create("fixed-window", "5/day", name="day")


def hello(environ: Environ, start_response: Any) -> list[bytes]:
    start_response("200 OK", TEXT)
    return [b"hello"]


class Body:
    """A body that remembers whether it was closed."""

    def __init__(self, *parts: bytes) -> None:
        self.parts, self.closed = parts, 0

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.parts)

    def close(self) -> None:
        self.closed += 1


# --- how a response starts


def test_the_application_receives_the_environment_of_the_server() -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    environ = environ_of()
    run(RateLimitMiddleware(app, Watched()), environ)
    assert seen[0] is environ
    assert decision_of(environ) == Decision(True, 4, 0, 500_000_000, 0)


def test_the_body_of_the_application_is_not_wrapped() -> None:
    body = Body(b"hello")

    def app(environ: Environ, start_response: Any) -> Body:
        start_response("200 OK", TEXT)
        return body

    assert RateLimitMiddleware(app, Watched())(environ_of(), lambda *arguments: lambda data: None) is body


def test_a_list_of_fields_may_be_used_again() -> None:
    app = RateLimitMiddleware(hello, Watched())
    assert call(app) == (200, [*TEXT, *LIMIT], b"hello")
    assert len(call(app).fields) == len(TEXT) + len(LIMIT)
    assert TEXT == [("content-type", "text/plain")]


def test_a_response_may_be_written_in_the_old_way() -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"old ")
        return [b"and new"]

    assert call(RateLimitMiddleware(app, Watched())) == (200, [*TEXT, *LIMIT], b"old and new")


def failing_late(environ: Environ, start_response: Any) -> Iterable[bytes]:
    """Replace a response that has not started by an error."""
    import sys

    start_response("200 OK", TEXT)
    try:
        raise RuntimeError("failed")
    except RuntimeError:
        start_response("500 Internal Server Error", TEXT, sys.exc_info())
    yield b"failed"


def test_a_response_may_be_replaced_before_its_first_part() -> None:
    assert call(RateLimitMiddleware(failing_late, Watched())) == (500, [*TEXT, *LIMIT], b"failed")


def test_exceptions_of_the_application_pass_through() -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        raise KeyboardInterrupt

    middleware = RateLimitMiddleware(app, Watched())
    with pytest.raises(KeyboardInterrupt):
        call(middleware)
    assert middleware.counts.admitted == 1


def test_other_cases_of_field_names_are_kept_with_legacy_fields() -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b""]

    started: list[Any] = []

    def start_response(*arguments: Any) -> Callable[[bytes], object]:
        started.append(arguments)
        return lambda data: None

    RateLimitMiddleware(app, Watched(), legacy="delta")(environ_of(), start_response)
    assert started[0][1][0] == ("Content-Type", "text/plain")


def test_a_status_without_a_phrase_is_sent() -> None:
    app = RateLimitMiddleware(hello, Watched(burst=1), on_denied=lambda environ, decision: (499, TEXT, b"no"))
    assert [call(app).status for _ in range(2)] == [200, 499]


def test_fields_of_a_custom_denial_may_be_bytes_or_text() -> None:
    def answer(environ: Environ, decision: Decision) -> Any:
        return 429, [(b"X-A", b"1"), ("X-B", "caf\xe9"), ("Content-Type", "text/plain")], b"no"

    app = RateLimitMiddleware(hello, Watched(burst=1), on_denied=answer)
    denied = [call(app) for _ in range(2)][1]
    assert [denied.of(name) for name in ("x-a", "x-b")] == [["1"], ["caf\xe9"]]


@pytest.mark.parametrize("answer", [429, (429, [("x-a", "\u1234")], b""), (429, [("x-a", 5)], b""), (429, [], "text")])
def test_an_invalid_custom_denial_is_an_error(answer: Any) -> None:
    app = RateLimitMiddleware(hello, Watched(burst=1), on_denied=lambda environ, decision: answer)
    call(app)
    with pytest.raises(InputError, match="on_denied must return None, or a status"):
        call(app)


def test_counts_and_offenders_are_kept() -> None:
    app = RateLimitMiddleware(hello, Watched(burst=2), exempt=lambda environ: environ["PATH_INFO"] == "/health")
    for path in ("/ping", "/ping", "/ping", "/health"):
        call(app, path=path)
    assert (app.counts.admitted, app.counts.denied) == (2, 1)
    assert [offender[1] for offender in app.offenders.top()] == [1]


# --- peers


@pytest.mark.parametrize(("address", "port"), [("", None), (None, None), ("localhost", "None")])
def test_a_unix_socket_is_one_client_unless_it_is_trusted(address: str | None, port: str | None) -> None:
    environ = environ_of(headers="X-Forwarded-For: 192.0.2.7")
    environ |= {"REMOTE_ADDR": address, "REMOTE_PORT": port}
    if address is None:
        del environ["REMOTE_ADDR"], environ["REMOTE_PORT"]
    limiter = Watched()
    identity = Identity(trusted_proxies=["unix"])
    run(RateLimitMiddleware(hello, limiter, identity), environ)
    assert limiter.asked == [(identity.key_of("192.0.2.7"), 1)]


def admitted(app: RateLimitMiddleware, **changes: str) -> int:
    """Return how many of 50 requests with made-up addresses are admitted."""
    found = 0
    for number in range(50):
        environ = environ_of("127.0.0.1", f"X-Forwarded-For: 203.0.113.{number}")
        environ |= {name: value.format(number) for name, value in changes.items()}
        found += run(app, environ).status == 200
    return found


def test_a_local_peer_cannot_name_itself() -> None:
    assert admitted(RateLimitMiddleware(hello, Watched())) == 5


@pytest.mark.parametrize("peer", ["203.0.113.{}", "2001:db8:{}::1"])
@pytest.mark.parametrize("port", [True, False], ids=["with a port", "without"])
def test_a_server_that_replaces_the_peer_is_reported_once(
    caplog: pytest.LogCaptureFixture, peer: str, port: bool
) -> None:
    entry = peer if not port else f"{peer}:4711" if "." in peer else f"[{peer}]:4711"
    changes = {"REMOTE_ADDR": peer, "HTTP_X_FORWARDED_FOR": f"{entry}"}
    with caplog.at_level(logging.WARNING, "ratelab"):
        assert admitted(RateLimitMiddleware(hello, Watched()), **changes) == 50
    (record,) = caplog.records
    assert all(remedy in record.getMessage() for remedy in ("waitress without trusted_proxy", "ProxyFix", "gunicorn"))


def test_the_middleware_of_werkzeug_is_reported_once(caplog: pytest.LogCaptureFixture) -> None:
    from werkzeug.middleware.proxy_fix import ProxyFix

    app: Any = ProxyFix(RateLimitMiddleware(hello, Watched()), x_for=1)
    with caplog.at_level(logging.WARNING, "ratelab"):
        assert admitted(app) == 50
        assert [run(app, environ_of("127.0.0.1", "X-Forwarded-For: 127.0.0.9")).status] == [200]
    assert len(caplog.records) == 1


@pytest.mark.parametrize(
    ("peer", "header"),
    [
        ("127.0.0.1", "X-Forwarded-For: 127.0.0.1"),
        ("::1", "X-Forwarded-For: ::1"),
        ("203.0.113.9", "X-Forwarded-For: 203.0.113.99"),
        ("203.0.113.9", "X-Forwarded-For: 192.0.2.7"),
        ("10.0.0.1", ""),
    ],
)
def test_peers_of_the_socket_are_not_reported(caplog: pytest.LogCaptureFixture, peer: str, header: str) -> None:
    with caplog.at_level(logging.WARNING, "ratelab"):
        call(RateLimitMiddleware(hello, Watched()), peer, header)
    assert caplog.records == []


@pytest.mark.parametrize("name", ["User-Agent", "Authorization", "Cookie", "Accept-Language", "Sec-CH-UA"])
def test_commas_are_usual_in_some_fields(name: str) -> None:
    app = RateLimitMiddleware(hello, Watched(), key=f"header:{name}")
    assert call(app, headers=f"{name}: a, b").status == 200


def test_functions_of_an_identity_receive_the_environment() -> None:
    limiter = Watched()
    identity = Identity(lambda environ: environ["REMOTE_USER"], secret="s")  # noqa: S106
    run(RateLimitMiddleware(hello, limiter, identity), environ_of() | {"REMOTE_USER": "alice"})
    assert limiter.asked == [(identity.key_of("alice"), 1)]


# --- refunds by status


def charges(app: Any, **changes: Any) -> tuple[list[int], int]:
    """Return the statuses that `charge` is asked about in one request, and the remaining quota when it starts."""
    asked: list[int] = []
    limiter = MemoryLimiter([DAY], ManualClock())

    def charge(environ: Environ, status: int) -> bool:
        asked.append(status)
        return False

    started: list[int] = []

    def start_response(*arguments: Any) -> Callable[[bytes], object]:
        return lambda data: started.append(limiter.hit(key, cost=0).remaining)

    identity = Identity()
    key = identity.key_of("192.0.2.1")
    body = RateLimitMiddleware(app, limiter, identity, charge=charge)(environ_of() | changes, start_response)
    try:
        for part in body:
            if part:
                started.append(limiter.hit(key, cost=0).remaining)
    finally:
        if hasattr(body, "close"):
            body.close()
    return asked, started[0] if started else limiter.hit(key, cost=0).remaining


def writing(environ: Environ, start_response: Any) -> list[bytes]:
    write = start_response("201 Created", TEXT)
    write(b"old")
    return []


def streaming(environ: Environ, start_response: Any) -> Iterator[bytes]:
    start_response("202 Accepted", TEXT)
    yield b""
    yield b"one"
    yield b"two"


def empty(environ: Environ, start_response: Any) -> Body:
    start_response("204 No Content", [])
    return Body()


def sending_file(environ: Environ, start_response: Any) -> Any:
    import io

    start_response("200 OK", TEXT)
    return environ["wsgi.file_wrapper"](io.BytesIO(b"file"))


@pytest.mark.parametrize(
    ("app", "status"),
    [(hello, 200), (writing, 201), (streaming, 202), (empty, 204), (sending_file, 200), (failing_late, 500)],
)
def test_a_request_is_refunded_by_its_last_status_before_the_response(app: Any, status: int) -> None:
    assert charges(app) == ([status], 5)


def test_a_response_that_fails_before_its_first_part_counts_as_500() -> None:
    def failing(environ: Environ, start_response: Any) -> Iterator[bytes]:
        start_response("200 OK", TEXT)
        yield b""
        raise RuntimeError("failed")

    app = RateLimitMiddleware(failing, MemoryLimiter([DAY], ManualClock()), charge=lambda environ, status: status < 500)
    for _ in range(9):
        with pytest.raises(RuntimeError):
            call(app)


def test_a_body_that_a_server_never_reads_is_settled_and_closed() -> None:
    body = Body(b"unread")
    asked: list[int] = []

    def app(environ: Environ, start_response: Any) -> Body:
        start_response("304 Not Modified", [])
        return body

    def charge(environ: Environ, status: int) -> bool:
        asked.append(status)
        return True

    middleware = RateLimitMiddleware(app, MemoryLimiter([DAY]), charge=charge)
    middleware(environ_of(), lambda *arguments: lambda data: None).close()  # type: ignore[attr-defined]
    assert (asked, body.closed) == ([304], 1)


# --- delays


def test_a_delay_that_is_interrupted_is_counted_as_dropped() -> None:
    class SoftTimeLimitExceededError(Exception):
        pass

    app = RateLimitMiddleware(hello, MemoryLimiter(create("leaky-bucket", "1/s", 3), ManualClock()))
    call(app)
    with patch("time.sleep", side_effect=SoftTimeLimitExceededError), pytest.raises(SoftTimeLimitExceededError):
        call(app)
    assert (app.counts.admitted, app.counts.dropped, app.counts.waiting) == (1, 1, 0)


def test_on_denied_is_asked_about_a_delay_above_the_bound() -> None:
    seen: list[Decision] = []
    for limits in (create("leaky-bucket", "1/10s", 3), [Policy.create("leaky-bucket", "1/10s", 3, name="a"), DAY]):
        app = RateLimitMiddleware(
            hello, MemoryLimiter(limits, ManualClock()), on_denied=lambda _, each: seen.append(each), max_delay=1
        )
        call(app)
        call(app)
        assert (app.counts.admitted, app.counts.denied, app.offenders.top()[0][1]) == (1, 1, 1)
    assert [(one.allowed, one.remaining, one.retry_after, one.bound_by) for one in seen] == [
        (False, 0, 9.0, "leaky-bucket"),
        (False, 0, 9.0, "a"),
    ]


@pytest.mark.parametrize("max_delay", [-1, float("inf"), float("nan"), "1", True, None])
def test_an_invalid_longest_delay_is_rejected(max_delay: Any) -> None:
    with pytest.raises(InputError, match="max_delay must be a number of seconds"):
        RateLimitMiddleware(hello, Watched(), max_delay=max_delay)


# --- other arguments


def test_a_limiter_that_is_awaited_is_rejected() -> None:
    limiter = AsyncValkeyLimiter("valkey://localhost", create("gcra", "5/s"))
    with pytest.raises(InputError, match="limiter must not be awaited, got AsyncValkeyLimiter: use ValkeyLimiter"):
        RateLimitMiddleware(hello, limiter)


def test_a_policy_file_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "policies.yaml"
    path.write_text("version: 1\npolicies:\n- {name: burst, algorithm: token-bucket, rate: 2/h}\n")
    app = RateLimitMiddleware.from_file(hello, str(path))
    responses: list[WsgiResponse] = [call(app) for _ in range(3)]
    assert [response.status for response in responses] == [200, 200, 429]
    path.write_text("version: 1\npolicies:\n- {name: burst, algorithm: token-bucket, rate: 9/h}\n")
    assert app.policy_guard is not None
    assert app.policy_guard.reload(force=True)
    assert call(app).of("ratelimit-policy") == ['"burst";q=9;w=3600']
