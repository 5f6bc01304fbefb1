"""The WSGI middleware: how a response starts, who the peer is, refunds by status, and arguments."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol
from unittest.mock import patch

import pytest
from limited_apps import Watched
from wsgi import WsgiResponse, call, environ_of, run
from wsgi_apps import TEXT, Body, Environ, failing_late, hello

from ratelab import Decision, InputError, ManualClock, MemoryLimiter, Policy, create
from ratelab.errors import StoreError
from ratelab.http import by_route, doors
from ratelab.http.environ import EnvironScope
from ratelab.limiter import Costs, Keys, Row
from ratelab.stores.valkey import AsyncValkeyLimiter
from ratelab.wsgi import RateLimitMiddleware, decision_of

LIMIT = [("ratelimit-policy", '"token-bucket";q=5;w=3'), ("ratelimit", '"token-bucket";r=4;t=1')]
DAY = Policy.create("fixed-window", "5/day", name="day")


class Create(Protocol):
    """Create the middleware with a limit of 2/s and burst 5."""

    def __call__(self, app: Any, burst: int = 5, **arguments: Any) -> RateLimitMiddleware: ...


def create_new(app: Any, burst: int = 5, **arguments: Any) -> RateLimitMiddleware:
    """Create it before it has seen the peer."""
    return RateLimitMiddleware(app, Watched(burst=burst), **arguments)


def create_known(app: Any, burst: int = 5, **arguments: Any) -> RateLimitMiddleware:
    """Create it, and let it see the peer, whose quota is then restored."""
    limiter = Watched(burst=burst)
    middleware = RateLimitMiddleware(app, limiter, **arguments)
    middleware.admit(EnvironScope(environ_of()))
    limiter.reset(limiter.asked.pop()[0])
    middleware.counts.admitted = 0
    return middleware


def create_costly(app: Any, burst: int = 5, **arguments: Any) -> RateLimitMiddleware:
    """Create it with a function of the request, which needs its scope."""
    return RateLimitMiddleware(app, Watched(burst=burst), cost=lambda environ: 1, **arguments)


@pytest.fixture(params=[create_new, create_known, create_costly], ids=["new peer", "known peer", "function"])
def create_limited(request: pytest.FixtureRequest) -> Create:
    return request.param  # type: ignore[no-any-return]


# --- how a response starts


def test_the_application_receives_the_environment_of_the_server(create_limited: Create) -> None:
    seen: list[Environ] = []

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        seen.append(environ)
        return hello(environ, start_response)

    environ = environ_of()
    run(create_limited(app), environ)
    assert seen[0] is environ
    assert decision_of(environ) == Decision(True, 4, 0, 500_000_000, 0)


def test_the_body_of_the_application_is_not_wrapped(create_limited: Create) -> None:
    body = Body(b"hello")

    def app(environ: Environ, start_response: Any) -> Body:
        start_response("200 OK", TEXT)
        return body

    assert create_limited(app)(environ_of(), lambda *arguments: lambda data: None) is body


def test_a_list_of_fields_may_be_used_again(create_limited: Create) -> None:
    fields = [*TEXT]

    def app(environ: Environ, start_response: Any) -> list[bytes]:
        start_response("200 OK", fields)
        return [b""]

    limited = create_limited(app)
    assert call(limited).fields == [*TEXT, *LIMIT]
    assert call(limited).of("ratelimit") == ['"token-bucket";r=3;t=1']
    assert fields == TEXT


def test_a_response_may_be_written_in_the_old_way(create_limited: Create) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        write = start_response("200 OK", TEXT)
        write(b"old ")
        return [b"and new"]

    assert call(create_limited(app)) == (200, [*TEXT, *LIMIT], b"old and new")


def test_a_response_may_be_replaced_before_its_first_part(create_limited: Create) -> None:
    assert call(create_limited(failing_late)) == (500, [*TEXT, *LIMIT], b"failed")


def test_exceptions_of_the_application_pass_through(create_limited: Create) -> None:
    def app(environ: Environ, start_response: Any) -> list[bytes]:
        raise KeyboardInterrupt

    middleware = create_limited(app)
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


def test_fields_of_a_custom_denial_may_be_bytes_or_text(create_limited: Create) -> None:
    def answer(environ: Environ, decision: Decision) -> Any:
        return 429, [(b"X-A", b"1"), ("X-B", "caf\xe9"), ("Content-Type", "text/plain")], b"no"

    app = create_limited(hello, burst=1, on_denied=answer)
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


def test_exempt_returns_true_or_false() -> None:
    app = RateLimitMiddleware(hello, Watched(), exempt=lambda environ: "yes")  # type: ignore[arg-type, return-value]
    with pytest.raises(InputError, match=r"exempt must return True or False, got 'yes'"):
        call(app)


def test_denials_of_a_known_peer_are_counted() -> None:
    app = RateLimitMiddleware(hello, Watched(burst=2))
    assert [call(app).status for _ in range(4)] == [200, 200, 429, 429]
    assert (app.counts.admitted, app.counts.denied) == (2, 2)
    assert [offender[1] for offender in app.offenders.top()] == [2]


def test_the_fields_of_a_known_peer_follow_its_quota_and_time() -> None:
    clock = ManualClock()
    app = RateLimitMiddleware(hello, MemoryLimiter(create("token-bucket", "1/10s", 4), clock))
    found = []
    for seconds in (0, 0, 0, 7, 30, 0):
        clock.advance(seconds * 10**9)
        found += call(app).of("ratelimit")
    states = ["r=3;t=10", "r=2;t=20", "r=1;t=30", "r=0;t=33", "r=2;t=13", "r=1;t=23"]
    assert found == [f'"token-bucket";{state}' for state in states]


def test_the_wait_of_a_known_peer_follows_the_time() -> None:
    clock = ManualClock()
    app = RateLimitMiddleware(hello, MemoryLimiter(create("token-bucket", "1/10s", 1), clock))
    found = []
    for seconds in (0, 0, 6, 1):
        clock.advance(seconds * 10**9)
        found += call(app).of("retry-after")
    assert found == ["10", "4", "3"]


def test_a_policy_that_changes_applies_to_known_peers() -> None:
    limiter = MemoryLimiter(create("token-bucket", "5/h"), plans={})
    app = RateLimitMiddleware(hello, limiter)
    assert [call(app).status for _ in range(2)] == [200, 200]
    limiter.update(create("token-bucket", "9/h"))
    assert call(app).of("ratelimit-policy") == ['"token-bucket";q=9;w=3600']


def test_a_known_peer_without_a_decision_is_answered_503() -> None:
    class Failing(Watched):
        def hit_row(self, key: Keys, cost: Costs = 1) -> Row:
            if len(self.asked) > 1:
                raise StoreError("timeout", "no answer")
            return super().hit_row(key, cost)

    app = RateLimitMiddleware(hello, Failing())
    assert [call(app).status for _ in range(3)] == [200, 200, 503]
    assert call(app, method="HEAD").body == b""
    assert app.counts.unavailable == 2


# --- mount points


def test_a_mounted_application_has_the_routes_of_its_own_paths() -> None:
    from werkzeug.middleware.dispatcher import DispatcherMiddleware

    limited = RateLimitMiddleware(hello, Watched(), cost=by_route({"/search": 5}, default=1))
    app: Any = DispatcherMiddleware(hello, {"/api": limited})
    assert [call(app, path=path).status for path in ("/search", "/api/search", "/api/search")] == [200, 200, 429]


@pytest.mark.parametrize(
    ("root", "path"),
    [("", "/search"), ("/api", "/search"), ("/api/", "search"), ("/api", "search"), ("/api", "//search")],
)
def test_a_route_is_the_path_below_the_mount_point_however_it_is_split(root: str, path: str) -> None:
    app = RateLimitMiddleware(hello, Watched(), cost=by_route({"/search": 5}, default=1))
    assert run(app, environ_of(path=path, root=root)).of("ratelimit") == ['"token-bucket";r=0;t=3']


# --- delays


def test_a_delay_that_is_interrupted_is_counted_as_dropped() -> None:
    class SoftTimeLimitExceededError(Exception):
        pass

    app = RateLimitMiddleware(hello, MemoryLimiter(create("leaky-bucket", "1/s", 3), ManualClock()))
    call(app)
    with patch("time.sleep", side_effect=SoftTimeLimitExceededError), pytest.raises(SoftTimeLimitExceededError):
        call(app)
    assert (app.counts.admitted, app.counts.dropped, app.counts.waiting) == (1, 1, 0)
    with patch("time.sleep"):
        assert [call(app).status for _ in range(2)] == [200, 429]  # the interrupted request stays charged


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


# --- several processes


@pytest.mark.parametrize(("limits", "multiprocess", "warnings"), [([DAY], True, 1), (DAY, True, 1), (DAY, False, 0)])
def test_several_processes_with_quotas_in_memory_are_warned_about_once(
    limits: Any, multiprocess: bool, warnings: int, caplog: pytest.LogCaptureFixture
) -> None:
    doors._warn_of_processes.cache_clear()
    for app in (RateLimitMiddleware(hello, limits), RateLimitMiddleware(hello, MemoryLimiter(limits))):
        run(app, environ_of() | {"wsgi.multiprocess": multiprocess})
        run(app, environ_of() | {"wsgi.multiprocess": multiprocess})
    assert caplog.text.count("each process of the server has its own quota in memory") == warnings


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
